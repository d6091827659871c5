"""``oom-doctor check``: does this installation do what it promises? Each line is tried, not looked up.

>>> [c.name for c in checkup(python=None) if c.state == "fails"]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from oomdoctor.errors import OomDoctorError
from oomdoctor.units import human
from oomdoctor.values.base import Value

State = Literal["works", "absent", "fails"]
"""``absent``: an optional part that is not installed; nothing is wrong."""

DIES = """\
import torch

held = [torch.empty(256, 1 << 20, dtype=torch.uint8, device="cuda") for _ in range(3)]
torch.empty(512, 1 << 20, dtype=torch.uint8, device="cuda")
"""
"""Takes 768 MiB of a card and then asks for 512 more: on a card of one GiB it must die at the fourth line."""


class Check(Value):
    """One thing that was tried."""

    name: str
    state: State
    text: str
    """What was found, or what went wrong and the way out."""


def checkup(python: str | None) -> tuple[Check, ...]:
    """Try every part, the virtual card last. ``python``: the interpreter that runs scripts (default: this one)."""
    return tuple(_checks(python))


def text(checks: tuple[Check, ...]) -> str:
    """For a terminal."""
    mark = {"works": "ok    ", "absent": "absent", "fails": "FAILS "}
    return "\n".join(f"{mark[c.state]}  {c.name:<14} {c.text}" for c in checks)


def _checks(python: str | None) -> Iterator[Check]:
    for name, what in (
        ("python", _python), ("catalogues", _catalogues), ("server", _server), ("evals", _evals),
        ("machine", lambda: _machine(python)), ("libraries", lambda: _libraries(python)), ("sandbox", _sandbox),
        ("virtual card", lambda: _virtual_card(python)),
    ):  # fmt: skip
        yield _tried(name, what)


def _tried(name: str, what: Callable[[], tuple[State, str]]) -> Check:
    try:
        state, words = what()
    except OomDoctorError as error:
        state, words = "fails", str(error)
    except Exception as defect:  # a checkup reports what is broken, it does not break
        state, words = (
            "fails",
            f"{type(defect).__name__}: {defect}. Install again, or report it with `oom-doctor report`.",
        )
    return Check(name=name, state=state, text=" ".join(words.split()))


def _python() -> tuple[State, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    return "works", version


def _catalogues() -> tuple[State, str]:
    from oomdoctor.hardware import cards
    from oomdoctor.models import model_ids
    from oomdoctor.techniques import all_techniques

    counts = len(cards()), len(model_ids()), len(all_techniques())
    if not all(counts):
        return (
            "fails",
            f"data files are missing ({counts[0]} cards, {counts[1]} models, {counts[2]} techniques): install again.",
        )
    return "works", f"{counts[0]} cards, {counts[1]} models, {counts[2]} techniques"


def _server() -> tuple[State, str]:
    before = set(sys.modules)
    try:
        from oomdoctor_mcp.app import build
        from oomdoctor_mcp.config import Config
    except ImportError as error:
        return "fails", f"{error}. Install again, so that the package mcp (2.3 or newer, below 3) is there."
    tools = build(Config(roots=()))._tool_manager.list_tools()
    loaded = [name for name in ("torch", "diffusers") if name in sys.modules and name not in before]
    if loaded:
        return "fails", f"the server loads {', '.join(loaded)}: it would start too slowly for some clients."
    return "works", f"{len(tools)} tools; start it with `oom-doctor serve`"


def _evals() -> tuple[State, str]:
    from importlib.util import find_spec

    if find_spec("oomdoctor_evals") is None:
        return "fails", "the package oomdoctor_evals is missing: install again."
    if find_spec("inspect_ai") is None:
        return "absent", "agents that are language models need `pip install 'oom-doctor[evals]'`; all others work"
    return "works", "with inspect_ai"


def _machine(python: str | None) -> tuple[State, str]:
    from oomdoctor.hardware import detect_hardware

    found = detect_hardware(python=python)
    ram = f"{human(found.ram.available_bytes)} of RAM available"
    if not found.gpus:
        return "absent", f"no GPU here, which is fine: name one with --gpu; {ram}"
    gpus = "; ".join(f"{g.name}, {human(g.free_bytes)} free" for g in found.gpus)
    return "works", f"{gpus}; {ram}"


def _libraries(python: str | None) -> tuple[State, str]:
    from oomdoctor.hardware import detect_hardware

    versions = detect_hardware(python=python).versions
    needed = {name: versions.get(name) for name in ("torch", "diffusers", "transformers", "accelerate")}
    listed = ", ".join(f"{n} {v or 'missing'}" for n, v in needed.items())
    if not needed["torch"] or not needed["diffusers"]:
        return "fails", (
            f"{listed}. Scripts need torch and diffusers: `pip install 'oom-doctor[run]'`, or name the interpreter that "
            "has them with --python PATH."
        )
    return "works", listed


def _sandbox() -> tuple[State, str]:
    from oomdoctor.trial import sandbox_available

    found = sandbox_available()
    if found:
        return "works", found
    return "absent", "none on this machine: scripts run with guards against accidents only (see SECURITY.md)"


def _virtual_card(python: str | None) -> tuple[State, str]:
    from oomdoctor.hardware import card
    from oomdoctor.models import CATALOGUE
    from oomdoctor.trial import Zygote, run_virtual

    small = card("rtx-3060-12gb")
    loading: dict[str, Any] = {"catalogue": str(CATALOGUE), "configs": [], "like": {}, "hf_cache": None}
    with Zygote(python, small, loading) as zygote:
        large = run_virtual(zygote, DIES, card=small, path="check.py", timeout=60.0)
        tight = run_virtual(zygote, DIES, card=small, path="check.py", vram_bytes=(1 << 30) + small.context_bytes)
    if large.outcome != "ok" or large.peak_allocated_bytes != 1280 << 20:
        return (
            "fails",
            f"12 GiB: ended {large.outcome} with {human(large.peak_allocated_bytes)}, not ok with 1.25 GiB. {large.error}",
        )
    if tight.outcome != "oom" or tight.diagnosis is None or tight.diagnosis.script_line != 4:
        return "fails", f"1 GiB: ended {tight.outcome}, not out of memory at line 4. {tight.error}"
    return "works", f"1.25 GiB run on 12 GiB, die on 1 GiB, at the right line; isolation: {large.isolation}"
