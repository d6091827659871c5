import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe.to("cuda")

pictures = []
for seed in range(4):
    generator = torch.Generator("cuda").manual_seed(seed)
    out = pipe("a lighthouse on a cliff at dusk, oil painting", num_images_per_prompt=8, generator=generator, num_inference_steps=4, output_type="pt").images
    pictures.append(out)

everything = torch.cat([p.float().cpu() for p in pictures])
torch.save(everything, "pictures.pt")
