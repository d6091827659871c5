from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
pipe.unet.set_attn_processor(AttnProcessor())
pipe.to("cuda")

image = pipe("a photograph of an astronaut riding a horse", height=896, width=704).images[0]
image.save("astronaut.png")
