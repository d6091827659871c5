import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")

image = pipe(
    "a lighthouse on a cliff at dusk, oil painting",
    height=1024,
    width=1024,
    guidance_scale=3.5,
    num_inference_steps=28,
    generator=torch.Generator("cpu").manual_seed(0),
).images[0]
image.save("flux.png")
