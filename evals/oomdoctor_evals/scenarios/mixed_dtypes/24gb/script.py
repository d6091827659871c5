import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

vae = AutoencoderKL.from_pretrained("madebyollin/sdxl-vae-fp16-fix", torch_dtype=torch.float32)
pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", vae=vae, torch_dtype=torch.float16, variant="fp16"
)
pipe.vae.to(torch.float32)
pipe.to("cuda")

latents = pipe("a lighthouse on a cliff at dusk, oil painting", output_type="latent", num_inference_steps=6).images
image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
pipe.image_processor.postprocess(image)[0].save("mixed.png")
