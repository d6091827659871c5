"""Quantisation that is used wrongly, APIs of another version, and compiling."""

from __future__ import annotations

from oomdoctor_evals.generator.family import FAST, NO_QUANT, Family, Variant
from oomdoctor_evals.generator.prompts import PROMPTS
from oomdoctor_evals.values import Provenance

HALF_QUANTISED = Family(
    name="only_the_transformer_is_small",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/black-forest-labs/flux2/issues/11",
        note="The transformer is 4-bit, yet everything lands on the card; told here for FLUX.1.",
    ),
    script='''import torch
from diffusers import BitsAndBytesConfig, FluxPipeline, FluxTransformer2DModel

MODEL = "black-forest-labs/FLUX.1-dev"

quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
transformer = FluxTransformer2DModel.from_pretrained(
    MODEL, subfolder="transformer", quantization_config=quantization, torch_dtype=torch.bfloat16
)
pipe = FluxPipeline.from_pretrained(MODEL, transformer=transformer, torch_dtype=torch.bfloat16)
pipe.to("cuda")

image = pipe("{prompt}", num_inference_steps={steps}, guidance_scale=3.5).images[0]
image.save("nf4.png")
''',
    place='pipe.to("cuda")',
    only=("resident", "model_offload", "model_offload+tiling", "leaf_stream"),
    knobs={"prompt": PROMPTS, "steps": (28, 20)},
    variants=(
        Variant("16gb", "quantisation", "rtx-4060-ti-16gb", 48, preference=FAST, root_cause="load_time"),
        Variant("12gb", "quantisation", "rtx-3060-12gb", 48, preference=FAST, root_cause="load_time"),
    ),
)  # fmt: skip

OLD_API = Family(
    name="advice_of_another_version",
    script='''import torch
from diffusers import AutoPipelineForText2Image

pipe = AutoPipelineForText2Image.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16", use_safetensors=True
)
pipe.enable_model_cpu_offload()

image = pipe("{prompt}", width={width}, height={height}, num_inference_steps={steps}).images[0]
image.save("wide.png")
''',
    place="pipe.enable_model_cpu_offload()",
    denoiser="unet",
    dtype="torch.float16",
    knobs={"prompt": PROMPTS, "width": (2048, 1920), "height": (1024, 1088), "steps": (6, 8)},
    wrong={
        "pipeline-tiling": (("pipe.enable_model_cpu_offload()", "pipe.enable_model_cpu_offload()\npipe.enable_vae_tiling()"),),
        "xformers": (("pipe.enable_model_cpu_offload()", "pipe.enable_model_cpu_offload()\npipe.enable_xformers_memory_efficient_attention()"),),
    },
    variants=(
        Variant("8gb", "api_version", "rtx-2070-8gb", 32, preference=NO_QUANT),
        Variant("6gb", "api_version", "rtx-3060-laptop-6gb", 32, preference=NO_QUANT, os="windows"),
    ),
)  # fmt: skip

COMPILED = Family(
    name="compiled_and_full",
    script='''import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16)
pipe.to("cuda")
pipe.transformer = torch.compile(pipe.transformer)

image = pipe("{prompt}", guidance_scale=0.0, num_inference_steps=4, max_sequence_length=256).images[0]
image.save("compiled.png")
''',
    place='pipe.to("cuda")',
    knobs={"prompt": PROMPTS},
    only=("resident",),
    extra={
        "model-offload": (('pipe.to("cuda")', "pipe.enable_model_cpu_offload()"),),
        "block-stream": (
            ('pipe.to("cuda")\npipe.transformer = torch.compile(pipe.transformer)\n',
             'pipe.transformer.enable_group_offload(onload_device=torch.device("cuda"), offload_type="block_level", '
             'num_blocks_per_group=1, use_stream=True)\npipe.enable_group_offload(onload_device=torch.device("cuda"), '
             'offload_type="leaf_level", use_stream=True, exclude_modules=["transformer"])\n'),
        ),
    },
    variants=(Variant("32gb", "compile", "rtx-5090-32gb", 96, root_cause="load_time"),),
)  # fmt: skip

FAMILIES = (HALF_QUANTISED, OLD_API, COMPILED)
