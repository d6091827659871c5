"""Weights that adapters would bring: which files a running adapter load expects (see ``lora``, ``ip_adapter``)."""

from __future__ import annotations

from pathlib import Path


def expected_file(repo_id: str, inside: str) -> Path | None:
    """A marker for a file that the adapter load under way asks for, or None outside one."""
    return None


def expected_names(repo_id: str) -> list[str]:
    """The files that a repository of the adapter load under way is taken to hold."""
    return []
