"""What the options name: scripts, texts, sizes, the machine; and the doctor that works on them."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomdoctor.cli.options import policy
from oomdoctor.cli.output import progress
from oomdoctor.errors import InputError, NoError, UnreadableFile
from oomdoctor.units import parse_size
from oomdoctor.values import Card, Target

if TYPE_CHECKING:
    from oomdoctor.doctor import Doctor
    from oomdoctor.job import Job

MAX_TEXT = 64 << 20
MOST_CARDS = 16
_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+(?<!\.py)(?<!\.ipynb)")
STANDING_IN = ("prompt", "image", "mask_image", "control_image")
"""Arguments that a call without a script gets a stand-in for."""


def doctor_for(options: argparse.Namespace, *, any_card: bool = False) -> Doctor:
    from oomdoctor.doctor import Doctor

    return Doctor(
        target=target_of(options, any_card=any_card),
        python=options.python,
        configs=tuple(options.configs),
        like=dict(_pair(text) for text in options.like),
        run_scripts=not options.no_exec,
        timeout=options.timeout,
        progress=progress(options),
        policy=policy(options),
    )


def _pair(text: str) -> tuple[str, str]:
    model, sign, known = text.partition("=")
    if not sign or not model or not known:
        raise InputError(
            f"--like {text!r}: write it as MODEL=KNOWN, for example --like me/my-flux=black-forest-labs/FLUX.1-dev."
        )
    return model, known


def target_of(options: argparse.Namespace, *, any_card: bool) -> Target:
    """The machine that the options name. Raises :class:`InputError` where they do not make one."""
    target = _target_of(options, any_card=any_card)
    count: int | None = getattr(options, "gpu_count", None)
    if count is None:
        return target
    if not 1 <= count <= MOST_CARDS:
        raise InputError(f"--gpu-count {count}: give how many equal cards the machine has, 1 to {MOST_CARDS}.")
    return target.model_copy(update={"gpu_count": count})


def _target_of(options: argparse.Namespace, *, any_card: bool) -> Target:
    from oomdoctor.hardware import card, custom_card, detect_hardware, target_auto, target_for

    vram, ram = size_of(options.vram, "--vram"), size_of(options.ram, "--ram")
    hardware = detect_hardware(python=options.python)
    if options.gpu != "auto":
        return target_for(card(options.gpu), vram_bytes=vram, ram_bytes=ram, hardware=hardware)
    if hardware.gpus:
        target = target_auto(hardware, vram_bytes=vram, ram_bytes=ram)
        return target.model_copy(update={"card": calibrated(target.card, target.versions.get("torch"))})
    if vram is not None:
        return target_for(custom_card(vram), ram_bytes=ram, hardware=hardware)
    if any_card:
        return target_for(card("rtx-4090"), ram_bytes=ram, hardware=hardware)
    return target_auto(hardware, ram_bytes=ram)


def calibrated(card: Card, torch: str | None) -> Card:
    """This machine's card with what ``oom-doctor calibrate`` measured on it, if it was run."""
    from oomdoctor.trial.calibration import store

    return store.apply(card, store.load(card.label, torch))


def size_of(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text, default_unit="gib")
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if size <= 0:
        raise InputError(f"{option} {text}: give a positive size in GiB.")
    return size


def rules_of(options: argparse.Namespace) -> Any:
    from oomdoctor.planner import Rules
    from oomdoctor.values import Quality

    worst = {"identical": Quality.EQUIVALENT, "slight": Quality.SLIGHT, "noticeable": Quality.NOTICEABLE}
    return Rules(
        no_quantisation=options.no_quantisation,
        no_new_packages=options.no_new_packages,
        max_slowdown=options.max_slowdown,
        keep_batch=options.keep_batch,
        worst_quality=worst[options.worst_quality],
    )


def job_of(options: argparse.Namespace) -> Job:
    from oomdoctor.job import read_job
    from oomdoctor.script import read_file

    argv = tuple(getattr(options, "arguments", ()))
    if options.script == "-":
        job = read_job(sys.stdin.read(MAX_TEXT), None, argv)
    else:
        if hasattr(options, "model") and _MODEL_ID.fullmatch(options.script) and not Path(options.script).exists():
            raise UnreadableFile(f"{options.script} is no file here. Is it a model id? Write --model {options.script}.")
        file = read_file(options.script)
        job = read_job(file.text, str(options.script), argv, file)
    use = job.script.main
    loaded = [use.model, *(part.model for part in use.components)] if use is not None else []
    ask_hub(options, [str(model.value) for model in loaded if model.value is not None])
    return job


def ask_hub(options: argparse.Namespace, models: list[str]) -> None:
    """Let the Hub describe those models that nothing here describes, if the person allows it."""
    from oomdoctor.models import hub

    if getattr(options, "hub", False) or os.environ.get(hub.ALLOWED) == "1":
        hub.describe_missing(models, options.configs, dict(_pair(text) for text in options.like))


def model_job(options: argparse.Namespace) -> Job:
    from oomdoctor.job import read_job
    from oomdoctor.models import resolve
    from oomdoctor.script.harness import harness_for_model
    from oomdoctor.techniques.facts import pipeline_facts

    if not options.model:
        raise InputError("measure needs a SCRIPT or --model ID; `oom-doctor models` lists the ids that are known.")
    ask_hub(options, [options.model])
    like = dict(_pair(text) for text in options.like)
    files = resolve(options.model, configs_dir=options.configs or None, like=like)
    class_name = files.pipeline_class or "DiffusionPipeline"
    facts = pipeline_facts(class_name)
    # What a call cannot do without comes first in its signature: pictures further back are optional.
    first = ("prompt",) if facts is None else facts.call[:4]
    call: dict[str, object] = {name: None for name in first if name in STANDING_IN}
    return read_job(harness_for_model(class_name, options.model, "bfloat16", call), "call.py")


def read_text(name: str, what: str) -> str:
    if name == "-":
        text = sys.stdin.read(MAX_TEXT)
    else:
        path = Path(name)
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_TEXT)
        except OSError as error:
            raise UnreadableFile(
                f"The {what} {name} cannot be read ({error.strerror}). Give the path of a text file, or - to paste it on stdin."
            ) from None
    if not text.strip():
        raise NoError(f"The {what} is empty. Paste the whole error, from 'Traceback' to the last line.")
    return text
