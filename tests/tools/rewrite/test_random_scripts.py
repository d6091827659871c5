"""Scripts assembled from idioms: whatever the mixture, a rewrite parses, is idempotent, and touches what it must."""

from __future__ import annotations

import ast

from hypothesis import given, settings
from hypothesis import strategies as st
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.techniques import technique
from oomdoctor.values import Strategy

LOADS = (
    'FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)',
    "FluxPipeline.from_pretrained('black-forest-labs/FLUX.1-dev',\n    torch_dtype=torch.bfloat16,  # half\n)",
    "FluxPipeline.from_pretrained(\n    'black-forest-labs/FLUX.1-dev', torch_dtype=torch.bfloat16\n)",
    'FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")',
    '(FluxPipeline\n .from_pretrained("black-forest-labs/FLUX.1-dev", dtype=torch.float32))',
)
CHAINS = ("", '.to("cuda")', ".cuda()", '.to(torch.device("cuda:0"))', '.to("cuda", torch.float16)')
AFTER = (
    'pipe.to("cuda")',
    "pipe = pipe.to('cuda')",
    'if torch.cuda.is_available():\n    pipe.to("cuda")',
    'pipe.load_lora_weights("some/lora")',
    "pipe.enable_model_cpu_offload()",
    "pipe.enable_vae_tiling()",
    "pipe.vae.enable_slicing(); pipe.vae.enable_tiling()",
    "pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)",
    "pipe.set_progress_bar_config(disable=True)  # quiet",
    "# a comment\n\n",
    "pipe.transformer = torch.compile(pipe.transformer, fullgraph=True)",
    "prompt = 'a cat'",
)
CALLS = (
    'image = pipe("a cat").images[0]',
    'images = pipe("a cat", num_images_per_prompt=4).images',
    "for seed in range(3):\n    image = pipe('a cat', generator=torch.Generator().manual_seed(seed)).images[0]",
    "with torch.inference_mode():\n    out = pipe(prompt='a cat',\n               height=768, width=1360)",
)
STRATEGIES = (
    "model_offload", "group_offload(leaf, stream=true)", "group_offload(block, blocks=2)", "fp8_casting(transformer)",
    "dtype(bf16)", "vae_tiling", "vae_slicing", "bnb_nf4(transformer)", "torchao_int8(transformer, text_encoder_2)",
    "text_encoder_release", "batch_split(2)", "compile(regional)", "expandable_segments", "modern_api",
    "dtype(bf16)+fp8_casting(transformer)+model_offload+vae_tiling",
    "fp8_casting(transformer)+group_offload(leaf, stream=true)+vae_tiling+compile(regional)",
)  # fmt: skip


@st.composite
def scripts(draw: st.DrawFn) -> str:
    parts = ["import torch", "from diffusers import FluxPipeline", ""]
    parts.append("pipe = " + draw(st.sampled_from(LOADS)) + draw(st.sampled_from(CHAINS)))
    parts += draw(st.lists(st.sampled_from(AFTER), max_size=4))
    parts.append(draw(st.sampled_from(CALLS)))
    source = "\n".join(parts) + draw(st.sampled_from(("\n", "", "\n\n  \n")))
    if draw(st.booleans()):
        source = "def main():\n" + "\n".join("    " + line if line.strip() else line for line in source.split("\n"))
    return source.replace("\n", draw(st.sampled_from(("\n", "\r\n"))))


@given(scripts(), st.sampled_from(STRATEGIES))
@settings(max_examples=150, deadline=None)
def test_a_rewrite_parses_and_a_second_one_changes_nothing(source: str, strategy: str) -> None:
    wanted = Strategy.parse(strategy)
    try:
        patch = rewrite(source, wanted)
    except NotApplicable as refused:
        assert strategy.split("(")[0].split("+")[0] in str(refused)
        return
    ast.parse(patch.source)
    assert patch.changed == (patch.source != source)
    assert "\r\n" not in source or "\n" not in patch.source.replace("\r\n", "")
    again = rewrite(patch.source, wanted)
    assert again.diff == "", "the second time something changed"
    if "offload" in strategy and not patch.by_hand:
        assert 'pipe.to("cuda")' not in patch.source and ".cuda()" not in patch.source
    assert source.count("# half") == patch.source.count("# half")


@given(scripts())
@settings(max_examples=60, deadline=None)
def test_plain_is_byte_identical(source: str) -> None:
    assert rewrite(source, Strategy()).source == source


@given(scripts(), st.sampled_from(STRATEGIES))
@settings(max_examples=60, deadline=None)
def test_taking_out_what_is_not_there_changes_nothing(source: str, strategy: str) -> None:
    stripped = revert(source, Strategy.parse(strategy)).source
    ast.parse(stripped)
    assert revert(stripped, Strategy.parse(strategy)).source == stripped


NEUTRAL = (
    "pipe.set_progress_bar_config(disable=True)  # quiet",
    "pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)",
    'pipe.load_lora_weights("some/lora")',
    "pipe.fuse_lora()",
    "# a comment",
    "seed = 3",
)
ONE_WAY = ("dtype", "modern_api", "vae_slicing", "batch_split", "text_encoder_release")
"""What changes a dtype or an old name for good, or moves `.to("cuda")` or the call away from where it stood."""
ALONE = tuple(s for s in STRATEGIES if not s.startswith(ONE_WAY))


@st.composite
def placed_scripts(draw: st.DrawFn) -> str:
    """Scripts without techniques, with the pipeline put on the card in a line of its own: what can be restored."""
    parts = ["import torch", "from diffusers import EulerDiscreteScheduler, FluxPipeline", ""]
    parts.append("pipe = " + draw(st.sampled_from(LOADS[:3])))
    parts += draw(st.lists(st.sampled_from(NEUTRAL), max_size=4))
    parts += ['pipe.to("cuda")', *draw(st.lists(st.sampled_from(("", "prompt = 'a cat'", "# go")), max_size=2))]
    parts.append(draw(st.sampled_from(CALLS[:2] + CALLS[3:])))
    return "\n".join(parts).replace("'", '"') + draw(st.sampled_from(("\n", "")))


@given(placed_scripts(), st.sampled_from(ALONE))
@settings(max_examples=60, deadline=None)
def test_taking_out_is_the_inverse(source: str, strategy: str) -> None:
    wanted = Strategy.parse(strategy)
    try:
        patch = rewrite(source, wanted)
    except NotApplicable:
        return
    if not patch.by_hand:
        assert revert(patch.source, wanted).source == source


@given(placed_scripts(), st.sampled_from(ALONE), st.sampled_from(ALONE))
@settings(max_examples=60, deadline=None)
def test_switching_leaves_no_residue(source: str, first: str, second: str) -> None:
    kept = {a.technique for a in Strategy.parse(first).applications if not technique(a.technique).settles}
    try:
        one = rewrite(source, Strategy.parse(first))
        both, direct = rewrite(one.source, Strategy.parse(second)), rewrite(source, Strategy.parse(second))
    except NotApplicable:
        return
    if not kept and not one.by_hand and not direct.by_hand:
        assert both.source == direct.source
