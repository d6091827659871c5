import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained(
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    torch_dtype=torch.float16,
)
pipe.to("cuda")
image = pipe("a lighthouse on a cliff at dusk, oil painting", num_inference_steps=28, guidance_scale=4.5).images[0]
image.save("t4.png")
