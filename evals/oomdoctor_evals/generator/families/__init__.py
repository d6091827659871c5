"""The families. Each module of this folder has a ``FAMILIES`` tuple; nothing else needs to know of a new one."""

from __future__ import annotations

import importlib
import pkgutil

from oomdoctor_evals.generator.family import Family


def all_families() -> tuple[Family, ...]:
    """Every family of every module here, by name."""
    found: list[Family] = []
    for module in pkgutil.iter_modules(__path__):
        found += importlib.import_module(f"{__name__}.{module.name}").FAMILIES
    return tuple(sorted(found, key=lambda family: family.name))
