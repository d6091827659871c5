"""RAM of the machine: the offload that kills, and loading that does."""

from __future__ import annotations

from oomdoctor_evals.generator.family import NO_QUANT, SAME, Family, Variant
from oomdoctor_evals.generator.prompts import PROMPTS
from oomdoctor_evals.values import Provenance, Truth

_DTYPE = ("    torch_dtype=torch.float16,\n", '    torch_dtype=torch.float16,\n    device_map="cuda",\n')

PINNED = Family(
    name="pinned_copies",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/PKU-YuanGroup/Helios/issues/141",
        note="Group offloading with a stream keeps page-locked copies, which doubles the RAM; told here for FLUX.",
    ),
    script='''import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell", torch_dtype=torch.bfloat16)
pipe.enable_group_offload(
    onload_device=torch.device("cuda"),
    offload_type="leaf_level",
    use_stream=True,
)

image = pipe("{prompt}", guidance_scale=0.0, num_inference_steps=4, max_sequence_length=256, height={size}, width={size}).images[0]
image.save("schnell.png")
''',
    place="",
    knobs={"prompt": PROMPTS, "size": (1024, 768)},
    extra={
        "no-stream": (("    use_stream=True,\n", ""),),
        "low-cpu-mem": (("    use_stream=True,\n", "    use_stream=True,\n    low_cpu_mem_usage=True,\n"),),
        "block-no-stream": (
            ('    offload_type="leaf_level",\n    use_stream=True,\n', '    offload_type="block_level",\n    num_blocks_per_group=1,\n'),
        ),
        "model-offload": (
            ('pipe.enable_group_offload(\n    onload_device=torch.device("cuda"),\n    offload_type="leaf_level",\n    use_stream=True,\n)',
             "pipe.enable_model_cpu_offload()"),
        ),
    },
    variants=(
        Variant("40gb-ram", "host_ram", "rtx-4070-12gb", 40, root_cause="host_ram", style="docker",
                truth=Truth(phase="place", component="transformer", resource="ram", root_cause="host_ram")),
        Variant("24gb-ram", "host_ram", "rtx-4070-12gb", 24, root_cause="host_ram",
                truth=Truth(phase="place", component="transformer", resource="ram", root_cause="host_ram")),
    ),
)  # fmt: skip

LOADING = Family(
    name="killed_while_loading",
    provenance=Provenance(
        kind="issue",
        url="https://github.com/NielsRogge/Transformers-Tutorials/issues/474",
        note="The notebook dies while loading: the RAM of the machine is smaller than the card's memory.",
    ),
    script='''import torch
from diffusers import PixArtSigmaPipeline

pipe = PixArtSigmaPipeline.from_pretrained(
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    torch_dtype=torch.float16,
)
pipe.to("cuda")
image = pipe("{prompt}", num_inference_steps={steps}, guidance_scale=4.5).images[0]
image.save("t4.png")
''',
    place="",
    knobs={"prompt": PROMPTS, "steps": (28, 20)},
    extra={
        "straight-to-card": (_DTYPE, ('pipe.to("cuda")\n', "")),
        "straight-to-card+small-tiling": (
            _DTYPE,
            ('pipe.to("cuda")\n', "pipe.vae.enable_tiling()\npipe.vae.tile_sample_min_size = 512\npipe.vae.tile_latent_min_size = 64\n"),
        ),
    },
    wrong={
        "tiling-that-never-starts": (_DTYPE, ('pipe.to("cuda")\n', "pipe.vae.enable_tiling()\n")),
        "model-offload": (('pipe.to("cuda")', "pipe.enable_model_cpu_offload()"),),
        "leaf-stream": (('pipe.to("cuda")', 'pipe.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)'),),
    },
    variants=(
        Variant("t4-8gb-ram", "host_ram", "t4-16gb", 8, root_cause="host_ram", style="colab", preference=NO_QUANT,
                truth=Truth(phase="load", component=None, resource="ram", root_cause="host_ram")),
        Variant("l4-6gb-ram", "host_ram", "l4-24gb", 6, root_cause="host_ram", preference=SAME,
                truth=Truth(phase="load", component=None, resource="ram", root_cause="host_ram")),
    ),
)  # fmt: skip

FAMILIES = (PINNED, LOADING)
