"""LoRA, ControlNet, IP-Adapter: one more thing that needs room, and an order to keep."""

from __future__ import annotations

from oomdoctor_evals.generator.family import HURRY, NO_QUANT, SAME, Family, Variant
from oomdoctor_evals.generator.prompts import PROMPTS
from oomdoctor_evals.values import Provenance

LORA = Family(
    name="flux_with_lora",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/huggingface/lora-fast/issues/1",
        note="FLUX with a LoRA on 24 GB, model offload: the transformer alone fills the card.",
    ),
    script='''import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.load_lora_weights("{lora}", adapter_name="style")
pipe.set_adapters(["style"], adapter_weights=[{weight}])
pipe.enable_model_cpu_offload()

image = pipe("{prompt}", height=1024, width=1024, guidance_scale=3.5, num_inference_steps={steps}).images[0]
image.save("lora.png")
''',
    place="pipe.enable_model_cpu_offload()",
    knobs={"prompt": PROMPTS, "lora": ("XLabs-AI/flux-RealismLora",), "weight": (0.9, 0.8), "steps": (28, 20)},
    wrong={"without-lora": (('pipe.load_lora_weights("{lora}", adapter_name="style")\n', ""),
                            ('pipe.set_adapters(["style"], adapter_weights=[{weight}])\n', ""))},
    variants=(
        Variant("24gb", "lora", "l4-24gb", 96),
        Variant("16gb", "lora", "rtx-4060-ti-16gb", 96),
    ),
)  # fmt: skip

CONTROLNET = Family(
    name="sdxl_controlnet",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/lllyasviel/ControlNet/issues/241",
        note="A ControlNet beside the model; told here for SDXL.",
    ),
    script='''import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline
from PIL import Image

controlnet = ControlNetModel.from_pretrained("diffusers/controlnet-canny-sdxl-1.0", torch_dtype=torch.float16)
pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", controlnet=controlnet, torch_dtype=torch.float16, variant="fp16"
)
pipe.to("cuda")

edges = Image.new("RGB", (1024, 1024))
image = pipe("{prompt}", image=edges, controlnet_conditioning_scale={scale}, num_inference_steps={steps}).images[0]
image.save("controlled.png")
''',
    place='pipe.to("cuda")',
    denoiser="unet",
    dtype="torch.float16",
    knobs={"prompt": PROMPTS, "scale": (0.5, 0.7), "steps": (6, 8)},
    variants=(
        Variant("10gb", "adapters", "rtx-3080-10gb", 32, preference=SAME, twin="10gb-in-a-hurry"),
        Variant("10gb-in-a-hurry", "impossible", "rtx-3080-10gb", 32, "impossible", preference=HURRY, twin="10gb"),
        Variant("8gb", "adapters", "rtx-3070-8gb", 32, preference=NO_QUANT, style="log"),
    ),
)  # fmt: skip

FAMILIES = (LORA, CONTROLNET)
