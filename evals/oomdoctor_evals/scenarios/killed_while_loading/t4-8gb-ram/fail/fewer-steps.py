import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained(
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    torch_dtype=torch.float16,
    device_map="cuda",
)
pipe.vae.enable_tiling()
pipe.vae.tile_sample_min_size = 512
pipe.vae.tile_latent_min_size = 64
image = pipe("a lighthouse on a cliff at dusk, oil painting", num_inference_steps=2, guidance_scale=4.5).images[0]
image.save("t4.png")
