"""The door to the operating system's files and programs: what cannot be read is None, never an exception."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MOST_CHARACTERS = 4 << 20


@dataclass(frozen=True)
class System:
    """Files below ``root``, programs on the path, and environment variables. Tests give another root and ``run``."""

    root: Path = Path("/")
    platform: str = sys.platform
    """As ``sys.platform``: ``linux``, ``win32``, ``darwin``."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def path(self, name: str) -> Path:
        """Where the absolute ``name`` lies on this machine."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str | None:
        """The stripped text of a small file, or None when it is absent, forbidden or not a file."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as file:
                return file.read(_MOST_CHARACTERS).strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """The integer that a file holds, or None (``max``, empty, absent)."""
        text = self.read(name)
        try:
            return int(text) if text is not None else None
        except ValueError:
            return None

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def names(self, folder: str) -> list[str]:
        """Sorted names in ``folder``; empty when it cannot be listed."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def run(self, *command: str, timeout: float = 10.0) -> str | None:
        """What a program prints, or None when it is absent, fails or takes longer than ``timeout`` seconds."""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                text=True,
                errors="replace",
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout if done.returncode == 0 else None

    @property
    def wsl(self) -> bool:
        """Whether this is Linux inside Windows (WSL 1 or 2)."""
        return self.platform == "linux" and "microsoft" in (self.read("/proc/version") or "").lower()
