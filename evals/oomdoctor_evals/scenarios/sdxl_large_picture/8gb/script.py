import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.float16,
    variant="fp16",
)
pipe.enable_model_cpu_offload()

image = pipe(
    "a lighthouse on a cliff at dusk, oil painting",
    height=1536,
    width=1536,
    num_inference_steps=6,
).images[0]
image.save("large.png")
