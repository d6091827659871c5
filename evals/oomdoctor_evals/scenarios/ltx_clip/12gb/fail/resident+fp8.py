import torch
from diffusers import LTXPipeline
from diffusers.utils import export_to_video

pipe = LTXPipeline.from_pretrained("Lightricks/LTX-Video", torch_dtype=torch.bfloat16)
pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
pipe.to("cuda")

video = pipe(
    prompt="waves roll over black sand while a dog runs along the shore",
    negative_prompt="worst quality, inconsistent motion, blurry",
    width=704,
    height=480,
    num_frames=161,
    num_inference_steps=30,
).frames[0]
export_to_video(video, "clip.mp4", fps=24)
