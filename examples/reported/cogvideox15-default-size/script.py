import torch
from diffusers import CogVideoXPipeline
from diffusers.utils import export_to_video

pipe = CogVideoXPipeline.from_pretrained("THUDM/CogVideoX1.5-5B", torch_dtype=torch.bfloat16)
pipe.enable_sequential_cpu_offload()

prompt = "A girl riding a bike."
video = pipe(prompt=prompt, height=768, width=1360, num_frames=81, num_inference_steps=50, guidance_scale=6.0).frames[0]
export_to_video(video, "output.mp4", fps=8)
