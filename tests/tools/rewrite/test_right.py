"""What makes a patch right: the traps of the libraries, one test for each."""

from __future__ import annotations

import re

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.values import Patch, Strategy

FLUX = """\
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)
pipe.to("cuda")
image = pipe("a cat", height=1024, width=1024).images[0]
"""
LINE = 'pipe.to("cuda")\n'


def do(source: str, strategy: str, **versions: str) -> Patch:
    return rewrite(source, Strategy.parse(strategy), versions=versions)


def order(source: str, *words: str) -> list[int]:
    return [source.index(w) for w in words]


@pytest.mark.parametrize("offload", ["model_offload", "group_offload(leaf, stream=true)", "sequential_offload"])
@pytest.mark.parametrize(
    "move", ['pipe.to("cuda")', "pipe.cuda()", "pipe = pipe.to(torch.device('cuda:0'))", 'pipe.transformer.to("cuda")']
)
def test_nothing_is_moved_to_the_card_beside_offloading(offload: str, move: str) -> None:
    patched = do(FLUX.replace(LINE, move + "\n"), offload).source
    assert not re.search(r"\.to\(|\.cuda\(\)", patched)


def test_lora_then_casting_then_offloading_then_compiling() -> None:
    source = FLUX.replace(LINE, 'pipe.to("cuda")\npipe.load_lora_weights("some/lora")\npipe.fuse_lora()\n')
    patched = do(source, "compile(regional)+model_offload+fp8_casting(transformer)").source
    places = order(patched, "load_lora", "fuse_lora", "layerwise_casting", "cpu_offload", "compile_repeated", "image =")
    assert places == sorted(places)


def test_lora_is_fused_before_casting_without_offloading() -> None:
    source = FLUX.replace(LINE, 'pipe.load_lora_weights("some/lora")\npipe.to("cuda")\npipe.fuse_lora()\n')
    patched = do(source, "fp8_casting(transformer)").source
    places = order(patched, "load_lora", "fuse_lora", "layerwise_casting", '.to("cuda")', "image =")
    assert places == sorted(places)


def test_a_part_that_is_put_in_later_is_offloaded_too() -> None:
    source = FLUX.replace(LINE, 'pipe.to("cuda")\npipe.vae = AutoencoderTiny.from_pretrained("a/b")\n')
    source = source.replace("import FluxPipeline", "import AutoencoderTiny, FluxPipeline")
    assert order(do(source, "model_offload").source, "pipe.vae =", "enable_model_cpu_offload") == sorted(
        order(do(source, "model_offload").source, "pipe.vae =", "enable_model_cpu_offload")
    )


def test_torchao_goes_by_mapping_with_the_class_of_each_library() -> None:
    patched = do(FLUX, "torchao_int8(transformer, text_encoder_2)").source
    assert "quant_mapping=" in patched and "quant_backend" not in patched
    assert '"text_encoder_2": TransformersTorchAoConfig(' in patched and '"transformer": TorchAoConfig(' in patched


@pytest.mark.parametrize("bits, name", [(4, "bnb_nf4"), (8, "bnb_int8")])
def test_the_number_of_bits_is_spelled_out(bits: int, name: str) -> None:
    assert f'"load_in_{bits}bit": True' in do(FLUX, f"{name}(transformer)").source


def test_tiles_are_made_small_enough_to_take_effect() -> None:
    patched = do(FLUX, "vae_tiling").source
    assert "tile_sample_min_size = 512" in patched and "tile_latent_min_size = 64" in patched
    with pytest.raises(NotApplicable, match="would do nothing"):
        do(FLUX, "vae_tiling(size=1024)")


@pytest.mark.parametrize("hooks", ["group_offload(leaf, stream=true)", "fp8_casting(transformer)"])
def test_a_full_graph_is_given_up_where_hooks_break_it(hooks: str) -> None:
    assert "fullgraph" not in do(FLUX, f"compile(regional)+{hooks}").source
    users = FLUX.replace(LINE, LINE + "pipe.transformer.compile_repeated_blocks(fullgraph=True)\n")
    assert "compile_repeated_blocks()" in do(users, hooks).source
    assert "fullgraph=True" in do(FLUX, "compile(regional)+model_offload").source


def test_regional_compiling_is_refused_without_repeated_blocks() -> None:
    source = FLUX.replace("FluxPipeline", "StableDiffusion3Pipeline").replace("FLUX.1-dev", "sd3")
    with pytest.raises(NotApplicable, match="no repeated blocks"):
        do(source, "compile(regional)")


def test_each_component_has_a_disk_folder_of_its_own() -> None:
    patched = do(FLUX, "group_offload(leaf, disk=true)").source
    lines = [x for x in patched.splitlines() if "offload_to_disk_path" in x]
    assert len(lines) == 4 and all("mkdtemp()" in x for x in lines), "two encoders, transformer and VAE"


def test_blocks_are_for_the_model_that_runs_the_steps_only() -> None:
    patched = do(FLUX, "group_offload(block, blocks=2)").source
    head = patched[: patched.index("block_level")].splitlines()[-3:]
    assert any("pipe.transformer.enable_group_offload(" in x for x in head)
    assert patched.count("block_level") == 1
    assert "leaf_level" in patched and 'exclude_modules=["transformer"]' in patched


@pytest.mark.parametrize(
    "strategy", ["torchao_int8(transformer)", "group_offload(leaf, disk=true)", "bnb_nf4", "cache"]
)
def test_imports_are_added_once(strategy: str) -> None:
    imports = [x for x in do(FLUX, strategy).source.splitlines() if x.startswith(("import ", "from "))]
    assert len(imports) == len(set(imports))
    assert sum(x.startswith("from diffusers import") for x in imports) == 1


@pytest.mark.parametrize(
    "old, new",
    [
        ("pipe.enable_vae_slicing()", "pipe.vae.enable_slicing()"),
        ("pipe.disable_vae_tiling()", "pipe.vae.disable_tiling()"),
        ('pipe.transformer.set_attention_backend("sage_attention")', 'pipe.transformer.set_attention_backend("sage")'),
        ('pipe.transformer.compile(mode="ax-autotune")', 'pipe.transformer.compile(mode="max-autotune")'),
    ],
)
def test_calls_that_raise_today_are_brought_up_to_date_on_the_way(old: str, new: str) -> None:
    source = FLUX.replace(LINE, f"{LINE}{old}\n").replace('a cat"', 'a cat", num_images_per_prompt=2')
    patched = do(source.replace('2"', "2"), "model_offload+vae_slicing").source
    assert new in patched and old not in patched


def test_the_version_decides_the_name_of_the_dtype() -> None:
    bare = FLUX.replace(", torch_dtype=torch.bfloat16", "")
    assert (
        '("black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16)' in do(bare, "dtype(bf16)", diffusers="0.42.1").source
    )
    assert "torch_dtype=torch.bfloat16" in do(bare, "dtype(bf16)", diffusers="0.34.0").source
    assert "torch_dtype=" not in do(FLUX, "modern_api", diffusers="0.42.1").source


@pytest.mark.parametrize(
    "written, computes",
    [
        ("torch_dtype=torch.float16", "torch.float16"),
        ("torch_dtype=torch.float32", "torch.float32"),
        ('torch_dtype={"transformer": torch.float16, "default": torch.bfloat16}', "torch.float16"),
        ("torch_dtype=half", "half"),
        ("revision='main'", "torch.float32"),
    ],
)
def test_casting_computes_in_what_the_script_loads(written: str, computes: str) -> None:
    source = "half = pick()\n" + FLUX.replace("torch_dtype=torch.bfloat16", written)
    assert f"compute_dtype={computes})" in do(source, "fp8_casting(transformer)").source


def test_the_strategy_decides_over_a_dtype_in_the_move() -> None:
    source = FLUX.replace('.to("cuda")', '.to("cuda", torch.float16)').replace(", torch_dtype=torch.bfloat16", "")
    patched = do(source, "dtype(bf16)+fp8_casting(transformer)+model_offload").source
    assert "torch.float16" not in patched and "compute_dtype=torch.bfloat16" in patched


def test_a_device_map_goes_with_what_belongs_to_it() -> None:
    source = FLUX.replace("bfloat16)", 'bfloat16, device_map="balanced")').replace(LINE, "pipe.reset_device_map()\n")
    patched = do(source, "model_offload").source
    assert "device_map" not in patched and "enable_model_cpu_offload" in patched


def test_a_device_map_of_a_part_goes_too() -> None:
    load = 'part = FluxTransformer2DModel.from_pretrained("x", device_map="auto", max_memory={0: "10GiB"})\npipe ='
    source = FLUX.replace("pipe =", load, 1).replace("bfloat16)", "bfloat16, transformer=part)")
    source = source.replace("import FluxPipeline", "import FluxPipeline, FluxTransformer2DModel")
    patched = do(source, "model_offload").source
    assert 'FluxTransformer2DModel.from_pretrained("x")\n' in patched


def test_the_last_comma_goes_with_the_argument_that_brought_it() -> None:
    source = FLUX.replace(
        '("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)',
        '(\n    "black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16, revision="' + "0" * 60 + '"\n)',
    )
    patched = do(source, "bnb_int8(transformer)").source
    assert patched != source
    assert do(patched, "vae_tiling").source == do(source, "vae_tiling").source


XL = FLUX.replace("FluxPipeline", "StableDiffusionXLPipeline").replace("bfloat16", "float16")


def test_a_vae_that_changes_its_dtype_is_kept_out_of_copies() -> None:
    """A stream's copies (and files) keep float16 while the pipeline decodes in float32: an error at the first layer."""
    assert 'exclude_modules=["vae"]' in do(XL, "group_offload(leaf, stream=true)").source
    assert "exclude_modules" not in do(XL, "group_offload(leaf)").source, "without copies nothing is undone"
    assert "exclude_modules" not in do(XL.replace("float16", "bfloat16"), "group_offload(leaf, stream=true)").source
    picture = XL.replace("float16", "bfloat16").replace("XLPipeline", "XLImg2ImgPipeline")
    assert 'exclude_modules=["vae"]' in do(picture, "group_offload(leaf, stream=true)").source, "encoded in float32"
    own = 'vae = AutoencoderKL.from_pretrained("madebyollin/sdxl-vae-fp16-fix", torch_dtype=torch.float16)\npipe ='
    mended = XL.replace("pipe =", own, 1).replace("-dev", '-dev", vae=vae, revision="main')
    mended = mended.replace("import Stable", "import AutoencoderKL, Stable")
    assert "exclude_modules" not in do(mended, "group_offload(leaf, stream=true)").source
    disk = do(XL, "group_offload(leaf, disk=true)")
    assert 'pipe.vae.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level")' in disk.source
    assert do(disk.source, "group_offload(leaf, disk=true)").diff == ""


def test_parts_that_a_checkpoint_may_have_are_named_to_the_person() -> None:
    source = FLUX.replace("FluxPipeline", "StableDiffusionPipeline")
    assert any("pipe.safety_checker" in w for w in do(source, "group_offload(leaf, disk=true)").by_hand)
    without = source.replace("bfloat16)", "bfloat16, safety_checker=None, image_encoder=None)")
    assert not do(without, "group_offload(leaf, disk=true)").by_hand


def test_caches_are_refused_where_the_pipeline_does_not_serve_them() -> None:
    with pytest.raises(NotApplicable, match="caches fail"):
        do(FLUX.replace("FluxPipeline", "FluxFillPipeline"), "cache(first_block)")
    assert "enable_cache" in do(FLUX, "cache(first_block)").source
    with pytest.raises(NotApplicable, match="which step it is at"):
        do(FLUX.replace("FluxPipeline", "FluxFillPipeline"), "cache(pyramid)")
    bare = "from diffusers import FluxTransformer2DModel as F\n\nm = F.from_pretrained('a/b').to('cuda')\nm(x)\n"
    with pytest.raises(NotApplicable, match="no pipeline that tells"):
        do(bare, "cache(pyramid)")


def test_projections_are_not_fused_under_adapters_of_attention() -> None:
    load = 'pipe.load_ip_adapter("XLabs-AI/flux-ip-adapter", weight_name="ip_adapter.safetensors")\n'
    with pytest.raises(NotApplicable, match="in place of the IP-Adapter's"):
        do(FLUX.replace("image =", load + "image =", 1), "fuse_qkv")
    words = FLUX.replace("image =", 'pipe.load_textual_inversion("a/b")\nimage =', 1)
    assert "fuse_qkv_projections" in do(words, "fuse_qkv").source


@pytest.mark.parametrize("pipeline", ["Flux2KleinPipeline", "LTX2Pipeline", "HeliosPipeline"])
def test_the_first_block_cache_is_refused_where_it_does_not_know_the_blocks(pipeline: str) -> None:
    script = FLUX.replace("FluxPipeline", pipeline)
    with pytest.raises(NotApplicable, match="does not know the blocks"):
        do(script, "cache(first_block)")
    assert "enable_cache" in do(script, "cache(pyramid)").source


@pytest.mark.parametrize(
    "strategy", ["compile(regional, dynamic=true, tuned=true)", "compile(full, mode=max-autotune)"]
)
def test_settings_of_the_compiler_go_with_it(strategy: str) -> None:
    patched = do(FLUX, strategy).source
    assert do(patched, strategy).diff == ""
    assert revert(patched, Strategy.parse(strategy)).source == FLUX


def test_a_model_that_the_script_loads_itself_is_not_exchanged() -> None:
    load = 'part = FluxTransformer2DModel.from_single_file("mine.safetensors")\npipe ='
    source = FLUX.replace("pipe =", load, 1).replace("bfloat16)", "bfloat16, transformer=part)")
    source = source.replace("import FluxPipeline", "import FluxPipeline, FluxTransformer2DModel")
    with pytest.raises(NotApplicable, match="by itself in line 4"):
        do(source, "gguf(transformer, file=a-Q4_K_S.gguf)")


@pytest.mark.parametrize(
    "move, left", [("pipe.to('cuda', torch.float16)", "pipe.to('cuda')"), ("pipe.to(torch.float16)", ""),
                   ("pipe.to('cuda', dtype=torch.float16)", "pipe.to('cuda')")],
)  # fmt: skip
def test_a_move_does_not_undo_the_dtype(move: str, left: str) -> None:
    source = FLUX.replace(", torch_dtype=torch.bfloat16", "").replace('pipe.to("cuda")', move)
    patched = do(source, "dtype(bf16)", diffusers="0.42.1").source
    assert "dtype=torch.bfloat16)" in patched and "float16" not in patched.replace("bfloat16", "")
    assert [row for row in patched.splitlines() if row.startswith("pipe.to")] == [left] * bool(left)
    assert do(patched, "dtype(bf16)", diffusers="0.42.1").diff == ""
    assert "pipe.to" not in do(source, "dtype(bf16)+model_offload").source


def test_what_is_written_anew_is_not_said_to_be_taken_out() -> None:
    old = FLUX.replace("image =", "pipe.enable_vae_tiling()\nimage =", 1)
    said = [r.text for r in do(old, "vae_tiling").reasons]
    assert not any("does without it" in text for text in said) and any("Makes room" in text for text in said)
    offloaded = FLUX.replace(LINE, "pipe.enable_model_cpu_offload()\n")
    assert any("does without it" in r.text for r in do(offloaded, "group_offload(leaf)").reasons)


def test_a_part_with_a_map_of_its_own_has_nothing_to_reset() -> None:
    source = FLUX.replace(
        "pipe =", 'tower = CLIPTextModel.from_pretrained("x/y", device_map="auto")\npipe =', 1
    ).replace("torch_dtype", "text_encoder=tower, torch_dtype", 1)
    patched = do("from transformers import CLIPTextModel\n" + source, "group_offload(leaf)").source
    assert "reset_device_map" not in patched and "device_map" not in patched
    assert do(patched, "group_offload(leaf)").diff == ""


def test_a_converted_model_is_known_by_what_it_becomes() -> None:
    """AnimateDiff makes a motion model of whichever U-Net it gets."""
    source = FLUX.replace("FluxPipeline", "AnimateDiffPipeline")
    assert "pipe.unet.enable_layerwise_casting" in do(source, "fp8_casting").source
    assert "pipe.unet.enable_forward_chunking()" in do(source, "forward_chunking").source


def test_a_second_prompt_that_the_call_encodes_keeps_the_text_encoder() -> None:
    klein = FLUX.replace("FluxPipeline", "Flux2KleinPipeline")
    with pytest.raises(NotApplicable, match="encodes a second prompt.*guidance_scale=1.0"):
        do(klein, "text_encoder_release")
    distilled = klein.replace("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.2-klein-4B")
    assert "pipe.text_encoder = None" in do(distilled, "text_encoder_release").source, "it is never guided"
    unguided = klein.replace("image = pipe(", "image = pipe(guidance_scale=1.0, prompt=", 1)
    assert "pipe.text_encoder = None" in do(unguided, "text_encoder_release").source
    with pytest.raises(NotApplicable, match="encodes a second prompt"):
        do(unguided.replace("Flux2Klein", "HunyuanVideo15"), "text_encoder_release")


def test_imports_stand_where_a_hand_would_put_them() -> None:
    source = "import argparse\nimport sys\n\n" + FLUX.replace(
        "import FluxPipeline\n", "import FluxPipeline\nfrom diffusers.utils import load_image\n", 1
    )
    quantised = do(source, "bnb_nf4").source.splitlines()
    here = quantised.index("from diffusers.quantizers import PipelineQuantizationConfig")
    assert quantised[here + 1] == "from diffusers.utils import load_image"
    on_disk = do(source, "group_offload(leaf, disk=true)").source.splitlines()
    assert on_disk[:3] == ["import argparse", "import sys", "from tempfile import mkdtemp"]
    grown = do(source, "expandable_segments").source.splitlines()
    assert grown[:4] == ["import argparse", "import sys", "import os", ""] and grown[4].startswith("os.environ")
    for strategy in ("bnb_nf4", "expandable_segments"):
        assert revert(do(source, strategy).source, Strategy.parse(strategy)).source == source


def test_sigmas_that_nobody_moves_are_told_so() -> None:
    patch = do(FLUX, "sigmas_on_cpu")
    assert not patch.diff and "keeps them in RAM" in patch.warnings[0]


def test_taking_out_a_dtype_warns() -> None:
    patch = revert(FLUX, Strategy.parse("dtype"))
    assert "dtype" not in patch.source and "float32" in " ".join(patch.warnings)


@pytest.mark.parametrize("strategy", ["bnb_nf4", "gguf(transformer, file=a.gguf)", "device_map(auto)", "torchao_int8"])
def test_half_of_a_change_is_not_written(strategy: str) -> None:
    """Where the call hides its arguments, what it would use is for a person to add as well."""
    hidden = FLUX.replace("pipe =", "options = dict(torch_dtype=torch.bfloat16)\npipe =", 1).replace(
        "torch_dtype=torch.bfloat16)\npipe.to", "**options)\npipe.to", 1
    )
    patch = do(hidden, strategy)
    assert "quantization_config" not in patch.source and "transformer =" not in patch.source
    assert any(w.startswith("Above line 5, add: `from ") for w in patch.by_hand)
    assert any(w.startswith("Line 5: pass `") for w in patch.by_hand)
    assert do(patch.source, strategy).diff == ""


def test_a_second_pipeline_is_named() -> None:
    second = FLUX + 'refiner = FluxPipeline.from_pretrained("x/y")\nrefiner("a dog")\n'
    assert any("(refiner)" in w for w in do(second, "model_offload").warnings)
    shared = FLUX + 'other = FluxImg2ImgPipeline.from_pipe(pipe)\nother("a dog")\n'
    assert not do(shared, "model_offload").warnings


def test_a_new_line_takes_the_place_of_the_one_that_goes() -> None:
    more = "pipe.scheduler = make(pipe.scheduler.config)\npipe.set_progress_bar_config(disable=True)\n"
    source = FLUX.replace(LINE, LINE + more)
    assert do(source, "fp8_casting+model_offload").source == FLUX.replace(
        LINE,
        "pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)\n"
        "pipe.enable_model_cpu_offload()\n" + more,
    )
    assert revert(do(source, "model_offload").source, Strategy.parse("model_offload")).source == source


def test_layers_that_are_called_twice_are_not_fetched_ahead_when_torchao_quantised_them() -> None:
    cogview = FLUX.replace("FluxPipeline", "CogView4Pipeline")
    with pytest.raises(NotApplicable, match="calls some layers twice"):
        do(cogview, "torchao_int8(transformer)+group_offload(leaf, stream=true)")
    for script, strategy in (
        (cogview, "torchao_int8(transformer)+group_offload(leaf)"),
        (cogview, "group_offload(leaf, stream=true)"),
        (FLUX, "torchao_int8(transformer)+group_offload(leaf, stream=true)"),
    ):
        assert "enable_group_offload" in do(script, strategy).source


def test_a_dtype_that_is_not_written_that_way_is_not_taken_out() -> None:
    versions, dtype = {"diffusers": "0.42.1"}, Strategy.parse("dtype")
    without = FLUX.replace(", torch_dtype=torch.bfloat16", "")
    patched = rewrite(without, Strategy.parse("dtype(bf16)"), versions=versions).source
    assert "dtype=torch.bfloat16" in patched
    assert "torch.bfloat16" not in revert(patched, dtype, versions=versions).source
    kept = revert(FLUX, dtype, versions=versions)
    assert kept.diff == "" and any("torch_dtype stays" in w for w in kept.warnings)
