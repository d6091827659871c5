"""One variant of one family as a folder: evidence, truth, the best answer, witnesses and wrong answers."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oomdoctor_evals import evidence
from oomdoctor_evals.generator.family import Family, Variant, edited
from oomdoctor_evals.generator.unlocks import unlocks
from oomdoctor_evals.oracle.candidates import candidates
from oomdoctor_evals.oracle.search import Found, search
from oomdoctor_evals.sim.cache import simulator_digest, versions
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import Expected, Machine, Observed, Truth

USUAL = ("torch", "diffusers", "transformers", "accelerate")


class Mislabelled(Exception):
    """A variant is not what its family says: it runs as it is, or is impossible, or is not."""


@dataclass(frozen=True)
class Built:
    """A folder, before it is written."""

    id: str
    meta: dict[str, Any]
    files: dict[str, str]


def build(
    simulator: Simulator, family: Family, variant: Variant, *, seed: str | None = None, split: str = "dev"
) -> Built:
    """Raises :class:`Mislabelled` when runs contradict what the variant says of itself."""
    knobs = {**family.draw(seed), **variant.set}
    source = family.text(knobs)
    machine = _machine(variant, seed)
    preference = variant.preference
    name = f"{family.name}/{variant.name}"
    original = simulator.original(source, machine)
    pasted = _evidence(variant, machine, original, knobs)
    if variant.evidence is None:
        _check_original(name, variant, original)
    options = list(candidates(family, source))
    found = Found()
    resident = None
    if variant.verdict != "not_oom":
        reference = simulator.reference(source, machine)
        if reference.outcome != "ok":
            raise Mislabelled(f"{name}: does not even run without limits: {(reference.error or '')[-300:]}")
        resident = reference.seconds
        found = search(simulator, options, machine, preference.rules, resident, dead=source)
        if bool(found.passed) != (variant.verdict == "fixable"):
            raise Mislabelled(f"{name}: called {variant.verdict}, passed: {[c.name for c, _ in found.passed]}")
    elif variant.evidence is None:
        runs = [(c, simulator.graded(c.source, machine)) for c in options]
        found = Found(passed=[r for r in runs if r[1].outcome == "ok"])
    opened = (
        unlocks(simulator, options, machine, preference.rules, [run for _, run in found.failed], resident)
        if variant.verdict == "impossible"
        else ()
    )
    expected = Expected(
        verdict=variant.verdict, truth=_truth(variant, original), best=found.best if variant.verdict == "fixable" else None,
        unlock=opened, searched=len(found.passed) + len(found.failed), simulator=simulator_digest(),
    )  # fmt: skip
    files = {"script.py": source, **{f"evidence/{k}.txt": v for k, v in pasted.items()}}
    files |= _witnesses(found)
    files |= _wrong(family, variant, source, knobs, found)
    meta = {
        "family": family.name,
        "category": variant.category,
        "twin": f"{family.name}/{variant.twin}" if variant.twin else None,
        "split": split,
        "provenance": family.provenance.model_dump(),
        "machine": machine.model_dump(),
        "preference": preference.model_dump(),
        "expected": expected.model_dump(),
    }
    return Built(name, meta, files)


def question(family: Family, variant: Variant, seed: str) -> dict[str, Any]:
    """What a draw decides without a run: the script, the machine but for its libraries, the wish."""
    machine = _machine(variant, seed).model_dump(exclude={"versions"})
    source = family.text({**family.draw(seed), **variant.set})
    wish = variant.preference.model_dump()
    return {"id": f"{family.name}/{variant.name}", "script": source, "machine": machine, "preference": wish}


def write(built: Built, root: Path) -> Path:
    """The folder of a built scenario under ``root``; what was there before goes."""
    folder = root / built.id
    for old in sorted(folder.rglob("*"), reverse=True):
        old.unlink() if old.is_file() else old.rmdir()
    for name, text in {**built.files, "scenario.json": json.dumps(built.meta, indent=1) + "\n"}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def public_id(name: str) -> str:
    """What an agent sees in place of ``family/variant``."""
    return "s-" + hashlib.sha256(f"oom-doctor evals {name}".encode()).hexdigest()[:10]


def _machine(variant: Variant, seed: str | None) -> Machine:
    installed = {k: (v or "").partition("+")[0] or None for k, v in versions().items() if k in USUAL}
    others: dict[str, str | None] = {k: None for k in versions() if k not in USUAL}
    if variant.preference.rules.quantise == "allow" or variant.category in ("lora", "quantisation"):
        others |= {k: versions()[k] for k in ("bitsandbytes", "peft")}
    machine = variant.machine({**installed, **others})
    if seed is not None and variant.other_gpus:
        cards = (variant.gpu, *variant.other_gpus)
        pick = int(hashlib.sha256(f"{seed}/{variant.name}".encode()).hexdigest(), 16) % len(cards)
        machine = machine.model_copy(update={"gpu": cards[pick]})
    return machine


def _check_original(name: str, variant: Variant, original: Observed) -> None:
    wanted = "error" if variant.verdict == "not_oom" else "oom"
    if original.outcome != wanted:
        raise Mislabelled(f"{name}: the script as it is ends with {original.outcome}: {(original.error or '')[-300:]}")


def _evidence(variant: Variant, machine: Machine, original: Observed, knobs: dict[str, Any]) -> dict[str, str]:
    if variant.evidence is not None:
        return {"traceback": variant.evidence.replace("{prompt}", str(knobs.get("prompt"))).replace(
            "{steps}", str(knobs.get("steps")))}  # fmt: skip
    error = original.error or ""
    if error.startswith("Killed"):
        return {"traceback": "Killed\n", "dmesg": evidence.dmesg(machine, original.peak_host_bytes)}
    found = {"traceback": evidence.styled(error, variant.style, variant.os)}
    if variant.used_mib or variant.style == "smi":
        found["nvidia_smi"] = evidence.nvidia_smi(machine)
    return found


def _truth(variant: Variant, original: Observed) -> Truth:
    if variant.truth is not None:
        return variant.truth
    moment = original.oom_moment or {}
    ram = (original.error or "").startswith("Killed")
    return Truth(
        phase=moment.get("stage") or "load", component=moment.get("component") or None,
        resource="ram" if ram else "vram", root_cause=variant.root_cause,
    )  # fmt: skip


def _witnesses(found: Found) -> dict[str, str]:
    """The best answer, and one more that passes."""
    ranked = sorted(found.passed, key=lambda pair: (pair[1].seconds or 0, pair[0].name))
    return {f"pass/{candidate.name}.py": candidate.source for candidate, _ in ranked[:2]}


def _wrong(family: Family, variant: Variant, source: str, knobs: dict[str, Any], found: Found) -> dict[str, str]:
    """Candidates that failed, what the rules forbid, the family's own mistakes, and a smaller job."""
    files = {}
    for candidate, _ in found.failed[:2]:
        files[f"fail/{candidate.name}.py"] = candidate.source
    for name, edits in family.wrong.items():
        filled = tuple((old.format(**knobs), new.format(**knobs)) for old, new in edits)
        files[f"fail/{name}.py"] = edited(source, filled)
    if variant.verdict == "fixable" and found.passed:
        best = min(found.passed, key=lambda pair: pair[1].seconds or 0)[0]
        smaller = re.sub(r"num_inference_steps=(\d+)", "num_inference_steps=2", best.source)
        if smaller != best.source:
            files["fail/fewer-steps.py"] = smaller
    return files
