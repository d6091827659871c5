import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline
from PIL import Image

controlnet = ControlNetModel.from_pretrained("diffusers/controlnet-canny-sdxl-1.0", torch_dtype=torch.float16)
pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", controlnet=controlnet, torch_dtype=torch.float16, variant="fp16"
)
pipe.enable_model_cpu_offload()

edges = Image.new("RGB", (1024, 1024))
image = pipe("a lighthouse on a cliff at dusk, oil painting", image=edges, controlnet_conditioning_scale=0.5, num_inference_steps=6).images[0]
image.save("controlled.png")
