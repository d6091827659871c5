"""Keeping the suite sound: check it, build it, draw a held-out set, grade a single answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from oomdoctor.errors import InputError

from oomdoctor_evals import evidence
from oomdoctor_evals.exploits import exploits as all_exploits
from oomdoctor_evals.generator.build import Mislabelled, build, write
from oomdoctor_evals.generator.families import all_families
from oomdoctor_evals.generator.heldout import LOCK, drop_single_twins, generate, lock_of
from oomdoctor_evals.grader import grade
from oomdoctor_evals.inspection.answers import answer_in
from oomdoctor_evals.loader import SCENARIOS, load
from oomdoctor_evals.sim.cache import Cache
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import Answer, Attempt, Machine, Scenario


def check(scenarios: Sequence[Scenario], cache: Cache, *, exploits: bool = False) -> int:
    """Print what is unsound; 1 when something is."""
    found = 0
    with Simulator(cache) as simulator:
        for scenario in scenarios:
            for problem in unsound(scenario, simulator, exploits=exploits):
                found += 1
                print(f"{scenario.id}: {problem}", flush=True)
    print(f"{len(scenarios)} scenarios, {found} problems")
    return 1 if found else 0


def unsound(scenario: Scenario, simulator: Simulator, *, exploits: bool = False) -> Iterator[str]:
    """Witnesses must pass, wrong answers must not, the oracle scores, exploits and doing nothing score 0."""
    from oomdoctor_evals.agents import agent

    def score(name: str, answer: Answer | None) -> bool:
        attempt = Attempt(scenario=scenario.id, agent=name, answer=answer)
        return grade(scenario, attempt, simulator).fit.get("1.25", False)

    if not score("oracle", agent("oracle").attempt(scenario).answer):
        yield "the oracle does not score"
    for name, source in scenario.wrong.items():
        if score(name, Answer(verdict="fixable", patched_script=source)):
            yield f"the wrong answer {name} scores"
    if score("noop", agent("noop").attempt(scenario).answer):
        yield "doing nothing scores"
    for name, cheat in all_exploits().items() if exploits else ():
        answer = cheat.answer(scenario)
        if answer is not None and score(name, answer):
            yield f"the exploit {name} scores"


def make(out: Path | None, only: Sequence[str], cache: Cache) -> int:
    """Build families into folders; variants that contradict their label are printed and left out. 1 when any was."""
    root, written, wrong = out or SCENARIOS, [], 0
    with Simulator(cache) as simulator:
        for family in all_families():
            for variant in family.variants:
                name = f"{family.name}/{variant.name}"
                if only and not any(text in name for text in only):
                    continue
                try:
                    written.append(write(build(simulator, family, variant), root))
                    print(name, flush=True)
                except Mislabelled as reason:
                    wrong += 1
                    print(f"left out: {reason}", flush=True)
    if not only:
        drop_single_twins(written)
    return 1 if wrong else 0


def heldout(seed: str, root: Path | None, cache: Cache) -> int:
    """Draw a set and build it into ``root``; without a folder, only pin what would be drawn."""
    if root is None:
        LOCK.write_text(json.dumps(lock_of(seed), indent=1) + "\n", encoding="utf-8")
        print(LOCK)
        return 0
    with Simulator(cache) as simulator:
        generate(seed, root, simulator, tell=lambda text: print(text, file=sys.stderr, flush=True))
    return 0


def make_evidence(script: Path, gpu: str, ram_gib: float, used_mib: int, style: str) -> int:
    """Run a script on a machine and print its error in that style; 1 when it runs."""
    try:
        source = script.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{script} cannot be read: {error.strerror}.") from None
    machine = Machine(gpu=gpu, ram_mib=int(ram_gib * 1024), used_by_others_mib=used_mib)
    with Simulator(Cache(None)) as simulator:
        run = simulator.original(source, machine)
    if run.outcome == "ok":
        print("The script runs on that machine.", file=sys.stderr)
        return 1
    if (run.error or "").startswith("Killed"):
        print("Killed\n" + evidence.dmesg(machine, run.peak_host_bytes), end="")
    else:
        print(evidence.styled(run.error or "", style), end="")
    return 0


def grade_file(folder: Path, answer: Path, reward: Path | None) -> int:
    """Grade one answer; prints the grade as JSON. 0 for fit@1.25, 1 otherwise."""
    places = [folder] if (folder / "scenario.json").is_file() else [p.parent for p in folder.glob("*/*/scenario.json")]
    if len(places) != 1:
        raise InputError(f"{folder} holds {len(places)} scenarios; give the folder of one.")
    scenario = load(places[0])
    try:
        said, why = answer_in(answer.read_text(encoding="utf-8"))
    except OSError as error:
        said, why = None, f"no answer: {error.strerror}"
    attempt = Attempt(scenario=scenario.id, agent="answer", answer=said, error=why)
    with Simulator() as simulator:
        found = grade(scenario, attempt, simulator)
    passed = found.fit.get("1.25", False)
    if reward is not None:
        reward.parent.mkdir(parents=True, exist_ok=True)
        reward.write_text("1\n" if passed else "0\n", encoding="utf-8")
    print(found.model_dump_json(indent=1))
    return 0 if passed else 1
