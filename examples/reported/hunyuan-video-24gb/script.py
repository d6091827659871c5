import torch
from diffusers import HunyuanVideoPipeline
from diffusers.utils import export_to_video

pipe = HunyuanVideoPipeline.from_pretrained("hunyuanvideo-community/HunyuanVideo", torch_dtype=torch.bfloat16)
pipe.vae.enable_tiling()
pipe.enable_model_cpu_offload()

video = pipe(
    prompt="A cat walks on the grass, realistic", height=544, width=960, num_frames=97, num_inference_steps=30
).frames[0]
export_to_video(video, "output.mp4", fps=24)
