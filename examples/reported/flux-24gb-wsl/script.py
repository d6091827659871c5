import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")

image = pipe(
    "An ancient woman stands solemnly, holding a blazing torch", height=1280, width=768, num_inference_steps=24
).images[0]
image.save("flux.png")
