"""Every block of code in the skill is executed, on the virtual GPU, with the installed diffusers.

The comment before a block says with what: ``<!-- run: PIPELINE [call] [raises ERROR] [cards=N] -->``, where PIPELINE is a
name of ``PIPELINES`` (``pipe`` is loaded before the block, in RAM) or ``script`` (the block is a whole program).
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from oomdoctor.cli import build_parser
from oomdoctor.hardware import card
from oomdoctor.trial import Zygote, run_virtual

SKILL = Path(__file__).parents[2] / "skill" / "diffusers-oom-doctor"
FENCE = re.compile(
    r"(?:^[ ]*<!-- run: (?P<how>.*?) -->\n)?^(?P<indent>[ ]*)```(?P<kind>\w*)\n(?P<code>.*?)^[ ]*```$", re.M | re.S
)

PIPELINES = {
    "flux": ("FluxPipeline", "black-forest-labs/FLUX.1-dev", "bfloat16", "height=512, width=512, "),
    "sdxl": ("StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0", "float16", ""),
    "wan": ("WanPipeline", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "bfloat16", "num_frames=5, "),
}


@dataclass(frozen=True)
class Block:
    """A fenced block of one of the skill's files."""

    file: str
    line: int
    kind: str
    how: str
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def program(self) -> str:
        """The block as a whole program."""
        name, *words = self.how.split()
        if name == "script":
            return self.code
        cls, model, dtype, size = PIPELINES[name]
        lines = [
            f"import torch\nfrom diffusers import {cls}\n",
            f"pipe = {cls}.from_pretrained({model!r}, torch_dtype=torch.{dtype})\n",
            self.code,
        ]
        if "call" in words:
            lines.append(f'\npipe("a cat", {size}num_inference_steps=2)\n')
        return "".join(lines)

    @property
    def raises(self) -> str | None:
        found = re.search(r"raises (\w+)", self.how)
        return found[1] if found else None

    @property
    def cards(self) -> int:
        found = re.search(r"cards=(\d+)", self.how)
        return int(found[1]) if found else 1


def blocks() -> list[Block]:
    """All fenced blocks, in the order of the files."""
    found = []
    for path in [SKILL / "SKILL.md", *sorted((SKILL / "references").glob("*.md"))]:
        text = path.read_text("utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("code")) + 1
            found.append(Block(path.name, line, match["kind"], match["how"] or "", textwrap.dedent(match["code"])))
    return found


PYTHON = [b for b in blocks() if b.kind == "python"]


def test_every_block_says_what_it_is():
    """Python blocks say how they run; what is not code is ``text``; commands are ``sh``."""
    assert len(PYTHON) > 40
    for block in blocks():
        assert block.kind in ("python", "sh", "text"), f"{block}: a fence without a kind"
        if block.kind == "python":
            known = block.how.split(" ")[0]
            assert known in (*PIPELINES, "script"), f"{block}: <!-- run: ... --> is missing or names no pipeline"


def test_no_fence_is_overlooked():
    for path in [SKILL / "SKILL.md", *(SKILL / "references").glob("*.md")]:
        fences = len(re.findall(r"^\s*```", path.read_text("utf-8"), re.M))
        assert fences == 2 * sum(b.file == path.name for b in blocks()), path.name


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_block_does_what_it_says(block: Block, zygote: Zygote):
    trial = run_virtual(
        zygote, block.program, card=card("h100-80gb"), path="block.py", count=block.cards, timeout=120.0
    )
    if block.raises is None:
        assert trial.outcome == "ok", f"{block}\n{trial.error}"
    else:
        assert trial.outcome == "error" and trial.error is not None, f"{block} was to raise, but ended {trial.outcome}"
        last = [line for line in trial.error.splitlines() if line[:1].strip()][-1]
        assert re.match(rf"(?:[\w.]+\.)?{block.raises}\b", last), f"{block}\n{trial.error}"


def test_commands_are_understood_by_the_command_line():
    """Whatever is written as ``oom-doctor ...`` in the skill parses, up to its placeholders."""
    commands = []
    for path in [SKILL / "SKILL.md", *(SKILL / "references").glob("*.md")]:
        commands += re.findall(r"`oom-doctor ([a-z][^`]*)`", path.read_text("utf-8"))
    assert len(commands) >= 4
    for words in commands:
        arguments = words.split()
        if arguments[0] == "rewrite" and "--strategy" not in arguments:
            continue
        build_parser().parse_args(arguments)
