"""The sandbox of a run on Linux: Landlock for files, seccomp for the rest; bubblewrap where there is no Landlock.

Pure standard library: this runs in the user's interpreter, and the server asks :func:`sandbox_available` without torch.
"""

from __future__ import annotations

import functools
import os

from oomdoctor.trial.sandbox import bubblewrap, landlock, seccomp
from oomdoctor.trial.sandbox.policy import DEVICES, Isolation, Policy, own_files
from oomdoctor.trial.sandbox.syscalls import machine
from oomdoctor.trial.sandbox.verify import broken_promises

__all__ = ["Isolation", "Policy", "enter", "own_files", "sandbox_available", "why_not"]


@functools.cache
def sandbox_available() -> str | None:
    """The mechanism that would confine a run on this machine, None when there is none.

    A promise only: each run verifies its sandbox before it starts user code, and says so in its Trial.
    """
    if machine() is None or not seccomp.available():
        return None
    if landlock.abi():
        return "landlock + seccomp"
    return "bubblewrap + seccomp" if bubblewrap.works() else None


def why_not() -> str:
    """One sentence: what is missing for a sandbox here. Empty when nothing is."""
    if machine() is None:
        return "there is a sandbox on 64-bit Linux (x86_64, aarch64) only"
    if not seccomp.available():
        return "the kernel has no seccomp filters"
    if sandbox_available() is None:
        return "the kernel has no Landlock (Linux 5.13 or later, switched on) and bubblewrap is not usable here"
    return ""


def enter(policy: Policy) -> Isolation:
    """Confine this process for good and prove it. Without success: ``guards``, and why.

    For a freshly forked process without other threads. Half a sandbox is not undone; it only is not called one.
    """
    arch = machine()
    if policy.mode == "guards":
        return Isolation("guards", missing="it was switched off")
    if arch is None:
        return Isolation("guards", missing=why_not())
    try:
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            return Isolation("guards", missing=f"{threads} threads were running already")
        version = landlock.abi()
        if version:
            landlock.restrict(
                policy.readable(),
                (policy.scratch,),
                DEVICES,
                network=policy.allow_network,
                execute=policy.allow_processes,
            )
        elif not policy.outer:
            return Isolation("guards", missing=why_not() or "the process was not started in bubblewrap")
        filter_program = seccomp.program(
            arch,
            os.getpid(),
            network=policy.allow_network,
            processes=policy.allow_processes,
            old_landlock=0 < version < 3,
        )
        seccomp.install(filter_program, arch)
    except OSError as error:
        return Isolation("guards", missing=f"the kernel refused it: {error}")
    held, broken = broken_promises(policy)
    if broken:
        return Isolation("guards", missing="not everything holds: " + "; ".join(broken), promises=tuple(held))
    files = f"landlock {version}" if version else policy.outer
    return Isolation("sandbox", f"{files} + seccomp", promises=tuple(held))
