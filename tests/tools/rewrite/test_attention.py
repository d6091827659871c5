"""Choosing attention kernels: backends, blocks around the call, and what keeps the fused ones from being used."""

from __future__ import annotations

import ast

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.hardware import card, target_for
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness
from oomdoctor.script.plain import plainly
from oomdoctor.techniques.attention_backend import BACKENDS
from oomdoctor.values import Patch, Strategy

XL = """\
import torch
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16)
pipe.to("cuda")
image = pipe("a cat", height=1024, width=1024).images[0]
"""
FLUX = XL.replace("StableDiffusionXLPipeline", "FluxPipeline").replace(
    "stabilityai/stable-diffusion-xl-base-1.0", "black-forest-labs/FLUX.1-dev"
)
CALL = XL.splitlines()[-1]


def do(source: str, strategy: str, **versions: str) -> Patch:
    return rewrite(source, Strategy.parse(strategy), versions=versions)


def test_the_names_are_those_of_the_library() -> None:
    dispatch = pytest.importorskip("diffusers.models.attention_dispatch")
    known = {m.value for m in dispatch.AttentionBackendName}
    assert known - set(BACKENDS) <= {"_native_npu", "_native_xla"}
    assert set(BACKENDS) <= known


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        'images = pipe(\n    "a cat",\n    num_images_per_prompt=2,  # two\n).images',
        'image = pipe("""a cat\n  on a mat\n""", height=512).images[0]',
        'image = pipe(f"""a {1 + 1}\ncats""").images[0]',
        'image = pipe(\n    "a cat "\n    "on a mat",\n).images[0]',
        "for seed in (1, 2):\n    image = pipe('a cat', generator=torch.Generator().manual_seed(seed)).images[0]\n    image.save(f'{seed}.png')",
        'with torch.inference_mode():\n    image = pipe("a cat").images[0]',
        'def paint(words):\n\treturn pipe(words).images[0]\n\nimage = paint("a cat")',
        'if True: image = pipe("a cat").images[0]\nprint(1)',
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_block_around_the_call_comes_and_goes(call: str, newline: str) -> None:
    source = XL.replace(CALL, call).replace("\n", newline)
    patch = do(source, "sdpa_kernel(efficient)")
    tree = ast.parse(patch.source)
    if patch.by_hand:
        assert call.startswith("if True: ")
        return
    assert "with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):" in patch.source
    assert [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)] == [
        n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ], "no word of a prompt changed"
    assert do(patch.source, "sdpa_kernel(efficient)").diff == ""
    assert revert(patch.source, Strategy.parse("sdpa_kernel")).source == source


def test_another_kernel_takes_the_place_of_the_first() -> None:
    first = do(XL, "sdpa_kernel(efficient)").source
    assert do(first, "sdpa_kernel(flash)").source == do(XL, "sdpa_kernel(flash)").source
    backend = XL.replace(CALL, f'with attention_backend("xformers"):\n    {CALL}').replace(
        "import St", "import attention_backend, St"
    )
    assert do(backend, "sdpa_kernel(flash)").source == do(XL, "sdpa_kernel(flash)").source
    assert do(first, "attention_backend(xformers)").source == do(XL, "attention_backend(xformers)").source


def test_the_card_decides_what_there_is() -> None:
    for name, strategy in (("rtx-2080-ti", "sdpa_kernel(flash)"), ("rtx-4090", "attention_backend(_flash_3_hub)")):
        with pytest.raises(NotApplicable, match=r"older than|no such kernel"):
            rewrite(FLUX, Strategy.parse(strategy), target=target_for(card(name), ram_bytes=64 << 30))
    assert (
        "_flash_3_hub"
        in rewrite(
            FLUX,
            Strategy.parse("attention_backend(_flash_3_hub)"),
            target=target_for(card("h100-80gb"), ram_bytes=64 << 30),
        ).source
    )


@pytest.mark.parametrize(
    "line",
    [
        "pipe.unet.set_attn_processor(AttnProcessor())",
        "pipe.vae.set_attn_processor(AttnProcessor())",
        "pipe.unet.set_default_attn_processor()",
        "pipe.enable_attention_slicing()",
        "torch.backends.cuda.enable_flash_sdp(False)",
        "torch.backends.cuda.enable_mem_efficient_sdp(enabled=False)",
    ],
)
@pytest.mark.parametrize("strategy", ["fused_attention", "model_offload", "vae_tiling"])
def test_what_keeps_fused_attention_away_goes_with_any_strategy(line: str, strategy: str) -> None:
    imported = "from diffusers.models.attention_processor import AttnProcessor\n" if "AttnProcessor()" in line else ""
    source = XL.replace('pipe.to("cuda")\n', f'pipe.to("cuda")\n{line}\n').replace("\npipe =", f"{imported}\npipe =", 1)
    if strategy == "fused_attention" and "slicing" in line:
        with pytest.raises(NotApplicable, match="cannot be combined"):
            do(source, "fused_attention+attention_slicing")
    patch = do(source, strategy)
    assert patch.source == do(XL, strategy).source
    assert any("attention" in r.text for r in patch.reasons)


@pytest.mark.parametrize(
    "line",
    [
        "pipe.unet.set_attn_processor(AttnProcessor2_0())",
        "pipe.unet.set_attn_processor(XFormersAttnProcessor())",
        "pipe.unet.set_attn_processor(MyOwn())",
        "torch.backends.cuda.enable_flash_sdp(True)",
        "torch.backends.cuda.enable_math_sdp(False)",
    ],
)
def test_what_does_no_harm_stays(line: str) -> None:
    source = XL.replace('pipe.to("cuda")\n', f'pipe.to("cuda")\n{line}\n')
    assert do(source, "fused_attention").source == source


def test_a_processor_of_unets_is_taken_off_a_transformer() -> None:
    source = FLUX.replace(
        'pipe.to("cuda")\n', 'pipe.to("cuda")\npipe.transformer.set_attn_processor(AttnProcessor2_0())\n'
    )
    assert "set_attn_processor" not in do(source, "model_offload").source


@pytest.mark.parametrize(
    "block, allowed",
    [
        ("sdpa_kernel(SDPBackend.MATH)", ("math",)),
        ("sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION])", ("flash", "efficient")),
        (
            "torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False, enable_cudnn=False)",
            ("math",),
        ),
        ('attention_backend("flash")', ("backend:flash",)),
        ("sdpa_kernel(choose())", ()),
    ],
)
def test_the_reader_knows_the_kernel_and_the_call_run_keeps_it(block: str, allowed: tuple[str, ...]) -> None:
    imports = "from torch.nn.attention import SDPBackend, sdpa_kernel\nfrom diffusers import attention_backend\n"
    source = imports + XL.replace(CALL, f"with {block}:\n    {CALL}")
    script = read_script(source)
    assert script.main is not None and script.main.calls[0].attention == allowed
    made = harness(script)
    compile(made, "call.py", "exec")
    assert ("with " in made) == bool(allowed)
    assert "with " not in harness(plainly(script)), "what is measured chooses for itself"


def test_the_variable_that_chooses_a_backend_is_seen() -> None:
    source = 'import os\nos.environ["DIFFUSERS_ATTN_BACKEND"] = "flash"\n' + FLUX
    assert "DIFFUSERS_ATTN_BACKEND" not in do(source, "attention_backend(_native_flash)").source
    assert do(source, "attention_backend(flash)").diff == ""
