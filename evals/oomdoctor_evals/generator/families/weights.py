"""Weights that do not fit: while loading, while placing, and in the text encoder."""

from __future__ import annotations

from oomdoctor_evals.generator.family import NO_QUANT, Family, Variant
from oomdoctor_evals.generator.prompts import PROMPTS
from oomdoctor_evals.values import Preference, Provenance, Rules

FLUX = Family(
    name="flux_to_cuda",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/black-forest-labs/flux/issues/120",
        note="FLUX.1-dev put whole on a 24 GB card; the allocator setting was tried already and cannot help.",
    ),
    script='''import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")

image = pipe(
    "{prompt}",
    height={size},
    width={size},
    guidance_scale=3.5,
    num_inference_steps={steps},
    generator=torch.Generator("cpu").manual_seed({seed}),
).images[0]
image.save("{name}.png")
''',
    place='pipe.to("cuda")',
    big=("text_encoder_2",),
    load="torch_dtype=torch.bfloat16",
    knobs={"prompt": PROMPTS, "size": (1024, 896, 1152), "steps": (28, 24, 32), "seed": (0, 7, 1234), "name": ("flux", "out")},
    variants=(
        Variant("24gb", "load_time", "l4-24gb", 96, root_cause="load_time", other_gpus=("rtx-3090-24gb", "rtx-4090-24gb"), style="docker"),
        Variant("12gb", "load_time", "rtx-3060-12gb", 96, root_cause="load_time"),
        Variant("12gb-little-ram", "host_ram", "rtx-3060-12gb", 16, root_cause="load_time"),
    ),
)  # fmt: skip

COGVIEW = Family(
    name="placed_then_offloaded",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/zai-org/CogView4/issues/16",
        note="The pipeline goes to the card first and is offloaded afterwards, which comes too late.",
    ),
    script='''import torch
from diffusers import CogView3PlusPipeline

pipe = CogView3PlusPipeline.from_pretrained("zai-org/CogView3-Plus-3B", torch_dtype=torch.bfloat16).to("cuda")
pipe.enable_model_cpu_offload()
pipe.vae.enable_slicing()

prompt = "{prompt}"
image = pipe(prompt=prompt, guidance_scale=7.0, num_images_per_prompt=1, num_inference_steps={steps}, width={size}, height={size}).images[0]
image.save("cogview3.png")
''',
    place="pipe.enable_model_cpu_offload()",
    knobs={"prompt": PROMPTS, "size": (1024, 768), "steps": (20, 25)},
    only=(),
    extra={
        name: ((').to("cuda")', ")"), ("pipe.enable_model_cpu_offload()", code))
        for name, code in {
            "model_offload": "pipe.enable_model_cpu_offload()",
            "leaf_stream": 'pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)',
            "block_stream": 'pipe.transformer.enable_group_offload(onload_device=torch.device("cuda"), '
            'offload_type="block_level", num_blocks_per_group=1, use_stream=True)\npipe.enable_group_offload(onload_device='
            'torch.device("cuda"), offload_type="leaf_level", use_stream=True, exclude_modules=["transformer"])',
        }.items()
    },
    wrong={"more-tiling": (("pipe.vae.enable_slicing()", "pipe.vae.enable_slicing()\npipe.vae.enable_tiling()"),)},
    variants=(
        Variant("8gb", "load_time", "rtx-3070-8gb", 64, root_cause="load_time", os="windows", other_gpus=("rtx-2080-8gb",)),
        Variant("12gb", "load_time", "rtx-4070-12gb", 48, root_cause="load_time", style="colab"),
    ),
)  # fmt: skip

SD35 = Family(
    name="t5_does_not_fit",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/Lightricks/ComfyUI-LTXVideo/issues/24",
        note="The text encoder, not the denoiser, is what is too large; told here for Stable Diffusion 3.5.",
    ),
    script='''import torch
from diffusers import StableDiffusion3Pipeline

MODEL = "stabilityai/stable-diffusion-3.5-medium"

pipe = StableDiffusion3Pipeline.from_pretrained(MODEL, torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()

image = pipe(
    prompt="{prompt}",
    negative_prompt="",
    num_inference_steps={steps},
    height={size},
    width={size},
    guidance_scale=4.5,
).images[0]
image.save("sd35.png")
''',
    place="pipe.enable_model_cpu_offload()",
    big=("text_encoder_3",),
    load="torch_dtype=torch.bfloat16",
    knobs={"prompt": PROMPTS, "size": (1024, 768), "steps": (28, 20, 40)},
    variants=(
        Variant("8gb", "text_encode", "rtx-3070-8gb", 64, root_cause="vram_capacity", twin="8gb-little-ram", other_gpus=("rtx-4060-8gb",)),
        Variant("8gb-little-ram", "impossible", "rtx-3070-8gb", 10, "impossible", root_cause="host_ram", twin="8gb"),
    ),
)  # fmt: skip

Z_IMAGE = Family(
    name="z_image_offloaded",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/odysseus-dev/odysseus/issues/5338",
        note="Model offload keeps the whole transformer on the card while it denoises; 12 GB is just too little.",
    ),
    script='''import sys

import torch
from diffusers import ZImagePipeline


def main():
    pipe = ZImagePipeline.from_pretrained("Tongyi-MAI/Z-Image-Turbo", torch_dtype=torch.bfloat16)
    pipe.enable_model_cpu_offload()
    image = pipe(
        prompt="{prompt}",
        height={size},
        width={size},
        num_inference_steps=9,
        guidance_scale=0.0,
    ).images[0]
    image.save("z.png")


if __name__ == "__main__":
    main()
''',
    place="    pipe.enable_model_cpu_offload()",
    knobs={"prompt": PROMPTS, "size": (1024, 1280)},
    variants=(
        Variant("12gb", "denoise", "rtx-5070-12gb", 64, other_gpus=("rtx-4070-12gb", "rtx-3080-12gb"), style="docker"),
        Variant("10gb", "denoise", "rtx-3080-10gb", 32, preference=NO_QUANT),
        Variant("10gb-in-a-hurry", "impossible", "rtx-3080-10gb", 32, "impossible",
                preference=Preference(text="No quality loss whatsoever, and at most 5 % slower than on a big card.",
                                      rules=Rules(quality="identical", quantise="forbid", max_slowdown=1.05)),
                twin="10gb"),
    ),
)  # fmt: skip

SCHNELL = Family(
    name="schnell_on_a_t4",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/black-forest-labs/flux/issues/459",
        note="FLUX.1-schnell with model offload on a T4: the transformer alone is larger than the card.",
    ),
    script='''import torch
from diffusers import FluxPipeline


def generate(prompt: str):
    pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16)
    pipe.enable_model_cpu_offload()
    return pipe(
        prompt,
        guidance_scale=0.0,
        num_inference_steps=4,
        max_sequence_length=256,
        height={size},
        width={size},
    ).images[0]


image = generate("{prompt}")
image.save("schnell.png")
''',
    place="    pipe.enable_model_cpu_offload()",
    knobs={"prompt": PROMPTS, "size": (1024, 768)},
    variants=(
        Variant("t4", "denoise", "t4-16gb", 96, style="colab", other_gpus=("rtx-4060-ti-16gb",)),
        Variant("10gb", "denoise", "rtx-3080-10gb", 64, preference=NO_QUANT),
    ),
)  # fmt: skip

FAMILIES = (SCHNELL, FLUX, COGVIEW, SD35, Z_IMAGE)
