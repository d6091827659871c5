"""The call run: it does what the script does, and holds none of the script's own code."""

from __future__ import annotations

import ast
import re
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.errors import InputError, NoPipeline, NotApplicable, UnknownModel
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness, harness_for_model
from oomdoctor.script.plain import plainly

MODULES = {"torch", "diffusers", "diffusers.hooks", "transformers", "PIL", "torchao.quantization"}


def lines_of(text: str) -> list[str]:
    """The body of the call run of a script: what follows the imports."""
    made = harness(read_script(dedent(text)))
    check(made)
    return made.partition("\n\n")[2].splitlines()


def check(made: str) -> None:
    """Only imports of known libraries, calls of what they hold, names that we gave, literals."""
    tree = ast.parse(made)
    imported = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):  # the only one: caches ask for the step
            assert re.fullmatch(r"lambda: pipe(_\d+)?\.current_timestep", ast.unparse(node))
        assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.While | ast.JoinedStr)
        if isinstance(node, ast.Import):
            assert [a.name for a in node.names] == ["torch"]
        elif isinstance(node, ast.ImportFrom):
            assert node.module in MODULES
            imported |= {a.name for a in node.names}
        elif isinstance(node, ast.Name):
            assert node.id in imported or node.id == "pipe" or node.id.startswith("pipe_"), node.id
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")
        elif isinstance(node, ast.keyword):
            assert node.arg not in ("trust_remote_code", "custom_pipeline")
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("torch.load", "torch.hub.load", "torch.jit.load", "Image.open")


def test_the_whole_of_a_flux_script() -> None:
    assert lines_of("""\
        import torch, mylib
        from diffusers import FluxPipeline, FluxTransformer2DModel, BitsAndBytesConfig
        from diffusers.hooks import apply_group_offloading
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
        tr = FluxTransformer2DModel.from_pretrained("a/b", subfolder="transformer", quantization_config=config,
                                                    torch_dtype=torch.bfloat16)
        tr.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
        flux = FluxPipeline.from_pretrained("a/b", transformer=tr, torch_dtype=torch.bfloat16, trust_remote_code=True)
        flux.to("cuda")
        flux.vae.enable_tiling()
        apply_group_offloading(flux.text_encoder_2, onload_device=torch.device("cuda"), offload_type="leaf_level")
        flux.load_lora_weights("c/d", weight_name="x.safetensors")
        flux.transformer = torch.compile(flux.transformer, mode="max-autotune")
        for prompt in mylib.prompts():
            flux(prompt, height=768, generator=torch.Generator("cuda").manual_seed(7), callback_on_step_end=mylib.f)
    """) == [
        (
            "pipe_transformer_0 = FluxTransformer2DModel.from_pretrained('a/b', torch_dtype=torch.bfloat16, "
            "subfolder='transformer', quantization_config=BitsAndBytesConfig(load_in_4bit=True, "
            "bnb_4bit_compute_dtype=torch.bfloat16))"
        ),
        "pipe = FluxPipeline.from_pretrained('a/b', transformer=pipe_transformer_0, torch_dtype=torch.bfloat16)",
        "pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)",
        "pipe.to('cuda')",
        "pipe.vae.enable_tiling()",
        "apply_group_offloading(pipe.text_encoder_2, onload_device='cuda', offload_type='leaf_level')",
        "pipe.load_lora_weights('c/d', weight_name='x.safetensors')",
        "pipe.transformer = torch.compile(pipe.transformer, mode='max-autotune')",
        (
            "pipe('a photo of an astronaut riding a horse on the moon', height=768, "
            "generator=torch.Generator('cuda').manual_seed(7))"
        ),
    ]


def test_pipelines_that_share_the_card_are_all_loaded() -> None:
    assert lines_of("""\
        from diffusers import DiffusionPipeline, AutoPipelineForImage2Image
        base = DiffusionPipeline.from_pretrained("base", variant="fp16").to("cuda")
        refiner = DiffusionPipeline.from_pretrained("refiner", vae=base.vae).to("cuda")
        second = AutoPipelineForImage2Image.from_pipe(base)
        out = base("a", output_type="latent").images
        refiner("a", image=out)
    """) == [
        "pipe = DiffusionPipeline.from_pretrained('base', variant='fp16')",
        "pipe.to('cuda')",
        "pipe_2 = DiffusionPipeline.from_pretrained('refiner', vae=pipe.vae)",
        "pipe_2.to('cuda')",
        "pipe_3 = AutoPipelineForImage2Image.from_pipe(pipe)",
        "pipe_result = pipe('a', output_type='latent')",
        "pipe_2('a', image=pipe_result.images)",
    ]


def test_one_pipeline_brings_its_sources() -> None:
    script = read_script("""\
from diffusers import DiffusionPipeline, AutoPipelineForImage2Image
other = DiffusionPipeline.from_pretrained("other")
base = DiffusionPipeline.from_pretrained("base")
second = AutoPipelineForImage2Image.from_pipe(base)
base("a")
second("b", strength=0.5)
""")
    made = harness(script, script.pipelines[2])
    assert "other" not in made
    assert made.splitlines()[-3:] == [
        "pipe = DiffusionPipeline.from_pretrained('base')",
        "pipe_2 = AutoPipelineForImage2Image.from_pipe(pipe)",
        "pipe_2('b', strength=0.5)",
    ]


def test_the_largest_call_is_made_and_sizes_of_pictures_kept() -> None:
    assert (
        lines_of("""\
        from diffusers import FluxImg2ImgPipeline
        from diffusers.utils import load_image
        p = FluxImg2ImgPipeline.from_pretrained("m")
        picture = load_image("http://x/y.png").resize((768, 512))
        p("a", height=512, width=512)
        for size in (256, 1024):
            p("a", image=picture, height=size, width=1024)
    """)[-1]
        == 'pipe(\'a\', image=Image.new("RGB", (768, 512), "grey"), height=1024, width=1024)'
    )


def test_of_two_branches_that_are_open_one_is_taken() -> None:
    text = """\
        import sys
        from diffusers import FluxPipeline
        p = FluxPipeline.from_pretrained("m")
        if len(sys.argv) > 2:
            p.enable_model_cpu_offload()
        else:
            p.to("cuda")
        p("a")
    """
    body = lines_of(text)
    assert ("pipe.enable_model_cpu_offload()" in body) != ("pipe.to('cuda')" in body)


def test_what_cannot_be_said_is_named() -> None:
    body = lines_of("""\
        from diffusers import FluxPipeline
        p = FluxPipeline.from_pretrained("m", transformer=build(), max_memory={0: "10GB"})
        p("a", true_cfg_scale=scale(), prompt_embeds=x, height=512)
    """)
    assert "# left out: true_cfg_scale, line 3, is not told by the text or not a plain value" in body
    assert any("transformer" in line and line.startswith("# left out") for line in body)
    assert "max_memory={0: '10GB'}" in body[1]


def test_refusals_name_the_way_out() -> None:
    with pytest.raises(NoPipeline, match="from_pretrained"):
        harness(read_script("x = 1"))
    with pytest.raises(UnknownModel, match=r"line 3.*sys\.argv"):
        harness(
            read_script("import sys\nfrom diffusers import FluxPipeline\np = FluxPipeline.from_pretrained(sys.argv[1])")
        )
    with pytest.raises(NotApplicable, match="bare"):
        harness(read_script("from diffusers import AutoencoderKL\nv = AutoencoderKL.from_pretrained('a')\nv(x)"))
    with pytest.raises(NotApplicable, match="mypkg"):
        harness(read_script("from mypkg import FooPipeline\nv = FooPipeline.from_pretrained('a')\nv(x)"))


@pytest.mark.parametrize(
    "argument",
    [
        "custom_pipeline='evil/repo'", "trust_remote_code=True", "z=torch.load('x')", "z=torch.hub.load('a', 'b')",
        "z=os.system('x')", "z=(lambda: 1)()", "z=__import__('os')", "vae=(base\n.\nvae)", "z=diffusers.utils.evil()",
        "z=diffusers.EvilConfig(__class__)", "z=BitsAndBytesConfig(x=open('f'))", "z=torch.ops.load_library('x')",
        "**{'a b': 1, 'import os': 2}", "z='''\n\"\"\"\nimport os\n'''", "image=os.popen('x')", "**{'__class__': 1}",
    ],
)  # fmt: skip
def test_no_code_gets_in(argument: str) -> None:
    text = f"""\
import torch, os, diffusers
from diffusers import FluxPipeline, BitsAndBytesConfig
base = FluxPipeline.from_pretrained("base")
p = FluxPipeline.from_pretrained("m", {argument})
p.enable_sequential_cpu_offload({argument})
p.load_lora_weights("l", {argument})
p("a", {argument})
"""
    check(harness(read_script(text)))


IDENTIFIERS = st.sampled_from(["pipe", "os", "torch", "FluxPipeline", "x", "__import__", "eval", "BitsAndBytesConfig"])
VALUES = st.recursive(
    st.one_of(st.integers(), st.text(max_size=8).map(repr), st.just("None"), IDENTIFIERS, st.just("torch.float16")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(map(str, parts))}]"),
        st.tuples(IDENTIFIERS, inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(IDENTIFIERS, IDENTIFIERS, inner).map(lambda p: f"{p[0]}.{p[1]}(a={p[2]})"),
        st.tuples(inner, inner).map(lambda p: f"{{'k': {p[0]}, 'dtype': {p[1]}}}"),
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["prompt", "image", "height", "torch_dtype", "device_map", "generator", "quantization_config", "z"]
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4, unique_by=lambda pair: pair[0]), st.sampled_from("lcet"))
def test_whatever_the_arguments_are_the_call_run_is_ours(arguments: list[tuple[str, object]], where: str) -> None:
    given_ = ", ".join(f"{name}={value}" for name, value in arguments)
    text = "import torch, os\nfrom diffusers import FluxPipeline, BitsAndBytesConfig\n"
    text += f'pipe = FluxPipeline.from_pretrained("m", {given_ if where == "l" else ""})\n'
    text += f"pipe({given_})\n" if where == "c" else f"pipe.enable_group_offload({given_})\n" if where == "e" else ""
    text += f"pipe.transformer = torch.compile(pipe.transformer, {given_})\n" if where == "t" else ""
    check(harness(read_script(text)))


def test_a_call_run_for_a_model_alone() -> None:
    made = harness_for_model("FluxPipeline", "a/b", "bfloat16", {"prompt": None, "height": 512, "image": None})
    check(made)
    assert made.partition("\n\n")[2].splitlines() == [
        "pipe = FluxPipeline.from_pretrained('a/b', torch_dtype=torch.bfloat16)",
        'pipe.to("cuda")',
        (
            "pipe(prompt='a photo of an astronaut riding a horse on the moon', height=512, "
            'image=Image.new("RGB", (1024, 1024), "grey"))'
        ),
    ]
    for bad in (
        ("os.system", "a", None, {}),
        ("X", "a", "evil", {}),
        ("X", "a", None, {"a b": 1}),
        ("X", "a", None, {"z": object()}),
    ):
        with pytest.raises(InputError):
            harness_for_model(*bad)


def test_prompts_encoded_in_advance_stay_so() -> None:
    """Dropping the encoders before the call is the technique: the call run encodes where the script does."""
    source = """\
import torch
from diffusers import FluxPipeline
pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.text_encoder.to("cuda")
with torch.no_grad():
    embeds, pooled, _ = pipe.encode_prompt("a cat", device="cuda")
pipe.text_encoder = None
pipe.to("cuda")
pipe(prompt_embeds=embeds, pooled_prompt_embeds=pooled, height=512)
"""
    made = harness(read_script(source))
    assert "pipe_encoded = pipe.encode_prompt('a cat', device='cuda')" in made
    assert "pipe(prompt_embeds=pipe_encoded[0], pooled_prompt_embeds=pipe_encoded[1], height=512)" in made
    assert made.index("encode_prompt") < made.index("pipe.text_encoder = None")
    assert "encode_prompt" not in harness(plainly(read_script(source))), "what is measured encodes in the call"


def test_what_one_pipeline_made_is_handed_to_the_next() -> None:
    source = """\
import torch
from diffusers import StableCascadeDecoderPipeline, StableCascadePriorPipeline
prior = StableCascadePriorPipeline.from_pretrained("stabilityai/stable-cascade-prior", torch_dtype=torch.bfloat16)
decoder = StableCascadeDecoderPipeline.from_pretrained("stabilityai/stable-cascade", torch_dtype=torch.float16)
{taken}
image = decoder(image_embeddings={given}, prompt="a cat").images[0]
"""
    cases = {
        ("out = prior(prompt='a cat')", "out.image_embeddings.to(torch.float16)"):
            "pipe_result.image_embeddings.to(torch.float16)",
        ("found = prior(prompt='a cat').image_embeddings", "found"): "pipe_result.image_embeddings",
        ("found, other = prior(prompt='a cat').to_tuple()", "other"): "pipe_result[1]",
        ("found, _ = prior(prompt='a cat', return_dict=False)", "found[0]"): "pipe_result[0][0]",
    }  # fmt: skip
    for (taken, handed), expected in cases.items():
        made = harness(read_script(source.format(taken=taken, given=handed)))
        assert "pipe_result = pipe(" in made and f"image_embeddings={expected}" in made, made
    for taken, handed in (("prior(prompt='a cat')", "load('e.pt')"), ("out = prior(prompt='a cat')", "mine(out)")):
        made = harness(read_script(source.format(taken=taken, given=handed)))
        assert "pipe_result" not in made and "image_embeddings=torch.randn(1, 16, 24, 24)" in made, made


def test_a_cache_asks_the_pipeline_for_the_step_it_is_at() -> None:
    text = dedent(
        """
        import torch
        from diffusers import FluxPipeline, PyramidAttentionBroadcastConfig

        p = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(100, 800),
            current_timestep_callback=lambda: p.current_timestep,
        )
        p.transformer.enable_cache(config)
        p("a cat")
        """
    )
    made = harness(read_script(text))
    assert "current_timestep_callback=lambda: pipe.current_timestep)" in made
    check(made)
