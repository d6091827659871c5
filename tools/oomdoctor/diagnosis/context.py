"""The surroundings that the text gives away: operating system, WSL, container, library versions, front end, training."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from oomdoctor.diagnosis.families import Sighting
from oomdoctor.diagnosis.normalise import Page
from oomdoctor.values import Hardware, Script

_WINDOWS = re.compile(
    r"[A-Za-z]:\\(?:Users|Program|Windows|AI|[A-Za-z])|\bWindows (?:10|11)\b|WinError|site-packages\\"
)
_WSL = re.compile(r"\bWSL2?\b|/mnt/[a-z]/|microsoft-standard")
_VERSION = re.compile(
    r"\b(torch|pytorch|diffusers|transformers|accelerate|bitsandbytes)(?:\s+version)?\s{0,3}(?:==|=|:|@|\s)\s{0,3}v?"
    r"(\d{1,2}\.\d{1,3}(?:\.\d{1,3})?)",
    re.IGNORECASE,
)
_TRAINING = re.compile(r"(?i)\b(?:training|fine-?tun\w{1,6}|dreambooth)\b|train_\w+\.py|accelerate launch")
_OFFLOAD = re.compile(r"(?i)use_stream|pin_memory|non_blocking|record_stream|block ?swap|cpu[-_ ]?offload")
# The hint in every message names the setting too: "try setting ...".
_EXPANDABLE = re.compile(
    r"(?<!setting\s)PYTORCH_\w{0,12}ALLOC_CONF['\"\]]{0,3}\s?[=,]\s?['\"]?[^\s'\"]{0,80}expandable_segments:True"
)
_NO_EFFICIENT_KERNEL = re.compile(r"not compiled with (?:memory efficient|flash) attention")


@dataclass(frozen=True)
class Context:
    """What is known about where the text comes from; False and empty mean *nothing says so*."""

    windows: bool = False
    wsl: bool = False
    container: bool = False
    training: bool = False
    offload_words: bool = False
    expandable_on: bool = False
    no_efficient_kernel: bool = False
    zluda: bool = False
    jetson: bool = False
    mig: bool = False
    comfy: bool = False
    colab: bool = False
    versions: dict[str, str] = field(default_factory=dict)


def read_context(page: Page, main: Sighting | None, script: Script | None, hardware: Hardware | None) -> Context:
    """Everything the page, the script and the machine say about the surroundings."""
    text = page.around(main.line if main else len(page.lines))
    versions = {m.group(1).lower().replace("pytorch", "torch"): m.group(2) for m in _VERSION.finditer(text)}
    windows, wsl = bool(_WINDOWS.search(text)), bool(_WSL.search(text))
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
        container=bool(numbers and numbers.processes and numbers.this_process is None),
        training=bool(_TRAINING.search(text)) or bool(script and script.training),
        offload_words=bool(_OFFLOAD.search(text)),
        expandable_on=on or bool(_EXPANDABLE.search(text)),
        no_efficient_kernel=bool(_NO_EFFICIENT_KERNEL.search(text)),
        zluda="zluda" in text.lower(),
        jetson="Jetson" in text or "tegra" in text,
        mig="MIG " in text,
        comfy="ComfyUI" in text,
        colab="/usr/local/lib/python3" in text or "Colab" in text or "/content/" in text,
        versions=versions,
    )
