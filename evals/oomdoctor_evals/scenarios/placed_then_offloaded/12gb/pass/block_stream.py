import torch
from diffusers import CogView3PlusPipeline

pipe = CogView3PlusPipeline.from_pretrained("zai-org/CogView3-Plus-3B", torch_dtype=torch.bfloat16)
pipe.transformer.enable_group_offload(onload_device=torch.device("cuda"), offload_type="block_level", num_blocks_per_group=1, use_stream=True)
pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True, exclude_modules=["transformer"])
pipe.vae.enable_slicing()

prompt = "a lighthouse on a cliff at dusk, oil painting"
image = pipe(prompt=prompt, guidance_scale=7.0, num_images_per_prompt=1, num_inference_steps=20, width=1024, height=1024).images[0]
image.save("cogview3.png")
