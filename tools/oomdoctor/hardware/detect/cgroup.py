"""The memory limit of the container or slice that this process runs in (cgroup v1 and v2), and what is used of it.

A limit may sit on any level above the process: every level from its own group up to the mounted root is read, and the
one that leaves least room counts. See https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from oomdoctor.hardware.detect.system import System


class Limit(NamedTuple):
    limit_bytes: int
    used_bytes: int
    """Without file pages that the kernel can drop: those do not get anyone killed."""

    @property
    def room_bytes(self) -> int:
        return max(0, self.limit_bytes - self.used_bytes)


class _Mount(NamedTuple):
    root: PurePosixPath
    """Which group of the hierarchy the mount point shows."""
    point: PurePosixPath
    version: int


def memory_limits(system: System) -> tuple[Limit, ...]:
    """Every limit that applies to this process, tightest first; empty when there is none."""
    found = []
    for mount, group in _groups(system):
        for folder in _levels(mount, group):
            limit = _limit_v2(system, folder) if mount.version == 2 else _limit_v1(system, folder)
            if limit is not None:
                found.append(limit)
    return tuple(sorted(found, key=lambda limit: limit.room_bytes))


def _limit_v2(system: System, folder: str) -> Limit | None:
    limit = system.number(f"{folder}/memory.max")  # "max" is no number
    if limit is None:
        return None
    used = system.number(f"{folder}/memory.current") or 0
    return Limit(limit, max(0, used - _stat(system, folder, "inactive_file")))


def _limit_v1(system: System, folder: str) -> Limit | None:
    limits = [system.number(f"{folder}/memory.limit_in_bytes")]
    # Set by the kernel to the least of all levels above, also those that this container cannot see.
    limits.append(_stat(system, folder, "hierarchical_memory_limit") or None)
    known = [n for n in limits if n is not None]
    if not known:
        return None
    used = system.number(f"{folder}/memory.usage_in_bytes") or 0
    return Limit(min(known), max(0, used - _stat(system, folder, "total_inactive_file")))


def _stat(system: System, folder: str, key: str) -> int:
    for line in (system.read(f"{folder}/memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdigit():
            return int(value)
    return 0


def _groups(system: System) -> Iterator[tuple[_Mount, PurePosixPath]]:
    """The mounts that hold memory controllers, each with this process's group in that hierarchy."""
    mounts = list(_mounts(system))
    for line in (system.read("/proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        version = 2 if number == "0" and not controllers else 1 if "memory" in controllers.split(",") else None
        for mount in mounts:
            if mount.version == version:
                yield mount, PurePosixPath(group)


def _mounts(system: System) -> Iterator[_Mount]:
    for line in (system.read("/proc/self/mountinfo") or "").splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        version = 2 if kind[0] == "cgroup2" else 1 if kind[0] == "cgroup" and "memory" in kind[2].split(",") else None
        if version:
            yield _Mount(PurePosixPath(_plain(fields[3])), PurePosixPath(_plain(fields[4])), version)


def _plain(text: str) -> str:
    """mountinfo writes blanks as octal."""
    return text.replace("\\040", " ")


def _levels(mount: _Mount, group: PurePosixPath) -> Iterator[str]:
    """Folders from the process's own group up to the mount point."""
    # A container without a cgroup namespace names its group from the host's root but sees it at the mount point.
    inside = group.relative_to(mount.root) if group.is_relative_to(mount.root) else PurePosixPath()
    if ".." in inside.parts:  # the group lies above what this namespace may see
        inside = PurePosixPath()
    inside = PurePosixPath(*[part for part in inside.parts if part != "/"])
    for level in (inside, *inside.parents):
        yield str(mount.point / level)
        if level == PurePosixPath():
            return
