"""Patches that go in right after a library is imported, and only if it is.

A module that is in ``sys.modules`` already is patched at once. Names that other modules took from a patched module by
``from x import y`` are replaced in them too.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

Patch = Callable[[ModuleType], None]


class _Provider:
    """The loader of a module that we make ourselves."""

    def __init__(self, fill: Patch) -> None:
        self._fill = fill

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        self._fill(module)


class _Watcher:
    """A meta path finder that finds nothing itself: it wraps the loader of a watched module."""

    def __init__(self) -> None:
        self.patches: dict[str, list[Patch]] = {}
        self.provided: dict[str, tuple[Patch, Callable[[], bool]]] = {}
        self._searching: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        fill, wanted = self.provided.get(name, (None, None))
        if fill is not None and wanted is not None and wanted():
            loader: Any = _Provider(fill)
            return importlib.machinery.ModuleSpec(name, loader, origin="oomdoctor", is_package=True)
        if name not in self.patches or name in self._searching:
            return None
        self._searching.add(name)
        try:
            for finder in sys.meta_path:
                if finder is self:
                    continue
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    self._wrap(spec)
                    return spec
            return None
        finally:
            self._searching.discard(name)

    def _wrap(self, spec: importlib.machinery.ModuleSpec) -> None:
        loader: Any = spec.loader
        if loader is None:
            return
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.apply(spec.name, module)

        loader.exec_module = exec_module

    def apply(self, name: str, module: ModuleType) -> None:
        for patch in self.patches.get(name, ()):
            patch(sys.modules.get(name, module))


_watcher = _Watcher()


def after_import(name: str, patch: Patch) -> None:
    """Call ``patch(module)`` once the module ``name`` has been imported (now, if it is already)."""
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)
    _watcher.patches.setdefault(name, []).append(patch)
    module = sys.modules.get(name)
    if module is not None:
        patch(module)


def provide(name: str, fill: Patch, wanted: Callable[[], bool] = lambda: True) -> None:
    """Let ``import name`` give a module of ours, which ``fill(module)`` equips, as long as it is ``wanted``.

    One imported before stays.
    """
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)
    _watcher.provided.setdefault(name, (fill, wanted))


def replace(module: ModuleType, name: str, new: Any) -> None:
    """Put ``new`` in place of ``module.name``, there and in every module that imported it by name."""
    old = getattr(module, name, None)
    setattr(module, name, new)
    if old is None or old is new:
        return
    for other in list(sys.modules.values()):
        names = getattr(other, "__dict__", None)
        if isinstance(names, dict):
            for key in [k for k, v in list(names.items()) if v is old]:
                names[key] = new


def wrap_method(cls: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method, class method or static method by ``make(original)``; ``original`` takes the same arguments.

    A method that ``cls`` does not have, or that was wrapped before, is left alone.
    """
    raw = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    if raw is None:
        return
    inner = raw.__func__ if isinstance(raw, (classmethod, staticmethod)) else raw
    if getattr(inner, "__oomdoctor__", False):
        return
    made = functools.wraps(inner)(make(inner))
    made.__oomdoctor__ = True  # type: ignore[attr-defined]
    setattr(cls, name, type(raw)(made) if isinstance(raw, (classmethod, staticmethod)) else made)
