"""The words of an answer: why this strategy, why not another, what the numbers mean. For people, in plain English."""

from __future__ import annotations

from oomdoctor.units import duration, human
from oomdoctor.values import Diagnosis, Plan, Quality, Script, Stage, StrategyOption, Target, Trial

_STAGES = {
    Stage.LOAD: "while loading the model",
    Stage.QUANTIZE: "while quantising the model",
    Stage.PLACE: "while moving the model to the GPU",
    Stage.TEXT_ENCODE: "while encoding the prompt",
    Stage.IMAGE_ENCODE: "while encoding the input image",
    Stage.DENOISE: "while denoising",
    Stage.VAE_ENCODE: "while the VAE encoded",
    Stage.VAE_DECODE: "while the VAE decoded the result",
    Stage.COMPILE: "while compiling",
    Stage.TRAINING: "while training",
    Stage.POST: "after the pipeline had finished",
    Stage.UNKNOWN: "at a point the text does not show",
}


def stage_words(stage: Stage) -> str:
    """A stage as part of a sentence."""
    return _STAGES[stage]


def not_memory(diagnosis: Diagnosis) -> str:
    return f"This is not a memory error: {diagnosis.cause} {diagnosis.next_step}"


def fits_already(trial: Trial, target: Target) -> str:
    return (
        f"The script already fits: it ran through on {target.card.label} with a peak of {human(trial.peak_vram_bytes)} "
        f"of {human(target.vram_bytes)} VRAM and {human(trial.peak_host_bytes)} of RAM. Nothing needs to change."
    )


def disagreement(diagnosis: Diagnosis, original: Trial) -> str | None:
    """A sentence when the pasted death and the simulated one are not of the same stage."""
    if original.outcome == "ok":
        return (
            "The script as it is finished on the virtual card although the traceback says that it died: something "
            "outside the script held memory (another process, an earlier call), or the card or the versions differ."
        )
    simulated = original.diagnosis
    if simulated is None or Stage.UNKNOWN in (simulated.stage, diagnosis.stage) or simulated.stage is diagnosis.stage:
        return None
    return (
        f"The traceback shows the failure {stage_words(diagnosis.stage)}; on the virtual card it happens "
        f"{stage_words(simulated.stage)}. The cure below holds for both."
    )


def with_trial(option: StrategyOption, trial: Trial, target: Target) -> StrategyOption:
    """The option with what its trial really held in the place of the estimate."""
    if trial.outcome != "ok" or trial.peak_vram_bytes is None:
        return option
    estimate = option.estimate.model_copy(
        update={
            "vram_bytes": trial.peak_vram_bytes,
            "allocated_bytes": trial.peak_allocated_bytes or option.estimate.allocated_bytes,
            "ram_bytes": trial.peak_host_bytes or option.estimate.ram_bytes,
            "pinned_bytes": trial.peak_pinned_bytes or 0,
            "fits": trial.peak_vram_bytes <= target.vram_bytes,
            "margin_bytes": 0,
            "rests_on": ("a run of the rewritten script on the virtual card", *option.estimate.rests_on),
        }
    )
    return option.model_copy(update={"estimate": estimate, "proof": "simulated"})


def measured(option: StrategyOption, real: Trial) -> StrategyOption:
    """The option with what the real card showed."""
    changes: dict[str, object] = {"rests_on": ("a run on this machine's GPU", *option.estimate.rests_on)}
    if real.peak_vram_bytes is not None:
        changes["vram_bytes"] = real.peak_vram_bytes
    if real.peak_allocated_bytes is not None:
        changes["allocated_bytes"] = real.peak_allocated_bytes
    if real.peak_host_bytes:
        changes["ram_bytes"] = real.peak_host_bytes
    return option.model_copy(update={"estimate": option.estimate.model_copy(update=changes), "proof": "measured"})


def died_really(name: str, real: Trial) -> str:
    """What a real run that did not finish showed."""
    if real.outcome == "oom" and real.diagnosis is not None:
        what = f"ran out of memory {stage_words(real.diagnosis.stage)}"
    else:
        what = {"oom": "ran out of memory", "timeout": "took too long"}.get(real.outcome, "failed")
    detail = (
        "" if real.outcome == "oom" else f" ({(real.error or '').strip().splitlines()[-1][:160]})" if real.error else ""
    )
    return f"{name} finished on the virtual card but {what} on the real one{detail}; the next strategy was tried."


_EFFECT = {
    Quality.IDENTICAL: "leaves the picture bit-identical",
    Quality.EQUIVALENT: "leaves the picture numerically equivalent",
    Quality.SLIGHT: "changes the picture slightly",
    Quality.NOTICEABLE: "changes the picture noticeably",
}


def why(chosen: StrategyOption, others: tuple[StrategyOption, ...], target: Target) -> str:
    """Why this one and not another."""
    e = chosen.estimate
    if e.slowdown is None or e.slowdown < 1.05:
        cost = "no time worth mentioning"
    else:
        cost = f"about {e.slowdown:.1f}x the time of a card that holds everything"
    text = (
        f"{chosen.id} fits {human(target.vram_bytes)} with {human(e.vram_bytes)} and {_EFFECT[e.quality]}; "
        f"it costs {cost}."
    )
    slower = [o.id for o in others if (o.estimate.seconds or 0) > (e.seconds or 0)]
    if slower:
        text += f" {slower[0]} would fit too, but takes longer."
    return text


def nothing_fits(plan: Plan, target: Target) -> str:
    lines = [
        f"Nothing that keeps the picture fits {human(target.vram_bytes)} of VRAM and {human(target.ram_bytes)} of RAM "
        f"({plan.considered} combinations were considered)."
    ]
    if plan.unlock:
        changes = "; ".join(change.rstrip(".") for change in plan.unlock)
        lines.append(f"What would make it fit, cheapest first: {changes}.")
    return " ".join(lines)


def cure(
    diagnosis: Diagnosis | None,
    chosen: StrategyOption,
    original: Trial,
    trial: Trial,
    target: Target,
    script: Script,
) -> str:
    """A dozen lines for a newcomer."""
    lines = []
    if diagnosis is not None:
        lines.append(diagnosis.cause)
    if original.outcome == "oom" and original.diagnosis is not None:
        dead = original.diagnosis
        where = f"line {dead.script_line}, " if dead.script_line else ""
        lines.append(f"On the virtual {target.card.label} the script dies at {where}{stage_words(dead.stage)}.")
    lines.append(f"The patch applies {chosen.id}: {chosen.summary}")
    lines.append(
        f"The patched script ran to its end there: peak {human(trial.peak_vram_bytes)} of {human(target.vram_bytes)} "
        f"VRAM, {human(trial.peak_host_bytes)} of {human(target.ram_bytes)} RAM, "
        f"about {duration(trial.seconds)} predicted."
    )
    lines.append(f"The result is {chosen.estimate.quality.value} to the original.")
    main = script.main
    if main is not None and main.dtype.certainty == "default":
        lines.append("No dtype is given at loading, so the weights are float32, twice the size they need to be.")
    return "\n".join(lines)
