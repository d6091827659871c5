"""A large batch as a loop over portions: what the statement looks like must not matter, and it can be undone."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.script import read_script
from oomdoctor.values import Patch, Strategy

HEAD = """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16)
pipe.to("cuda")
"""
COPIES = (
    'images = pipe("a cat", num_images_per_prompt=5).images\n',
    'image = pipe("a cat", num_images_per_prompt=5).images[0]\nimage.save("a.png")\n',
    'pipe("a cat", num_images_per_prompt=5).images[3].save("a.png")  # the best\n',
    'grid = make_image_grid(pipe("a cat", num_images_per_prompt=5).images, rows=1, cols=5)\n',
    'grid = make_image_grid(\n    pipe(\n        "a cat",\n        num_images_per_prompt=5,\n    ).images,\n    rows=1,\n)\n',
    'for seed in (1, 2):\n    print(pipe("a cat", num_images_per_prompt=5).images)\n',
    'def paint(words):\n    return pipe(words, num_images_per_prompt=5).images\n\nout = paint("a cat")\n',
    'self = Holder()\nself.images = pipe("a cat", num_images_per_prompt=5).images\n',
    'images = pipe("""a cat\n  and a dog\n""", num_images_per_prompt=5).images\n',
    'kept = []\nkept += pipe("a cat", num_images_per_prompt=5).images\n',
    'images = pipe("a cat", num_images_per_prompt=5, generator=torch.Generator().manual_seed(0)).images\n',
)
LISTS = (
    'images = pipe(["a", "b", "c", "d", "e"]).images\n',
    'prompts = ["a", "b", "c", "d", "e"]\nimages = pipe(prompt=prompts, height=512).images\n',
    'words = ["a"] * 5\nno = ["b"] * 5\nfirst = pipe(words, negative_prompt=no, num_inference_steps=2).images[0]\n',
)


class Fake:
    """Stands for the pipeline: pictures are numbered in the order in which they are asked for."""

    def __init__(self) -> None:
        self.made = 0
        self.calls: list[int] = []

    def __call__(self, prompt: Any, negative_prompt: Any = None, num_images_per_prompt: int = 1, **_: Any) -> Any:
        assert not isinstance(negative_prompt, list) or len(negative_prompt) == len(prompt)
        count = (len(prompt) if isinstance(prompt, list) else 1) * num_images_per_prompt
        self.calls.append(count)
        numbers = range(self.made, self.made + count)
        self.made += count
        return type("Output", (), {"images": [Picture(n) for n in numbers]})


class Picture(int):
    def save(self, name: str) -> None:
        SAVED.append((int(self), name))


SAVED: list[tuple[int, str]] = []


def do(source: str, strategy: str = "batch_split(2)") -> Patch:
    return rewrite(source, Strategy.parse(strategy))


def run(source: str) -> tuple[dict[str, Any], list[tuple[int, str]], list[int]]:
    """Everything that the statements after loading leave behind, what they saved, and the size of each call."""
    SAVED.clear()
    pipe = Fake()
    names: dict[str, Any] = {"pipe": pipe, "make_image_grid": lambda x, **_: list(x), "Holder": type("Holder", (), {})}
    names["torch"] = type("Torch", (), {"Generator": type("G", (), {"manual_seed": lambda self, n: self})})
    exec(source.partition('pipe.to("cuda")\n')[2], names)
    return (
        {k: v for k, v in names.items() if isinstance(v, int | list) and k not in ("i", "count")},
        list(SAVED),
        pipe.calls,
    )


@pytest.mark.parametrize("call", [*COPIES, *LISTS])
def test_the_same_pictures_a_few_at_a_time(call: str) -> None:
    patch = do(HEAD + call)
    assert not patch.by_hand and patch.changed
    before, saved, whole = run(HEAD + call)
    after, also_saved, parts = run(patch.source)
    assert saved == also_saved and all(after[k] == v for k, v in before.items())
    assert max(whole) == 5 and max(parts) == 2 and sum(parts) == sum(whole)
    strings = [
        n.value for n in ast.walk(ast.parse(patch.source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]
    assert all(
        strings.count(n.value) >= 1
        for n in ast.walk(ast.parse(call))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    )


@pytest.mark.parametrize("call", [*COPIES, *LISTS])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_it_is_known_again_and_undone(call: str, newline: str) -> None:
    source = (HEAD + call).replace("\n", newline)
    patch = do(source)
    assert do(patch.source).diff == ""
    assert revert(patch.source, Strategy.parse("batch_split")).source == source
    assert do(do(source, "batch_split(3)").source).source == patch.source


@pytest.mark.parametrize(
    "call, why",
    [
        ('result = pipe("a cat", num_images_per_prompt=5)\n', "not taken as"),
        ('images = [x for x in pipe("a cat", num_images_per_prompt=5).images]\n', "not taken as"),
        ('images = pipe("a cat", num_images_per_prompt=5).images if ready else []\n', "not taken as"),
        ('for x in pipe("a cat", num_images_per_prompt=5).images:\n    x.save("a.png")\n', "not taken as"),
        ('a = 1; images = pipe("a cat", num_images_per_prompt=5).images\n', "not taken as"),
        ('images = pipe("a cat", num_images_per_prompt=n()).images\n', "decided at run time"),
        ('images = pipe(["a"] * 5, num_images_per_prompt=2).images\n', "fewer prompts at a time"),
        ('images = pipe(["a"] * 5, negative_prompt=["b"] * 5).images\n', "give that list a name"),
        ('images = pipe("a cat", num_images_per_prompt=2).images\n', "not more than 2"),
    ],
)
def test_what_cannot_be_joined_is_refused(call: str, why: str) -> None:
    with pytest.raises(NotApplicable, match=why):
        do(HEAD + call)


def test_it_stands_beside_other_techniques() -> None:
    for call in COPIES[:3]:
        patch = do(HEAD + call, "batch_split(2)+vae_tiling+model_offload")
        assert not patch.by_hand
        assert patch.source.index("enable_tiling") < patch.source.index("for count in (2, 2, 1):")
        assert do(patch.source, "batch_split(2)+vae_tiling+model_offload").diff == ""


def test_the_planner_sees_what_the_text_allows() -> None:
    use = read_script(HEAD + COPIES[1]).main
    assert use is not None and use.calls[0].pictures
    other = read_script(HEAD + 'result = pipe("a cat", num_images_per_prompt=5)\n').main
    assert other is not None and not other.calls[0].pictures


@pytest.mark.parametrize("call", LISTS)
def test_one_at_a_time_is_written_without_a_step(call: str) -> None:
    alone, pairs = do(HEAD + call, "batch_split(1)"), do(HEAD + call)
    assert ", 1):" not in alone.source and "for i in range(len(" in alone.source
    assert run(alone.source)[2] == [1] * 5
    assert do(alone.source, "batch_split(1)").diff == ""
    assert do(alone.source).source == pairs.source and do(pairs.source, "batch_split(1)").source == alone.source
    assert revert(alone.source, Strategy.parse("batch_split")).source == HEAD + call
