"""``detect_hardware``."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from mcp.types import CallToolResult
from oomdoctor.units import human
from oomdoctor.values import Gpu, Hardware

from oomdoctor_mcp.answers import result
from oomdoctor_mcp.params import DetailLevel
from oomdoctor_mcp.state import Ctx, state_of
from oomdoctor_mcp.tools import tool


class HardwareAnswer(Hardware):
    """The machine that this server runs on."""

    summary: str = ""
    """The answer in a few sentences, figures with their units."""
    next_step: str = ""
    """What to do now."""
    warnings: tuple[str, ...] = ()
    """What is unknown or does not match."""


@tool
async def detect_hardware(ctx: Ctx, detail: DetailLevel = "concise") -> Annotated[CallToolResult, HardwareAnswer]:
    """GPUs with free and total memory, RAM, disk, driver model and library versions of the machine this server runs on.

    When to use: before planning for "my GPU", or to see which other programs hold its memory. Do not use for a card
    on another machine: name that card as gpu in the other tools. No GPU is a normal answer.
    """
    python = state_of(ctx).config.python

    def look() -> Hardware:
        from oomdoctor.hardware import detect_hardware as look_around

        return look_around(python=python)

    found = await anyio.to_thread.run_sync(look)
    shown = found if detail == "full" else _short(found)
    said = {"summary": _sentence(found), "next_step": _next(found), "warnings": found.notes}
    return result(HardwareAnswer(**(dict(shown) | {"notes": ()} | said)))


def _sentence(hardware: Hardware) -> str:
    gpus = "; ".join(f"{gpu.name}: {human(gpu.free_bytes)} free of {human(gpu.total_bytes)}" for gpu in hardware.gpus)
    torch = hardware.versions.get("torch") or "not installed"
    return f"{gpus or 'No GPU'}. RAM: {human(hardware.ram.available_bytes)} available. torch: {torch}."


def _next(hardware: Hardware) -> str:
    if not hardware.gpus:
        return (
            "Ask which card the script runs on and how much RAM that machine has, and pass them as gpu and ram_gib; "
            "everything is tried on a virtual card then."
        )
    return "Pass gpu='auto' to plan for this machine."


def _short(hardware: Hardware) -> Hardware:
    def short(gpu: Gpu) -> Gpu:
        return gpu.model_copy(update={"pcie": None, "processes": gpu.processes[:4]})

    versions = {name: version for name, version in hardware.versions.items() if version is not None}
    return hardware.model_copy(update={"gpus": tuple(short(gpu) for gpu in hardware.gpus), "versions": versions})
