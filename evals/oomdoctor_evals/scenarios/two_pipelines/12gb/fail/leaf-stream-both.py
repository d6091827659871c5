import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

base = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16"
)
base.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)
refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-refiner-1.0",
    text_encoder_2=base.text_encoder_2,
    vae=base.vae,
    torch_dtype=torch.float16,
    variant="fp16",
)
refiner.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)

prompt = "a lighthouse on a cliff at dusk, oil painting"
draft = base(prompt, num_inference_steps=6).images[0]
image = refiner(prompt, image=draft, num_inference_steps=6).images[0]
image.save("refined.png")
