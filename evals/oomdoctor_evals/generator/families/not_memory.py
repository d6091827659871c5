"""Errors that are not about memory, in scripts that look as if they were."""

from __future__ import annotations

from oomdoctor_evals.generator.family import NO_QUANT, Family, Variant
from oomdoctor_evals.generator.prompts import PROMPTS
from oomdoctor_evals.values import Truth

NOTHING = Truth(phase="unknown", component=None, resource="none", root_cause="not_memory")

DTYPES = Family(
    name="mixed_dtypes",
    script='''import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

vae = AutoencoderKL.from_pretrained("madebyollin/sdxl-vae-fp16-fix", torch_dtype=torch.float32)
pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", vae=vae, torch_dtype=torch.float16, variant="fp16"
)
pipe.vae.to(torch.float32)
pipe.to("cuda")

latents = pipe("{prompt}", output_type="latent", num_inference_steps={steps}).images
image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
pipe.image_processor.postprocess(image)[0].save("mixed.png")
''',
    place="",
    knobs={"prompt": PROMPTS, "steps": (6, 8)},
    extra={"same-dtype": (("decode(latents /", "decode(latents.float() /"),)},
    wrong={"offload": (('pipe.to("cuda")', "pipe.enable_model_cpu_offload()"),)},
    variants=(Variant("24gb", "not_oom", "rtx-4090-24gb", 64, "not_oom", preference=NO_QUANT, truth=NOTHING),),
)  # fmt: skip

DISK = Family(
    name="disk_and_driver",
    script='''import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16"
)
pipe.to("cuda")
image = pipe("{prompt}", num_inference_steps={steps}).images[0]
image.save("picture.png")
''',
    place="",
    knobs={"prompt": PROMPTS, "steps": (6, 8)},
    wrong={"offload": (('pipe.to("cuda")', "pipe.enable_model_cpu_offload()"),)},
    variants=(
        Variant("disk-full", "not_oom", "rtx-3090-24gb", 64, "not_oom", preference=NO_QUANT, truth=NOTHING, evidence='''Fetching 19 files:  42%|####2     | 8/19 [03:12<04:24, 24.04s/it]
Traceback (most recent call last):
  File "/home/me/pictures/script.py", line 4, in <module>
    pipe = StableDiffusionXLPipeline.from_pretrained(
  File "/home/me/venv/lib/python3.11/site-packages/huggingface_hub/utils/_validators.py", line 114, in _inner_fn
    return fn(*args, **kwargs)
  File "/home/me/venv/lib/python3.11/site-packages/diffusers/pipelines/pipeline_utils.py", line 833, in from_pretrained
    cached_folder = cls.download(
  File "/home/me/venv/lib/python3.11/site-packages/huggingface_hub/file_download.py", line 1652, in _download_to_tmp_and_move
    http_get(
  File "/home/me/venv/lib/python3.11/site-packages/huggingface_hub/file_download.py", line 494, in http_get
    temp_file.write(chunk)
OSError: [Errno 28] No space left on device
'''),
        Variant("no-kernel", "not_oom", "rtx-5070-12gb", 64, "not_oom", preference=NO_QUANT, truth=NOTHING, os="windows", evidence='''C:\\Users\\me\\venv\\Lib\\site-packages\\torch\\cuda\\__init__.py:235: UserWarning:
NVIDIA GeForce RTX 5070 with CUDA capability sm_120 is not compatible with the current PyTorch installation.
The current PyTorch install supports CUDA capabilities sm_50 sm_60 sm_61 sm_70 sm_75 sm_80 sm_86 sm_90.
Traceback (most recent call last):
  File "C:\\Users\\me\\pictures\\script.py", line 8, in <module>
    image = pipe("{prompt}", num_inference_steps={steps}).images[0]
  File "C:\\Users\\me\\venv\\Lib\\site-packages\\torch\\utils\\_contextlib.py", line 116, in decorate_context
    return func(*args, **kwargs)
  File "C:\\Users\\me\\venv\\Lib\\site-packages\\torch\\nn\\modules\\sparse.py", line 190, in forward
    return F.embedding(
RuntimeError: CUDA error: no kernel image is available for execution on the device
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
'''),
    ),
)  # fmt: skip

FAMILIES = (DTYPES, DISK)
