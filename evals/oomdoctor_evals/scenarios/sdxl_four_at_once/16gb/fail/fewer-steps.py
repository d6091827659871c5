import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16")
pipe.to("cuda")
pipe.vae.enable_slicing()

images = pipe("a lighthouse on a cliff at dusk, oil painting", num_images_per_prompt=4, num_inference_steps=2).images
for i, image in enumerate(images):
    image.save(f"picture-{i}.png")
