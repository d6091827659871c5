"""The surroundings that the text gives away: operating system, WSL, library versions, training."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from oomdoctor.diagnosis.families import Sighting
from oomdoctor.diagnosis.normalise import Page
from oomdoctor.values import Hardware, Script


class _Sign:
    """A pattern with lower-case literals of which one is in every match: a cheap test before the pattern."""

    def __init__(self, needles: str, pattern: str) -> None:
        self.needles = tuple(needles.split("|"))
        self.pattern = re.compile(pattern, re.IGNORECASE)

    def within(self, text: str, lowered: str) -> bool:
        return any(needle in lowered for needle in self.needles) and bool(self.pattern.search(text))


_WINDOWS = _Sign(
    ":\\|windows 1|winerror|site-packages\\",
    r"\b[a-z]:\\{1,2}\w|\bwindows (?:10|11)\b|winerror|site-packages\\",
)
_WSL = _Sign("wsl|/mnt/|microsoft-standard", r"\bWSL2?\b|/mnt/[a-z]/|microsoft-standard")
_TRAINING = _Sign(
    "training|fine-tun|finetun|dreambooth|train_|accelerate launch",
    r"\b(?:training|fine-?tun\w{1,6}|dreambooth)\b|train_\w{1,60}\.py|accelerate launch",
)
_OFFLOAD = _Sign(
    "use_stream|pin_memory|non_blocking|record_stream|swap|offload",
    r"use_stream|pin_memory|non_blocking|record_stream|block ?swap|cpu[-_ ]?offload",
)
# The hint in every message names the setting too: "try setting ...".
_EXPANDABLE = _Sign(
    "expandable_segments:true",
    r"(?<!setting\s)PYTORCH_\w{0,12}ALLOC_CONF['\"\]]{0,3}\s?[=,]\s?['\"]?[^\s'\"]{0,80}expandable_segments:True",
)
_NO_EFFICIENT_KERNEL = _Sign("not compiled with", r"not compiled with (?:memory efficient|flash) attention")
_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "bitsandbytes")
_VERSION = re.compile(r"(?:\s+version)?\s{0,40}(?:==|=|:|@|\s)\s{0,40}v?(\d{1,2}\.\d{1,3}(?:\.\d{1,3})?)")
_MOST_MENTIONS = 200


@dataclass(frozen=True)
class Context:
    """What is known about where the text comes from; False and empty mean *nothing says so*."""

    windows: bool = False
    wsl: bool = False
    training: bool = False
    offload_words: bool = False
    expandable_on: bool = False
    no_efficient_kernel: bool = False
    zluda: bool = False
    jetson: bool = False
    versions: dict[str, str] = field(default_factory=dict)


def read_context(page: Page, main: Sighting | None, script: Script | None, hardware: Hardware | None) -> Context:
    """Everything the page, the script and the machine say about the surroundings."""
    text = page.around(main.line if main else len(page.lines))
    lowered = text.lower()
    versions = _versions(lowered)
    windows, wsl = _WINDOWS.within(text, lowered), _WSL.within(text, lowered)
    if hardware is not None:
        versions.update({k: v for k, v in hardware.versions.items() if v})
        wsl = wsl or hardware.driver_model == "WSL"
        windows = not wsl and (windows or hardware.driver_model == "WDDM" or hardware.os.lower().startswith("win"))
    numbers = main.numbers if main else None
    # The process size "not available" is what NVML answers under WSL.
    if numbers is not None and numbers.unlimited and main is not None and main.family.name == "cuda":
        wsl = True
    settings = script.allocator_settings if script else {}
    on = any("expandable_segments:True" in v for v in settings.values())
    return Context(
        windows=windows and not wsl,
        wsl=wsl,
        training=_TRAINING.within(text, lowered) or bool(script and script.training),
        offload_words=_OFFLOAD.within(text, lowered),
        expandable_on=on or _EXPANDABLE.within(text, lowered),
        no_efficient_kernel=_NO_EFFICIENT_KERNEL.within(text, lowered),
        zluda="zluda" in lowered,
        jetson="Jetson" in text or "tegra" in text,
        versions=versions,
    )


def _versions(lowered: str) -> dict[str, str]:
    """Versions of libraries as logs and reports print them: ``torch==2.9.0``, ``PyTorch version: 2.9.0``."""
    found: dict[str, str] = {}
    for library in _LIBRARIES:
        at = lowered.find(library)
        for _ in range(_MOST_MENTIONS):
            if at < 0 or library in found:
                break
            if m := _VERSION.match(lowered, at + len(library)):
                found[library] = m.group(1)
            at = lowered.find(library, at + 1)
    return found
