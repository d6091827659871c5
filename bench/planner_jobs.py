"""The ten jobs of ``bench/planner.py``: scripts as people write them, of every kind of pipeline."""

from __future__ import annotations


def _image(cls: str, model: str, dtype: str, call: str) -> str:
    return (
        f"import torch\nfrom diffusers import {cls}\n\n"
        f'pipe = {cls}.from_pretrained("{model}", torch_dtype=torch.{dtype})\n'
        'pipe.to("cuda")\n\n'
        f'image = pipe("a cat on a sofa", {call}).images[0]\n'
        'image.save("cat.png")\n'
    )


def _video(cls: str, model: str, dtype: str, call: str) -> str:
    return (
        f"import torch\nfrom diffusers import {cls}\nfrom diffusers.utils import export_to_video\n\n"
        f'pipe = {cls}.from_pretrained("{model}", torch_dtype=torch.{dtype})\n'
        'pipe.to("cuda")\n\n'
        f'video = pipe(prompt="a cat walks on grass", negative_prompt="blurry", {call}).frames[0]\n'
        'export_to_video(video, "cat.mp4")\n'
    )


JOBS: dict[str, str] = {
    "flux": _image(
        "FluxPipeline", "black-forest-labs/FLUX.1-dev", "bfloat16",
        "height=1024, width=1024, num_inference_steps=28, guidance_scale=3.5",
    ),
    "sdxl-batch4": _image(
        "StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0", "float16",
        "height=1024, width=1024, num_inference_steps=30, num_images_per_prompt=4",
    ),
    "sd15-batch8": _image(
        "StableDiffusionPipeline", "stable-diffusion-v1-5/stable-diffusion-v1-5", "float16",
        "height=512, width=512, num_inference_steps=30, num_images_per_prompt=8",
    ),
    "sd35-large": _image(
        "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3.5-large", "bfloat16",
        "height=1024, width=1024, num_inference_steps=28",
    ),
    "qwen-image": _image(
        "QwenImagePipeline", "Qwen/Qwen-Image", "bfloat16",
        'height=1328, width=1328, num_inference_steps=30, negative_prompt=" ", true_cfg_scale=4.0',
    ),
    "wan-1.3b": _video(
        "WanPipeline", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "bfloat16",
        "height=480, width=832, num_frames=81, num_inference_steps=30",
    ),
    "wan-14b": _video(
        "WanPipeline", "Wan-AI/Wan2.1-T2V-14B-Diffusers", "bfloat16",
        "height=480, width=832, num_frames=81, num_inference_steps=30",
    ),
    "cogvideox-5b": _video(
        "CogVideoXPipeline", "zai-org/CogVideoX-5b", "bfloat16",
        "height=480, width=720, num_frames=49, num_inference_steps=30",
    ),
    "ltx-video": _video(
        "LTXPipeline", "Lightricks/LTX-Video", "bfloat16",
        "height=480, width=704, num_frames=121, num_inference_steps=30",
    ),
    "hunyuan-video": _video(
        "HunyuanVideoPipeline", "hunyuanvideo-community/HunyuanVideo", "bfloat16",
        "height=544, width=960, num_frames=61, num_inference_steps=30",
    ),
}  # fmt: skip
"""Name -> script that puts everything on the card."""
