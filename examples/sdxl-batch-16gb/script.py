import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.float16,
    variant="fp16",
    use_safetensors=True,
)
pipe = pipe.to("cuda")
images = pipe("an astronaut riding a green horse", height=1024, width=1024, num_images_per_prompt=4).images
for i, image in enumerate(images):
    image.save(f"astronaut{i}.png")
