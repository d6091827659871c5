"""Memory that others hold: another program, a second pipeline, results kept in a loop, the second card."""

from __future__ import annotations

from oomdoctor_evals.generator.family import HURRY, NO_QUANT, SAME, Family, Variant
from oomdoctor_evals.generator.prompts import PROMPTS
from oomdoctor_evals.values import Provenance

_NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_ENCODED = f""")
encoders = (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
for encoder in encoders:
    encoder.to("cuda")
with torch.no_grad():
    {", ".join(_NAMES)} = pipe.encode_prompt(prompt, prompt_2=None, prompt_3=None, device="cuda")
del encoder, encoders
pipe.text_encoder = pipe.text_encoder_2 = pipe.text_encoder_3 = None
torch.cuda.empty_cache()
pipe.to("cuda")
out = pipe({", ".join(f"{n}={n}" for n in _NAMES)}, num_inference_steps="""
"""The prompt is encoded before the rest goes to the card, and the encoders are dropped."""

SHARED = Family(
    name="somebody_else_on_the_card",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/huggingface/diffusers/issues/9170",
        note="Most of the card belongs to another process.",
    ),
    script='''import torch
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3.5-medium", torch_dtype=torch.bfloat16)
pipe = pipe.to("cuda")

out = pipe("{prompt}", num_inference_steps={steps}, guidance_scale=4.5)
out.images[0].save("shared.png")
''',
    place='pipe = pipe.to("cuda")',
    load="torch_dtype=torch.bfloat16",
    big=("text_encoder_3",),
    knobs={"prompt": PROMPTS, "steps": (28, 20, 40)},
    extra={
        "release": (
            ('pipe = pipe.to("cuda")\n', ""),
            ('out = pipe("', 'prompt = ("'),
            (", num_inference_steps=", _ENCODED),
        )
    },
    variants=(
        Variant("24gb-half-taken", "other_process", "rtx-3090-24gb", 64, used_mib=10500, root_cause="other_process", style="smi"),
        Variant("24gb-in-a-hurry", "impossible", "rtx-3090-24gb", 64, "impossible", used_mib=14200, preference=HURRY,
                root_cause="other_process", style="smi", twin="24gb-free"),
        Variant("24gb-free", "other_process", "rtx-3090-24gb", 64, used_mib=14200, root_cause="other_process", style="smi", twin="24gb-in-a-hurry"),
    ),
)  # fmt: skip

REFINER = Family(
    name="two_pipelines",
    script='''import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

base = StableDiffusionXLPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16"
)
base.to("cuda")
refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
    "stabilityai/stable-diffusion-xl-refiner-1.0",
    text_encoder_2=base.text_encoder_2,
    vae=base.vae,
    torch_dtype=torch.float16,
    variant="fp16",
)
refiner.to("cuda")

prompt = "{prompt}"
draft = base(prompt, num_inference_steps={steps}).images[0]
image = refiner(prompt, image=draft, num_inference_steps={steps}).images[0]
image.save("refined.png")
''',
    place="",
    knobs={"prompt": PROMPTS, "steps": (6, 8)},
    extra={
        "model-offload-both": (('base.to("cuda")', "base.enable_model_cpu_offload()"), ('refiner.to("cuda")', "refiner.enable_model_cpu_offload()")),
        "leaf-stream-both": tuple(
            (f'{p}.to("cuda")', f'{p}.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)')
            for p in ("base", "refiner")),
    },
    wrong={"only-one": (('refiner.to("cuda")', 'refiner.vae.enable_tiling()\nrefiner.to("cuda")'),)},
    variants=(Variant("12gb", "other_process", "rtx-3060-12gb", 32),),
)  # fmt: skip

LOOP = Family(
    name="kept_on_the_card",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/invoke-ai/InvokeAI/issues/5761",
        note="The first pictures work, a later one does not: something of each stays on the card.",
    ),
    script='''import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe.to("cuda")

pictures = []
for seed in range({rounds}):
    generator = torch.Generator("cuda").manual_seed(seed)
    out = pipe("{prompt}", num_images_per_prompt={count}, generator=generator, num_inference_steps=4, output_type="pt").images
    pictures.append(out)

everything = torch.cat([p.float().cpu() for p in pictures])
torch.save(everything, "pictures.pt")
''',
    place='pipe.to("cuda")',
    denoiser="unet",
    dtype="torch.float16",
    batched=True,
    knobs={"prompt": PROMPTS, "rounds": (4, 5), "count": (8, 6)},
    extra={
        "to-cpu": (("pictures.append(out)", "pictures.append(out.cpu())"),),
        "to-cpu+slicing": (("pictures.append(out)", "pictures.append(out.cpu())"), ('pipe.to("cuda")', 'pipe.to("cuda")\npipe.vae.enable_slicing()')),
        "to-cpu+model-offload": (("pictures.append(out)", "pictures.append(out.cpu())"), ('pipe.to("cuda")', "pipe.enable_model_cpu_offload()")),
    },
    wrong={"empty-cache": (("    pictures.append(out)", "    pictures.append(out)\n    torch.cuda.empty_cache()"),)},
    variants=(
        Variant("6gb", "loop", "gtx-1660-6gb", 16, preference=NO_QUANT),
        Variant("4gb", "loop", "gtx-1650-4gb", 16, preference=NO_QUANT, style="colab"),
    ),
)  # fmt: skip

TWO_CARDS = Family(
    name="two_cards_do_not_add_up",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/black-forest-labs/flux/issues/92",
        note="Several cards, and no single component can be split between them.",
    ),
    script='''import torch
from diffusers import FluxPipeline

# two GPUs in this machine
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16)
pipe.to("cuda")

image = pipe("{prompt}", guidance_scale=0.0, num_inference_steps=4, max_sequence_length=256).images[0]
image.save("two.png")
''',
    place='pipe.to("cuda")',
    load="torch_dtype=torch.bfloat16",
    knobs={"prompt": PROMPTS},
    extra={"balanced": (("torch_dtype=torch.bfloat16)", 'torch_dtype=torch.bfloat16, device_map="balanced")'), ('pipe.to("cuda")\n', ""))},
    variants=(
        Variant("2x3090", "multi_gpu", "rtx-3090-24gb", 96, count=2, root_cause="load_time"),
        Variant("2xt4", "multi_gpu", "t4-16gb", 96, count=2, root_cause="load_time", preference=SAME),
    ),
)  # fmt: skip

FAMILIES = (SHARED, REFINER, LOOP, TWO_CARDS)
