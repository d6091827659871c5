"""Techniques, found by walking this folder: whatever module defines a subclass of :class:`Technique` is in.

>>> from oomdoctor.techniques import all_techniques, check, technique
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import replace
from functools import cache

from oomdoctor.errors import UnknownStrategy
from oomdoctor.techniques.base import Changes, Context, Phase, Refusal, Technique
from oomdoctor.values import Application, Strategy

__all__ = [
    "Changes", "Context", "Phase", "Refusal", "Technique", "all_techniques", "check", "existing", "ordered",
    "resolved", "technique",
]  # fmt: skip


@cache
def all_techniques() -> dict[str, Technique]:
    """Name -> technique, in the order in which they stand in a script."""
    found: dict[str, Technique] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for thing in vars(module).values():
            if not inspect.isclass(thing) or not issubclass(thing, Technique) or inspect.isabstract(thing):
                continue
            if thing.__module__.startswith(module.__name__) and hasattr(thing, "name"):
                if thing.name in found:
                    raise RuntimeError(f"two techniques are called {thing.name}")
                found[thing.name] = thing()
    return dict(sorted(found.items(), key=lambda pair: (pair[1].phase, pair[0])))


def technique(name: str) -> Technique:
    """The technique of that name.

    Raises :class:`UnknownStrategy` with the names that exist.
    """
    known = all_techniques()
    if name not in known:
        raise UnknownStrategy(
            f"There is no technique {name!r}. These exist: {', '.join(sorted(known))}. A strategy is written like "
            "model_offload+fp8_casting(transformer)+vae_tiling."
        )
    return known[name]


def validate(application: Application) -> None:
    """Raises :class:`UnknownStrategy` when the technique, a word or an option of it does not exist."""
    known = technique(application.technique)
    if known.words not in ("components", "any"):
        for word in application.components:
            if word not in known.words:
                allowed = f"one of {', '.join(known.words)}" if known.words else "no such word"
                raise UnknownStrategy(f"{application.id}: {known.name} takes {allowed}, not {word!r}.")
    for key, value in application.options:
        types = known.keys.get(key, known.component_keys)
        if not types:
            allowed = ", ".join(f"{k}=..." for k in known.keys) or "no options"
            raise UnknownStrategy(f"{application.id}: {key!r} is not an option of {known.name}; it takes {allowed}.")
        if type(value) not in types:
            wanted = " or ".join(t.__name__ for t in types)
            raise UnknownStrategy(f"{application.id}: {key} must be {wanted}, not {value!r}.")


def ordered(strategy: Strategy) -> Strategy:
    """The same applications in the order in which they are written into a script."""
    ranked = sorted(strategy.applications, key=lambda a: technique(a.technique).phase)
    return Strategy(applications=tuple(ranked))


def resolved(strategy: Strategy, context: Context) -> Strategy:
    """Ordered, with every default filled in for this script.

    Raises :class:`UnknownStrategy` for names and options that do not exist.
    """
    for application in strategy.applications:
        validate(application)
    context = replace(context, strategy=strategy)
    applications = ordered(strategy).applications
    return Strategy(applications=tuple(technique(a.technique).resolve(a, context) for a in applications))


def check(strategy: Strategy, context: Context) -> tuple[str, ...]:
    """Why the strategy is not legal here, one sentence per reason; empty when it is."""
    context = replace(context, strategy=strategy)
    names = [a.technique for a in strategy.applications]
    reasons = [f"{n} is named twice." for n in dict.fromkeys(names) if names.count(n) > 1]
    applications = resolved(strategy, context).applications
    for application in applications:
        why = technique(application.technique).applies_to(context, application)
        if why:
            reasons.append(f"{application.technique}: {why}")
    for index, one in enumerate(applications):
        for other in applications[index + 1 :]:
            if _clash(technique(one.technique), technique(other.technique)):
                reasons.append(f"{one.technique} and {other.technique} cannot be combined; choose one of them.")
    return tuple(dict.fromkeys(reasons))


def _clash(one: Technique, other: Technique) -> bool:
    if one.name == other.name:
        return False
    return bool({other.name, *other.tags} & set(one.conflicts) or {one.name, *one.tags} & set(other.conflicts))


def clashes(one: str, other: str) -> bool:
    """Two techniques, by name, that cannot stand side by side."""
    return _clash(technique(one), technique(other))


def existing(context: Context) -> Strategy:
    """What the script does already, as a strategy."""
    found = (t.read(context) for t in all_techniques().values())
    return Strategy(applications=tuple(a for a in found if a is not None))
