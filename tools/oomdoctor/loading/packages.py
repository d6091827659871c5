"""Versions of packages that a stand-in replaces although the interpreter does not have them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

_versions: dict[str, str] = {}


def pretend(versions: Mapping[str, str]) -> None:
    """Let ``importlib.metadata.version`` answer for packages that are not installed, and only for those."""
    _versions.update(versions)
    original: Callable[[str], str] = importlib.metadata.version
    if getattr(original, "__oomdoctor__", False):
        return

    def version(distribution_name: str) -> Any:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name in _versions:
                return _versions[distribution_name]
            raise

    version.__oomdoctor__ = True  # type: ignore[attr-defined]
    importlib.metadata.version = version
