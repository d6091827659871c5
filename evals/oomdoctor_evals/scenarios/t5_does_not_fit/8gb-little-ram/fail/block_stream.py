import torch
from diffusers import StableDiffusion3Pipeline

MODEL = "stabilityai/stable-diffusion-3.5-medium"

pipe = StableDiffusion3Pipeline.from_pretrained(MODEL, torch_dtype=torch.bfloat16)
pipe.transformer.enable_group_offload(onload_device=torch.device("cuda"), offload_type="block_level", num_blocks_per_group=1, use_stream=True)
pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True, exclude_modules=["transformer"])

image = pipe(
    prompt="a lighthouse on a cliff at dusk, oil painting",
    negative_prompt="",
    num_inference_steps=28,
    height=1024,
    width=1024,
    guidance_scale=4.5,
).images[0]
image.save("sd35.png")
