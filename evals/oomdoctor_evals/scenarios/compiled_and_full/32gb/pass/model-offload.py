import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()
pipe.transformer = torch.compile(pipe.transformer)

image = pipe("a lighthouse on a cliff at dusk, oil painting", guidance_scale=0.0, num_inference_steps=4, max_sequence_length=256).images[0]
image.save("compiled.png")
