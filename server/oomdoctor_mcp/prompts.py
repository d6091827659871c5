"""Prompts: what a person picks from a menu instead of explaining it."""

from __future__ import annotations

from typing import Annotated

from mcp.server import MCPServer
from pydantic import Field

from oomdoctor_mcp.state import State

Script = Annotated[str, Field(description="Path of the script, or its text")]
Card = Annotated[str, Field(description="The graphics card, such as 'RTX 3060 12GB', or 'auto' for this machine's")]
Ram = Annotated[str, Field(description="GiB of RAM of that machine")]


def cure_this_traceback(
    traceback: Annotated[str, Field(description="The error as printed, as much of it as there is")],
    script: Script = "",
    gpu: Card = "",
    ram_gib: Ram = "",
) -> str:
    """Out of memory: find the smallest patch that fits my card, and prove it."""
    return (
        "My diffusers script ran out of memory. Call fix_oom with the script, this traceback and my card, then show me "
        "the diff, what it costs and the proof. Ask me for what is missing (the script, the card, the RAM) first. Say "
        "plainly when it is not a memory error or when nothing fits.\n\n"
        f"Card: {gpu or 'not said'}. RAM: {ram_gib or 'not said'}.\n\n"
        f"Script:\n{_quoted(script or 'not given')}\n\nTraceback:\n{_quoted(traceback)}"
    )


def will_it_fit(script: Script, gpu: Card, ram_gib: Ram = "") -> str:
    """Will this script fit a card, and if not, what would make it fit?"""
    return (
        "Will this script run on that card? Call verify_script with it and the card. If it runs out of memory, call "
        "compute_strategies and give me a short table of what would fit: VRAM, RAM, seconds, effect on the picture. "
        f"Change nothing.\n\nCard: {gpu}. RAM: {ram_gib or 'not said'}.\n\nScript:\n{_quoted(script)}"
    )


def make_it_faster(script: Script, gpu: Card, ram_gib: Ram = "") -> str:
    """Make this script as fast as my card's memory allows."""
    return (
        "Make this script faster within my card's memory. Call compute_strategies with prefer='speed', tell me what "
        "the fastest option gains over what the script does now and what it costs, then call fix_oom with "
        "prefer='speed' and show me the diff and the proof.\n\n"
        f"Card: {gpu}. RAM: {ram_gib or 'not said'}.\n\nScript:\n{_quoted(script)}"
    )


def _quoted(text: str) -> str:
    """Between fences longer than any in the text, so that the text cannot end its own quotation."""
    longest = 3
    while "`" * longest in text:
        longest += 1
    fence = "`" * longest
    return f"{fence}\n{text}\n{fence}"


def add_prompts(server: MCPServer[State]) -> None:
    """Registers all of them."""
    server.prompt(title="Cure this traceback")(cure_this_traceback)
    server.prompt(title="Will it fit?")(will_it_fit)
    server.prompt(title="Make it faster within my card")(make_it_faster)
