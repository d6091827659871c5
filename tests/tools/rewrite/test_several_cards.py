"""Device maps: what is written for several cards, what is refused, and that it runs on two virtual cards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.hardware import custom_card
from oomdoctor.models import CATALOGUE
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness
from oomdoctor.values import Patch, Strategy

SD = """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16, safety_checker=None)
pipe.to("cuda")
image = pipe("a cat", height=256, width=256, num_inference_steps=1).images[0]
"""
WAYS = (
    "device_map(balanced)",
    "device_map(auto, unet)",
    "device_map(unet=1)",
    "device_map(text_encoder=1)+fp8_casting(unet)",
)
GIB = 1 << 30


def do(source: str, strategy: str, **versions: str) -> Patch:
    return rewrite(source, Strategy.parse(strategy), versions=versions)


@pytest.fixture(scope="module")
def cards() -> Iterator[Any]:
    pytest.importorskip("diffusers")
    from oomdoctor.trial import Zygote

    loading = {"catalogue": str(CATALOGUE), "configs": [], "like": {}, "hf_cache": None}
    with Zygote(None, custom_card(8 * GIB), loading) as zygote:
        yield zygote


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy, ran", [("device_map(auto, unet)", "script"), ("device_map(text_encoder=1)+fp8_casting(unet)", "call")]
)
def test_it_runs_on_two_cards(strategy: str, ran: Any, cards: Any) -> None:
    """As a script, and as the call that the planner makes of it; each card ends with a part of the weights."""
    from oomdoctor.trial import run_virtual

    patched = do(SD, strategy, **{k: v for k, v in cards.versions.items() if v}).source
    text = patched if ran == "script" else harness(read_script(patched))
    text += "\nassert all(torch.cuda.memory_allocated(i) > 100 << 20 for i in (0, 1))\n"
    trial = run_virtual(cards, text, card=custom_card(8 * GIB), ran=ran, path="script.py", timeout=300.0, count=2)
    assert trial.outcome == "ok", f"{trial.error}\n{text}"


@pytest.mark.parametrize("strategy", [*WAYS, "device_map(auto, unet, cards=3, max_gib=4, first_gib=2)"])
def test_it_is_read_back_and_taken_out(strategy: str) -> None:
    patch = do(SD, strategy)
    assert not patch.by_hand and '.to("cuda")' not in patch.source
    assert do(patch.source, strategy).diff == ""
    assert revert(patch.source, Strategy.parse(strategy)).source == SD
    assert do(patch.source, "model_offload").source == do(SD, "model_offload").source


def test_a_part_that_the_script_loads_is_spread_where_it_is_loaded() -> None:
    own = SD.replace(
        "pipe =", 'unet = UNet2DConditionModel.from_pretrained("my/unet", torch_dtype=torch.float16)\npipe =', 1
    )
    own = own.replace("safety_checker=None", "unet=unet, safety_checker=None").replace(
        "import St", "import UNet2DConditionModel, St"
    )
    patch = do(own, "device_map(auto, max_gib=6)")
    assert (
        'from_pretrained("my/unet", torch_dtype=torch.float16, device_map="auto", max_memory={0: "6GiB", 1: "6GiB"})'
        in patch.source
    )
    assert revert(patch.source, Strategy.parse("device_map(auto)")).source == own
    with pytest.raises(NotApplicable, match="would stay in RAM"):
        do(own, "device_map(balanced)")


def test_a_plain_load_of_ones_own_comes_back_as_it_was() -> None:
    """A part that the script loads just as the pipeline would is the script's, not ours: only the map goes again."""
    for layout in ("(ID, {})", "(\n    ID, {}\n)", "(\n    ID,\n    {},\n)"):
        call = layout.format('subfolder="unet", torch_dtype=torch.float16')
        own = SD.replace("pipe =", f"unet = UNet2DConditionModel.from_pretrained{call}\npipe =", 1)
        own = own.replace("safety_checker=None", "unet=unet, safety_checker=None").replace(
            "import St", "import UNet2DConditionModel, St"
        )
        own = own.replace('"stable-diffusion-v1-5/stable-diffusion-v1-5"', "ID").replace(
            "unet = UNet", 'ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"\nunet = UNet', 1
        )
        patched = do(own, "device_map(auto)").source
        assert patched.count('device_map="auto"') == 1
        assert revert(patched, Strategy.parse("device_map")).source == own


def test_a_new_load_stands_below_the_names_that_it_reads() -> None:
    late = SD.replace(
        "pipe =", 'extractor = CLIPImageProcessor.from_pretrained("openai/clip")\nname = "runwayml/sd"\npipe =', 1
    )
    late = late.replace('"stable-diffusion-v1-5/stable-diffusion-v1-5"', "name").replace(
        "safety_checker=None", "feature_extractor=extractor, safety_checker=None"
    )
    patched = do("from transformers import CLIPImageProcessor\n" + late, "device_map(auto)").source
    assert patched.index("name =") < patched.index("unet = UNet2DConditionModel.from_pretrained(\n    name,")


def test_older_pipelines_take_no_card_as_map() -> None:
    patched = do(SD, "device_map(auto)", diffusers="0.33.0").source
    assert 'device_map="cuda"' not in patched
    assert 'pipe.vae.to("cuda:0")\n' in patched and 'pipe.text_encoder.to("cuda:0")\n' in patched


@pytest.mark.parametrize(
    "strategy, why",
    [
        ("device_map(sideways)", "say balanced or auto"),
        ("device_map(auto, balanced)", "no component 'balanced'"),
        ("device_map(unet=0)", "all components are on one card"),
        ("device_map(unet=-1)", "numbered from 0"),
        ("device_map(controlnet=1)", "no component controlnet"),
        ("device_map(auto, text_encoder)", "not known to be a model that spreads"),
        ("device_map(auto)+bnb_nf4(unet)", "spread as well"),
        ("device_map(unet=1)+model_offload", "cannot be combined"),
    ],
)
def test_what_cannot_be_is_refused(strategy: str, why: str) -> None:
    with pytest.raises(NotApplicable, match=why):
        do(SD, strategy)


OPTIONS = SD.replace(", torch_dtype=torch.float16, safety_checker=None", ", **options").replace(
    "pipe =", 'options = {"torch_dtype": torch.float16, "device_map": "balanced"}\npipe =', 1
)


def test_a_map_that_cannot_be_taken_out_is_reset() -> None:
    source = OPTIONS.replace('pipe.to("cuda")\n', "")
    for strategy in ("model_offload", "group_offload(leaf)", "vae_slicing"):
        batch = source.replace('"a cat"', '["a cat"] * 2')
        patch = do(batch, strategy)
        assert patch.source.count("pipe.reset_device_map()\n") == 1
        assert do(patch.source, strategy).diff == ""
    assert revert(do(source, "model_offload").source, Strategy.parse("model_offload")).source == source
