import torch
from diffusers import StableDiffusion3Pipeline

MODEL = "stabilityai/stable-diffusion-3.5-medium"

pipe = StableDiffusion3Pipeline.from_pretrained(MODEL, torch_dtype=torch.bfloat16)
pipe.to("cuda")

image = pipe(
    prompt="a lighthouse on a cliff at dusk, oil painting",
    negative_prompt="",
    num_inference_steps=28,
    height=1024,
    width=1024,
    guidance_scale=4.5,
).images[0]
image.save("sd35.png")
