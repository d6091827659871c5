import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16)
pipe.transformer.enable_group_offload(onload_device=torch.device("cuda"), offload_type="block_level", num_blocks_per_group=1, use_stream=True)
pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True, exclude_modules=["transformer"])

image = pipe("a lighthouse on a cliff at dusk, oil painting", guidance_scale=0.0, num_inference_steps=4, max_sequence_length=256).images[0]
image.save("compiled.png")
