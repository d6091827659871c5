import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()

prompt = "a cat holding a sign that says hello world"
image = pipe(prompt, height=1024, width=1024, num_inference_steps=28, guidance_scale=3.5).images[0]
image.save("flux.png")
