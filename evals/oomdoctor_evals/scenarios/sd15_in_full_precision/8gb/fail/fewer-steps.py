import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe = pipe.to("cuda")

prompt = "a lighthouse on a cliff at dusk, oil painting"
image = pipe(prompt, height=1024, width=1024, num_inference_steps=2).images[0]
image.save("full.png")
