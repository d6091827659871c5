"""Activations that do not fit: resolution, batch, and the decoder."""

from __future__ import annotations

from oomdoctor_evals.generator.family import NO_QUANT, SAME, Family, Variant
from oomdoctor_evals.generator.prompts import PROMPTS
from oomdoctor_evals.values import Provenance

QWEN = Family(
    name="qwen_2048_decode",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/huggingface/diffusers/issues/12900",
        note="Qwen-Image at 2048 pixels: everything fits an 80 GB card but the decoder.",
    ),
    script='''from diffusers import DiffusionPipeline
import torch

pipe = DiffusionPipeline.from_pretrained("Qwen/Qwen-Image", torch_dtype=torch.bfloat16)
pipe = pipe.to("cuda")

image = pipe(
    prompt="{prompt}",
    negative_prompt=" ",
    width={size},
    height={size},
    num_inference_steps={steps},
    true_cfg_scale=4.0,
).images[0]

image.save("qwen.png")
''',
    place='pipe = pipe.to("cuda")',
    only=("resident", "resident+tiling", "model_offload", "model_offload+tiling", "block_stream", "block_stream+tiling"),
    knobs={"prompt": PROMPTS, "size": (2048, 1920), "steps": (20, 30)},
    variants=(
        Variant("80gb", "vae_decode", "h100-80gb", 256, preference=NO_QUANT, style="docker", other_gpus=("a100-80gb",)),
    ),
)  # fmt: skip

SDXL_DECODE = Family(
    name="sdxl_large_picture",
    script='''import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0",
    torch_dtype=torch.float16,
    variant="fp16",
)
pipe.enable_model_cpu_offload()

image = pipe(
    "{prompt}",
    height={height},
    width={width},
    num_inference_steps={steps},
).images[0]
image.save("large.png")
''',
    place="pipe.enable_model_cpu_offload()",
    denoiser="unet",
    dtype="torch.float16",
    knobs={"prompt": PROMPTS, "height": (1536, 1408), "width": (1536, 1664), "steps": (6, 8)},
    variants=(
        Variant("8gb", "vae_decode", "rtx-3070-8gb", 32, preference=NO_QUANT, other_gpus=("rtx-4060-8gb",), style="log"),
        Variant("6gb", "vae_decode", "rtx-2060-6gb", 32, preference=NO_QUANT, os="windows"),
        Variant("4gb", "denoise", "rtx-3050-laptop-4gb", 32, preference=NO_QUANT, twin="4gb-exact"),
        Variant("4gb-exact", "impossible", "rtx-3050-laptop-4gb", 32, "impossible", preference=SAME, twin="4gb"),
    ),
)  # fmt: skip

SDXL_BATCH = Family(
    name="sdxl_four_at_once",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/replicate/cog-stable-diffusion/issues/66",
        note="Several pictures per call, and the decoder takes them all at once; told here for SDXL.",
    ),
    script='''import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16")
pipe.to("cuda")

images = pipe("{prompt}", num_images_per_prompt={count}, num_inference_steps={steps}).images
for i, image in enumerate(images):
    image.save(f"picture-{{i}}.png")
''',
    place='pipe.to("cuda")',
    denoiser="unet",
    dtype="torch.float16",
    batched=True,
    knobs={"prompt": PROMPTS, "count": (4, 6), "steps": (6, 8)},
    wrong={"one-picture": (("num_images_per_prompt={count}", "num_images_per_prompt=1"),)},
    variants=(
        Variant("16gb", "batch", "t4-16gb", 32, preference=NO_QUANT, style="colab"),
        Variant("10gb", "batch", "rtx-3080-10gb", 32, preference=NO_QUANT),
    ),
)  # fmt: skip

SD15 = Family(
    name="sd15_in_full_precision",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/CompVis/stable-diffusion/issues/760",
        note="No dtype given, so everything is in 32 bit; told here for diffusers.",
    ),
    script='''from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
pipe = pipe.to("cuda")

prompt = "{prompt}"
image = pipe(prompt, height={size}, width={size}, num_inference_steps={steps}).images[0]
image.save("full.png")
''',
    place='pipe = pipe.to("cuda")',
    denoiser="unet",
    dtype="torch.float32",
    knobs={"prompt": PROMPTS, "size": (1024, 960), "steps": (6, 8)},
    extra={
        name: (("from diffusers", "import torch\nfrom diffusers"),
               ('stable-diffusion-v1-5")', 'stable-diffusion-v1-5", torch_dtype=torch.float16)'),
               ('pipe = pipe.to("cuda")', code))
        for name, code in {
            "half": 'pipe = pipe.to("cuda")',
            "half+tiling": 'pipe = pipe.to("cuda")\npipe.vae.enable_tiling()',
            "half+offload+tiling": "pipe.enable_model_cpu_offload()\npipe.vae.enable_tiling()",
        }.items()
    },
    only=(),
    variants=(
        Variant("4gb", "denoise", "gtx-1650-4gb", 16, preference=NO_QUANT, style="colab"),
        Variant("8gb", "denoise", "rtx-3070-8gb", 16, preference=NO_QUANT),
    ),
)  # fmt: skip

FAMILIES = (QWEN, SDXL_DECODE, SDXL_BATCH, SD15)
