import torch
from diffusers import CogVideoXPipeline
from diffusers.utils import export_to_video

pipe = CogVideoXPipeline.from_pretrained("THUDM/CogVideoX-2b", torch_dtype=torch.float16)
pipe.to("cuda")

prompt = "A panda, dressed in a small red jacket, sits on a wooden stool and plays a miniature guitar."
video = pipe(prompt=prompt, num_videos_per_prompt=1, num_inference_steps=50, num_frames=49, guidance_scale=6.0).frames[
    0
]
export_to_video(video, "output.mp4", fps=8)
