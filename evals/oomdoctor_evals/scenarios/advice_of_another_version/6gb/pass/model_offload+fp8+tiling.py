import torch
from diffusers import AutoPipelineForText2Image

pipe = AutoPipelineForText2Image.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16", use_safetensors=True
)
pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float16)
pipe.enable_model_cpu_offload()
pipe.vae.enable_tiling()

image = pipe("a lighthouse on a cliff at dusk, oil painting", width=2048, height=1024, num_inference_steps=6).images[0]
image.save("wide.png")
