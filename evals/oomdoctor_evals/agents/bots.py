"""Bots that answer without looking: each is a habit of forums. None may score well."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oomdoctor.hardware import card

from oomdoctor_evals.agents import Agent
from oomdoctor_evals.values import Answer, Attempt, Scenario, Unlock

_TO_CARD = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?P<left>\w+)\s*=\s*)?(?P<pipe>\w+)\.to\(\s*[\"']cuda[\"']\s*\)[ \t]*$", re.MULTILINE
)
_OFFLOAD = re.compile(
    r"^(?P<indent>[ \t]*)(?P<pipe>\w+)\.enable_(?:model|sequential)_cpu_offload\(\)[ \t]*$", re.MULTILINE
)
_LOAD = re.compile(r"(Pipeline\w*\.from_pretrained\(\s*[^,()]+)")
_QUANT = (
    ', quantization_config=PipelineQuantizationConfig(quant_backend="bitsandbytes_4bit", quant_kwargs={"load_in_4bit": True}, '
    'components_to_quantize=["transformer", "unet", "text_encoder_2", "text_encoder_3"])'
)
Patch = Callable[[str, dict[str, Any]], str]


def placed(source: str, method: str, *more: str) -> str:
    """The script with its placement replaced by ``method`` and followed by ``more``, for each pipeline."""

    def line(match: re.Match[str]) -> str:
        pipe = match.group("pipe")
        return "\n".join(f"{match.group('indent')}{pipe}.{each}" for each in (method, *more))

    source = source.replace(').to("cuda")\n', ")\n")
    return _TO_CARD.sub(line, _OFFLOAD.sub(line, source))


def _noop(source: str, machine: dict[str, Any]) -> str:
    return source


def _offload(source: str, machine: dict[str, Any]) -> str:
    return placed(source, "enable_model_cpu_offload()")


def _offload_tiling(source: str, machine: dict[str, Any]) -> str:
    return placed(source, "enable_model_cpu_offload()", "vae.enable_tiling()")


def _sequential(source: str, machine: dict[str, Any]) -> str:
    return placed(source, "enable_sequential_cpu_offload()", "vae.enable_tiling()")


def _keyword(source: str, machine: dict[str, Any]) -> str:
    large = card(machine["gpu"]).total_bytes > 11.5 * 2**30
    return (_offload_tiling if large else _sequential)(source, machine)


def _kitchen_sink(source: str, machine: dict[str, Any]) -> str:
    quantised = _LOAD.sub(lambda m: m.group(1) + _QUANT, source, count=1)
    return "from diffusers import PipelineQuantizationConfig\n" + _sequential(quantised, machine)


@dataclass(frozen=True)
class Bot:
    """Patches every script the same way."""

    name: str
    patch: Patch

    def attempt(self, scenario: Scenario) -> Attempt:
        question = scenario.question()
        script = self.patch(question["script"], question["machine"])
        answer = Answer(verdict="fixable", patched_script=script, explanation="This usually helps.")
        return Attempt(scenario=scenario.id, agent=self.name, answer=answer)


@dataclass(frozen=True)
class Pessimist:
    """Says that it cannot be done, and to buy a large card."""

    name: str = "always_impossible"

    def attempt(self, scenario: Scenario) -> Attempt:
        answer = Answer(verdict="impossible", unlock=(Unlock(vram_mib=81559),), explanation="Buy an H100.")
        return Attempt(scenario=scenario.id, agent=self.name, answer=answer)


_PATCHES: dict[str, Patch] = {
    "noop": _noop,
    "generic_offload": _offload,
    "offload_tiling": _offload_tiling,
    "keyword": _keyword,
    "always_sequential": _sequential,
    "kitchen_sink": _kitchen_sink,
}


def _bot(name: str) -> Callable[[], Agent]:
    return lambda: Bot(name, _PATCHES[name])


BOTS: dict[str, Callable[[], Agent]] = {
    **{name: _bot(name) for name in _PATCHES},
    "always_impossible": Pessimist,
}
