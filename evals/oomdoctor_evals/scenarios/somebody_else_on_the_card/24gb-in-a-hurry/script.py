import torch
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3.5-medium", torch_dtype=torch.bfloat16)
pipe = pipe.to("cuda")

out = pipe("a lighthouse on a cliff at dusk, oil painting", num_inference_steps=28, guidance_scale=4.5)
out.images[0].save("shared.png")
