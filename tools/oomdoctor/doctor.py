"""The closed loop: diagnose, measure, plan, rewrite, prove, explain.

Everything that needs torch runs in a child of the user's interpreter (:mod:`oomdoctor.trial`); a :class:`Doctor` keeps
that child warm between steps. Without consent the user's own code is never run: a *call run* executes a script that
we generate from what was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from oomdoctor import explain
from oomdoctor.diagnosis import diagnose
from oomdoctor.errors import NoConsent, NotApplicable, OomDoctorError, TrialFailed, UnknownModel
from oomdoctor.job import Job
from oomdoctor.models import CATALOGUE, hf_cache, resolve
from oomdoctor.models.download import with_first_load
from oomdoctor.planner import Prefer, Rules, compute_strategies
from oomdoctor.rewrite import rewrite
from oomdoctor.rewrite.promise import broken
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness, run_together
from oomdoctor.script.plain import plainly
from oomdoctor.trial import Live, Policy, Zygote, cache, run_unlimited, run_virtual, to_measurement
from oomdoctor.trial.real.runner import Mode, RealRun, run_real
from oomdoctor.values import Cure, Diagnosis, Kind, Measurement, Patch, Plan, StrategyOption, Target, Trial

Progress = Callable[[str, str], None]
"""Told what happens now: (phase, words)."""

TRIALS_AT_MOST = 5
"""How many strategies are rewritten and run before the loop gives up."""


@dataclass
class Doctor:
    """Does all the steps for one machine. Use as a context manager: it owns a child process."""

    target: Target
    python: str | None = None
    configs: tuple[str, ...] = ()
    like: dict[str, str] = field(default_factory=dict)
    run_scripts: bool = False
    """Consent to execute the user's own file in virtual runs; otherwise a generated call stands in for it."""
    timeout: float = 300.0
    progress: Progress | None = None
    live: Live | None = None
    """Told how far a run is, a few times a second."""
    policy: Policy | None = None
    """How runs are isolated; None: as well as this machine can."""
    _zygote: Zygote | None = None
    _classes: tuple[str, ...] = ()
    """What the child imports once, before the first run."""

    def __enter__(self) -> Doctor:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    # ------------------------------------------------------------------ steps
    def measure(self, job: Job) -> Measurement:
        """One recorded call on an unlimited card. Runs no user code.

        Raises :class:`UnknownModel` when nothing describes a model of the script.
        """
        use = job.script.main
        assert use is not None
        source = self.plain_call(job)
        self._expect(job)
        key = cache.key(
            source, card=self.target.card, versions=self._library_versions(), configs=self.configs, like=self.like
        )
        known = cache.read(key)
        if known is not None:
            return known
        self._tell("measuring", "one call on an unlimited virtual card")
        answer = run_unlimited(self.zygote, source, card=self.target.card, timeout=self.timeout, progress=self._stage)
        if answer["outcome"] != "ok":
            raise _failure(answer)
        call: dict[str, object] = {
            k: v for k, v in answer.get("made", {}).items() if use.calls and (k != "num_frames" or v > 1)
        }
        call |= {k: v.value for k, v in use.calls[0].arguments.items() if v.value is not None} if use.calls else {}
        measurement = to_measurement(
            answer,
            pipeline_class=use.class_name or "DiffusionPipeline",
            model=str(use.model.value),
            call=call,
            timed_on=self.target.card.name,
        )
        uses = sorted(run_together(job.script), key=lambda u: u is use)
        measurement = with_first_load(measurement, uses, configs=self.configs, like=self.like)
        cache.write(key, measurement)
        return measurement

    def plan(self, job: Job, measurement: Measurement, *, prefer: Prefer = "balanced", rules: Rules | None = None,
             limit: int = 6, detail: bool = False, diagnosis: Diagnosis | None = None) -> Plan:  # fmt: skip
        """The strategies that fit the target, ranked; estimates only. ``diagnosis``: of what is to be cured."""
        self._tell("planning", "folding the techniques over the measurement")
        return compute_strategies(
            measurement,
            self.target.model_copy(update={"versions": self.versions}),
            script=job.script,
            diagnosis=diagnosis,
            prefer=prefer,
            rules=rules or Rules(),
            limit=limit,
            detail=detail,
        )

    def patch(self, job: Job, option: StrategyOption, measurement: Measurement | None = None) -> Patch:
        """The script with the strategy written in."""
        return rewrite(
            job.source, option.strategy, script=job.script, measurement=measurement, target=self.target,
            versions=self.versions,
        )  # fmt: skip

    def prove(
        self,
        job: Job,
        source: str | None = None,
        *,
        target: Target | None = None,
        timeline: bool = False,
        on_snapshot: Callable[[dict[str, Any]], None] | None = None,
    ) -> Trial:
        """Run ``source`` (default: the job's own) on the virtual card of ``target`` (default: the doctor's).

        ``timeline`` and ``on_snapshot``: see :func:`oomdoctor.trial.run_virtual`.
        """
        target = target or self.target
        self._expect(job)
        source = job.source if source is None else source
        ran = "script" if self.run_scripts else "call"
        script = job.script if source == job.source else read_script(source)
        text = source if self.run_scripts else harness(script)
        return run_virtual(
            self.zygote,
            text,
            card=target.card,
            ran=ran,
            path=job.path if self.run_scripts else "generated_call.py",
            argv=job.argv,
            vram_bytes=target.vram_bytes,
            ram_bytes=target.ram_bytes,
            count=target.gpu_count,
            script=script,
            timeout=self.timeout,
            progress=self._stage,
            live=self.live,
            timeline=timeline,
            on_snapshot=on_snapshot,
        )

    def prove_really(
        self,
        job: Job,
        source: str | None = None,
        *,
        mode: Mode = "probe",
        limit_bytes: int | None = None,
        times: int = 1,
        save_to: str | None = None,
    ) -> Trial:
        """Run ``source`` (default: the job's own) on this machine's GPU, with the user's rights.

        See :class:`oomdoctor.trial.real.runner.RealRun` for the options. Raises :class:`NoGpu`, :class:`NoConsent`.
        """
        if not self.run_scripts:
            raise NoConsent("A run on the real GPU executes the script itself; that needs consent (drop --no-exec).")
        source = job.source if source is None else source
        run = RealRun(source, path=job.path, argv=job.argv, mode=mode, limit_bytes=limit_bytes, times=times,
                      save_to=save_to, timeout=max(self.timeout, 900.0))  # fmt: skip
        script = job.script if source == job.source else read_script(source)
        return run_real(run, python=self.python, script=script, progress=self._stage)

    # ------------------------------------------------------------------ the loop
    def fix(
        self,
        job: Job,
        traceback: str | None = None,
        *,
        prefer: Prefer = "balanced",
        rules: Rules | None = None,
        really: bool = False,
    ) -> Cure:
        """From the script (and its traceback) to a patch that was run, or an honest no.

        ``really``: what finished on the virtual card is run on this machine's GPU too; a death there corrects the
        estimates by what it showed, and the next strategy is tried.
        """
        diagnosis = diagnose(traceback, script=job.script) if traceback else None
        if diagnosis is not None and diagnosis.kind is Kind.NOT_MEMORY:
            return Cure(diagnosis=diagnosis, why=diagnosis.cause, explanation=explain.not_memory(diagnosis))
        self._tell("proving", "the script as it is, on the virtual card")
        original = self.prove(job)
        if original.outcome == "error":
            raise TrialFailed(
                "the script as it is does not run on the virtual card for another reason than memory; "
                f"that has to be solved first:\n{original.error}"
            )
        measurement = self.measure(job)
        plan = self.plan(job, measurement, prefer=prefer, rules=rules, diagnosis=diagnosis or original.diagnosis)
        notes = list(plan.notes)
        if diagnosis is None:
            diagnosis = original.diagnosis
        elif note := explain.disagreement(diagnosis, original):
            notes.append(note)
        if original.outcome == "ok" and traceback is None:
            return self._fits_already(job, diagnosis, original, plan)
        tried: list[StrategyOption] = []
        correction = 1.0
        for option in plan.strategies[:TRIALS_AT_MOST]:
            if not option.strategy.applications:
                continue
            if correction > 1.0 and option.estimate.needed_vram_bytes * correction > self.target.vram_bytes:
                notes.append(f"{option.id} is passed over: corrected by the real run, its estimate no longer fits.")
                continue
            proven = self._try(job, option, measurement, notes)
            if proven is None:
                continue
            patch, trial = proven
            shown = explain.with_trial(option, trial, self.target)
            if trial.outcome == "ok" and really:
                real = self.prove_really(job, patch.source)
                if real.outcome == "ok":
                    shown = explain.measured(shown, real)
                    cure = self._cure(job, diagnosis, shown, patch, original, trial, plan, tried, notes)
                    return cure.model_copy(update={"real_trial": real})
                correction = max(correction, self.target.vram_bytes / max(1, shown.estimate.needed_vram_bytes))
                notes.append(explain.died_really(option.id, real))
                tried.append(shown)
                continue
            if trial.outcome == "ok":
                return self._cure(job, diagnosis, shown, patch, original, trial, plan, tried, notes)
            tried.append(shown)
            notes.append(
                f"{option.id} was estimated to fit but ended with {trial.outcome} when it was run; passed over."
            )
        return Cure(
            diagnosis=diagnosis,
            why=explain.nothing_fits(plan, self.target),
            original_trial=original,
            alternatives=(),
            none_fits=True,
            unlock=plan.unlock,
            explanation=explain.nothing_fits(plan, self.target),
            notes=tuple(notes),
        )

    def _try(
        self, job: Job, option: StrategyOption, measurement: Measurement, notes: list[str]
    ) -> tuple[Patch, Trial] | None:
        """Rewrite and run one option; None when it cannot be written into this script."""
        try:
            patch = self.patch(job, option, measurement)
        except NotApplicable as reason:
            notes.append(f"{option.id} is left out: {reason}")
            return None
        if not patch.changed:
            return None
        if lost := broken(job.script, read_script(patch.source)):
            notes.append(f"{option.id} is left out: its patch would change the work ({'; '.join(lost)}).")
            return None
        self._tell("proving", option.id)
        return patch, self.prove(job, patch.source)

    def _cure(
        self,
        job: Job,
        diagnosis: Diagnosis | None,
        chosen: StrategyOption,
        patch: Patch,
        original: Trial,
        trial: Trial,
        plan: Plan,
        tried: list[StrategyOption],
        notes: list[str],
    ) -> Cure:
        dead = {t.id for t in tried}
        others = tuple(o for o in plan.strategies if o.id != chosen.id and o.id not in dead and o.strategy.applications)
        why = explain.why(chosen, others, self.target)
        return Cure(
            diagnosis=diagnosis,
            strategy=chosen.strategy,
            why=why,
            patch=patch,
            original_trial=original,
            trial=trial,
            alternatives=(chosen, *others),
            explanation=explain.cure(diagnosis, chosen, original, trial, self.target, job.script),
            notes=tuple(notes),
        )

    def _fits_already(self, job: Job, diagnosis: Diagnosis | None, original: Trial, plan: Plan) -> Cure:
        text = explain.fits_already(original, self.target)
        return Cure(
            diagnosis=diagnosis,
            why=text,
            original_trial=original,
            trial=original,
            alternatives=plan.strategies,
            explanation=text,
        )

    # ------------------------------------------------------------------ parts
    @property
    def zygote(self) -> Zygote:
        """The warm child, started on first use."""
        if self._zygote is None:
            self._tell("starting", "importing torch and diffusers in the child process")
            cache = hf_cache()
            loading: dict[str, Any] = {
                "catalogue": str(CATALOGUE),
                "configs": list(self.configs),
                "like": self.like,
                "hf_cache": str(cache) if cache else None,
            }
            zygote = Zygote(self.python, self.target.card, loading, policy=self.policy, warm=self._classes)
            zygote.start()
            self._zygote = zygote
        return self._zygote

    @property
    def versions(self) -> dict[str, str | None]:
        """Of the user's interpreter: what the target says, and what the child found."""
        found: dict[str, str | None] = dict(self._zygote.versions) if self._zygote else {}
        return {**self.target.versions, **found}

    def _library_versions(self) -> dict[str, str | None]:
        """Versions in the user's interpreter: as found without importing anything, else as the child says."""
        found = dict(self.target.versions)
        return found if all(found.get(name) for name in cache.NEEDED) else {**found, **self.zygote.versions}

    def plain_call(self, job: Job) -> str:
        """The generated call without the script's own memory techniques, everything on the card: what is measured."""
        use = job.script.main
        assert use is not None
        if use.model.value is None:
            raise UnknownModel(
                f"The model that {use.variable} loads could not be read from the script "
                f"({use.model.text or 'no literal id'}). Write the id as a literal, or run "
                "`oom-doctor measure --model ID`."
            )
        resolve(str(use.model.value), configs_dir=list(self.configs) or None, like=self.like.get(str(use.model.value)))
        return harness(plainly(job.script))

    def _expect(self, job: Job) -> None:
        """Let the child import the classes of the script's model before it forks its first run."""
        use = job.script.main
        if use is None or use.model.value is None or self._zygote is not None:
            return
        model = str(use.model.value)
        try:
            files = resolve(model, configs_dir=list(self.configs) or None, like=self.like.get(model))
        except OomDoctorError:
            return  # whoever needs the model will say so
        parts = [f"{part.library}.{part.class_name}" for part in files.components]
        self._classes = tuple(dict.fromkeys((f"diffusers.{use.class_name or files.pipeline_class}", *parts)))

    def _tell(self, phase: str, words: str) -> None:
        if self.progress is not None:
            self.progress(phase, words)

    def _stage(self, stage: str, component: str | None) -> None:
        self._tell(stage, component or "")


def _failure(answer: dict[str, Any]) -> Exception:
    text = answer.get("error") or "no reason given"
    return TrialFailed(f"the call could not be measured ({answer['outcome']}):\n{text}")
