import torch
from diffusers import BitsAndBytesConfig, FluxPipeline, FluxTransformer2DModel

MODEL = "black-forest-labs/FLUX.1-dev"

quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
transformer = FluxTransformer2DModel.from_pretrained(
    MODEL, subfolder="transformer", quantization_config=quantization, torch_dtype=torch.bfloat16
)
pipe = FluxPipeline.from_pretrained(MODEL, transformer=transformer, torch_dtype=torch.bfloat16)
pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)

image = pipe("a lighthouse on a cliff at dusk, oil painting", num_inference_steps=28, guidance_scale=3.5).images[0]
image.save("nf4.png")
