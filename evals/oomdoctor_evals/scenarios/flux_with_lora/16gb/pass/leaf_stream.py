import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.load_lora_weights("XLabs-AI/flux-RealismLora", adapter_name="style")
pipe.set_adapters(["style"], adapter_weights=[0.9])
pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)

image = pipe("a lighthouse on a cliff at dusk, oil painting", height=1024, width=1024, guidance_scale=3.5, num_inference_steps=28).images[0]
image.save("lora.png")
