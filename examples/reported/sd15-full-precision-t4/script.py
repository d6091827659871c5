from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
pipe.unet.set_attn_processor(AttnProcessor())
pipe.to("cuda")

images = pipe("a photograph of an astronaut riding a horse", height=768, width=768, num_images_per_prompt=2).images
for index, image in enumerate(images):
    image.save(f"astronaut-{index}.png")
