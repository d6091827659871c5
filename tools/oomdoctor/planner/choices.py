"""The techniques as the planner sees them: legal applications with their effects, and the reasons against the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from oomdoctor.errors import NotApplicable
from oomdoctor.planner.rules import Rules
from oomdoctor.techniques import all_techniques, check, resolved
from oomdoctor.techniques.base import Technique
from oomdoctor.techniques.context import Context
from oomdoctor.techniques.effects import (
    Effect,
    LoadOnce,
    MultiGpu,
    Place,
    Release,
    SpeedFactor,
    SplitBatch,
    Store,
)
from oomdoctor.values import (
    Application,
    Diagnosis,
    Known,
    Measurement,
    PipelineUse,
    Quality,
    Script,
    Span,
    Strategy,
    Target,
)

_PACKAGES = {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "gguf": "gguf", "quanto": "optimum-quanto",
             "xformers": "xformers", "sage": "sageattention"}  # fmt: skip
_NOWHERE = Span(line=1, column=0, end_line=1, end_column=0)


@dataclass(frozen=True, eq=False)
class Choice:
    """One application of one technique, with everything the planner needs to know about it."""

    application: Application
    effects: tuple[Effect, ...]
    name: str
    tags: frozenset[str] = frozenset()
    phase: int = 0
    quality: Quality = Quality.IDENTICAL
    group: str = "other"
    conflicts: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()
    """Distributions it needs that are not known to be installed."""
    summary: str = ""
    restores: bool = False
    """See :class:`Technique`."""

    @cached_property
    def rank(self) -> int:
        """Of the quality class, 0 is best."""
        return self.quality.rank

    @cached_property
    def quantises(self) -> bool:
        return "quantization" in self.tags

    @cached_property
    def kinds(self) -> frozenset[type]:
        return frozenset(type(e) for e in self.effects)

    @cached_property
    def stored(self) -> frozenset[str]:
        return frozenset(e.component for e in self.effects if isinstance(e, Store))

    @property
    def core(self) -> bool:
        """It decides where weights wait and in which format, so every combination with the others is tried."""
        return bool(self.kinds & {Place, Store, Release, MultiGpu})

    @property
    def hastens(self) -> bool:
        return self.kinds <= {SpeedFactor} and bool(self.kinds)

    def agrees(self, other: Choice) -> bool:
        """Both may stand in one strategy."""
        if self.name == other.name or self._excludes(other) or other._excludes(self):
            return False
        if Place in self.kinds and Place in other.kinds:
            return False
        if MultiGpu in self.kinds and MultiGpu in other.kinds:
            return False
        if self._stays(other) or other._stays(self):
            return False
        # A dtype for the whole pipeline goes with a format for a component: the nearer one holds.
        return not self.stored & other.stored

    def _stays(self, other: Choice) -> bool:
        """Weights converted on the host that would never leave the card: diffusers keeps the parameter itself as its own
        host copy when portions are pinned on demand, because ``.cpu()`` of a torchao tensor on the host is no copy."""
        on_host = {
            e.component
            for e in self.effects
            if isinstance(e, Store) and e.linear_only and not (e.on_card and e.at_load)
        }
        return any(
            isinstance(e, Place) and e.host == "pinned_on_demand" and (e.component == "*" or e.component in on_host)
            for e in other.effects
            if on_host
        )

    def _excludes(self, other: Choice) -> bool:
        return other.name in self.conflicts or bool(other.tags & self.conflicts)


@dataclass
class Offer:
    """What is legal here, and why the rest is not."""

    choices: list[Choice] = field(default_factory=list)
    illegal: dict[str, str] = field(default_factory=dict)


def context_of(
    measurement: Measurement, target: Target | None, script: Script | None, diagnosis: Diagnosis | None = None
) -> Context:
    """The context of the script's pipeline; without a script, of a bare pipeline of the measured class."""
    script = script or Script(sha256="")
    use = script.main or _bare(measurement)
    versions = dict(target.versions) if target is not None else {}
    return Context(
        script=script, use=use, measurement=measurement, target=target, versions=versions, diagnosis=diagnosis
    )


def _bare(measurement: Measurement) -> PipelineUse:
    return PipelineUse(
        variable="pipe",
        class_name=measurement.pipeline_class,
        loader="from_pretrained",
        model=Known(value=measurement.model, certainty="derived"),
        load_span=_NOWHERE,
        load_statement=_NOWHERE,
    )


def offer(context: Context, rules: Rules, techniques: Iterable[Technique] | None = None) -> Offer:
    """All legal applications that the rules allow."""
    out = Offer()
    for technique in all_techniques().values() if techniques is None else techniques:
        refusals: dict[str, str] = {}
        legal = 0
        for application in technique.options(context):
            full = technique.resolve(application, context)
            reason = technique.applies_to(context, full)
            choice = None if reason else choice_of(technique, full, context)
            reason = reason or _forbidden(choice, rules)
            if reason or choice is None:
                refusals[application.id] = reason or "not legal here"
                continue
            legal += 1
            if choice.effects:
                out.choices.append(choice)
        if legal:
            out.illegal |= refusals
        else:
            out.illegal[technique.name] = next(iter(refusals.values()), None) or _not_offered(technique, context)
    return out


def _not_offered(technique: Technique, context: Context) -> str:
    """Why a technique has nothing to offer: its own refusal, or that it would change nothing."""
    plain = technique.resolve(Application(technique=technique.name), context)
    return technique.applies_to(context, plain) or (
        f"legal, but not proposed by itself; ask for {technique.name} by name to have it priced. {technique.summary}"
    )


def choice_of(technique: Technique, application: Application, context: Context) -> Choice:
    """The planner's view of one application. What the script does already takes nothing from its picture anew."""
    return Choice(
        application=application,
        effects=technique.policy(application, context.measurement),
        name=technique.name,
        tags=frozenset(technique.tags),
        phase=int(technique.phase),
        quality=Quality.IDENTICAL if _there(technique, application, context) else technique.quality,
        group=technique.group,
        conflicts=frozenset(technique.conflicts),
        packages=_new_packages(technique, context),
        summary=technique.summary,
        restores=technique.restores,
    )


def _there(technique: Technique, application: Application, context: Context) -> bool:
    """The script has exactly that application, so the rewriter leaves it alone."""
    present = technique.read(context)
    return (
        present is not None
        and set(present.components) == set(application.components)
        and set(present.options) == set(application.options)
    )


def choices_of(strategy: Strategy, context: Context) -> list[Choice]:
    """The choices a strategy is made of.

    Raises :class:`UnknownStrategy` for a name or option that does not exist and :class:`NotApplicable` for a strategy
    that is not legal here.
    """
    reasons = check(strategy, context)
    if reasons:
        raise NotApplicable(f"{strategy.id} is not legal here: {' '.join(reasons)}")
    known = all_techniques()
    return [choice_of(known[a.technique], a, context) for a in resolved(strategy, context).applications]


def _forbidden(choice: Choice | None, rules: Rules) -> str | None:
    if choice is None:
        return None
    if rules.no_quantisation and "quantization" in choice.tags:
        return "you asked for no quantisation"
    if rules.no_new_packages and choice.packages:
        return f"it needs {', '.join(choice.packages)}, and you asked for no new packages"
    if rules.keep_batch and SplitBatch in choice.kinds:
        return "you asked to keep the batch together"
    if choice.quality.rank > rules.worst_quality.rank:
        return f"its quality class is {choice.quality.value}; you asked for {rules.worst_quality.value} or better"
    if choice.name in rules.without or choice.tags & set(rules.without):
        return "you asked to do without it"
    return None


def _new_packages(technique: Technique, context: Context) -> tuple[str, ...]:
    declared = getattr(technique, "packages", None)
    needed = tuple(declared) if declared is not None else tuple(p for w, p in _PACKAGES.items() if w in technique.name)
    return tuple(p for p in needed if context.versions.get(p) is None)


def loads_less(choice: Choice) -> bool:
    """It lowers the peak of host memory while loading."""
    return LoadOnce in choice.kinds
