import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16")
pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float16)
pipe.to("cuda")

images = pipe("a lighthouse on a cliff at dusk, oil painting", num_images_per_prompt=4, num_inference_steps=6).images
for i, image in enumerate(images):
    image.save(f"picture-{i}.png")
