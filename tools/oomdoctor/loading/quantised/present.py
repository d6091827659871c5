"""Which distributions the interpreter really has, whatever stands in for them."""

from __future__ import annotations

import importlib.metadata


def is_installed(distribution: str) -> bool:
    """Whether the interpreter has the distribution."""
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
