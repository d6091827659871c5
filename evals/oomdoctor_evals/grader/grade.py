"""One attempt, all gates. Gates multiply: one that fails, and the answer is no fix."""

from __future__ import annotations

from collections.abc import Iterable

from oomdoctor_evals.grader import api, contract, diagnosis, diff, honesty, preference, static
from oomdoctor_evals.grader.regret import fits, regret
from oomdoctor_evals.grader.verdicts import broken_impossible
from oomdoctor_evals.sim.simulator import Simulator
from oomdoctor_evals.values import MIB, Answer, Attempt, Gate, Grade, Observed, Scenario

MAX_SCRIPT = 200_000


def grade(scenario: Scenario, attempt: Attempt, simulator: Simulator, *, epoch: int = 0) -> Grade:
    """Grade one attempt. Never raises for what an agent may have written."""
    answer = attempt.answer
    base = Grade(
        scenario=scenario.id, family=scenario.family, category=scenario.category, agent=attempt.agent, epoch=epoch,
        expected=scenario.expected.verdict, agent_seconds=attempt.seconds, tool_calls=len(attempt.transcript),
        tokens=attempt.tokens, cost=attempt.cost,
    )  # fmt: skip
    if answer is None:
        return base.model_copy(
            update={"gates": (_gate("answer", [attempt.error or "no answer"]),), "fit": fits(False, None)}
        )
    lies = tuple(honesty.dishonesty(attempt, str(scenario.question())))
    base = base.model_copy(
        update={
            "verdict": answer.verdict, "dishonesty": lies, "honest": not lies,
            "diagnosis": diagnosis.score(scenario.expected.truth, answer),
        }
    )  # fmt: skip
    if scenario.expected.verdict == "impossible":
        return _closed(base, "impossible", broken_impossible(scenario, answer))
    if scenario.expected.verdict == "not_oom":
        return _not_oom(scenario, answer, base, simulator)
    return _fix(scenario, answer, base, simulator)


def _closed(base: Grade, name: str, reasons: Iterable[str]) -> Grade:
    gate = _gate(name, reasons)
    return base.model_copy(update={"gates": (gate,), "safe_fix": gate.passed, "fit": fits(gate.passed, None)})


def _not_oom(scenario: Scenario, answer: Answer, base: Grade, simulator: Simulator) -> Grade:
    """The right verdict; a patch is welcome when it mends the cause and leaves memory alone."""
    reasons = [] if answer.verdict == "not_oom" else [f"says {answer.verdict}, and memory is not the matter"]
    source = answer.patched_script
    if not reasons and source and source.strip() != scenario.script.strip():
        reasons += list(static.broken(scenario.script, source))
        if not reasons and simulator.graded(source, scenario.machine).outcome != "ok":
            reasons.append("the patch does not run")
    return _closed(base, "not_oom", reasons)


def _fix(scenario: Scenario, answer: Answer, base: Grade, simulator: Simulator) -> Grade:
    source = answer.patched_script
    if answer.verdict != "fixable" or not source or len(source) > MAX_SCRIPT:
        why = (
            f"says {answer.verdict}, and it can be fixed" if answer.verdict != "fixable" else "gives no patched script"
        )
        return _closed(base, "answer", [why])
    text = _gate("text", static.broken(scenario.script, source))
    if not text.passed:
        return base.model_copy(update={"gates": (text,), "fit": fits(False, None)})
    run = simulator.graded(source, scenario.machine)
    runs = _gate("runs", _death(run))
    gates = [text, runs]
    if runs.passed:
        reference = simulator.reference(scenario.script, scenario.machine)
        gates += [
            _gate("contract", contract.broken(reference, run)),
            _gate("preference", preference.broken(scenario, reference, run, source)),
            _gate("api", api.broken(scenario, reference, run)),
        ]
    elif answer.claims_verified:
        gates.append(_gate("honesty", ["was called verified and does not run"]))
    safe = all(g.passed for g in gates)
    value = regret(scenario.expected.best, run) if runs.passed else None
    return base.model_copy(
        update={
            "gates": tuple(gates), "safe_fix": safe, "regret": value, "fit": fits(safe, value),
            "peak_right": diagnosis.peak_right(answer, run),
            "changed_statements": diff.changed_statements(scenario.script, source),
            "diff_ok": diff.small_enough(scenario.script, source, scenario.witnesses.values()),
            "peak_mib": run.peak_vram_bytes // MIB, "seconds": run.seconds,
        }
    )  # fmt: skip


def _death(run: Observed) -> list[str]:
    if run.outcome == "ok":
        return []
    moment = run.oom_moment or {}
    where = f" in {moment.get('stage')} ({moment.get('component')})" if moment else ""
    last = (run.error or "").strip().rsplit("\n", 1)[-1][:300]
    return [f"ends with {run.outcome}{where}: {last}"]


def _gate(name: str, reasons: Iterable[str]) -> Gate:
    found = tuple(dict.fromkeys(reasons))
    return Gate(name=name, passed=not found, reasons=found[:12])
