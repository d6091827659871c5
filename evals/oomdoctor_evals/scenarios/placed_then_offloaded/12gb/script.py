import torch
from diffusers import CogView3PlusPipeline

pipe = CogView3PlusPipeline.from_pretrained("zai-org/CogView3-Plus-3B", torch_dtype=torch.bfloat16).to("cuda")
pipe.enable_model_cpu_offload()
pipe.vae.enable_slicing()

prompt = "a lighthouse on a cliff at dusk, oil painting"
image = pipe(prompt=prompt, guidance_scale=7.0, num_images_per_prompt=1, num_inference_steps=20, width=1024, height=1024).images[0]
image.save("cogview3.png")
