"""Landlock: which files this process may read and write, by path, from now on and for good.

Structures and bits as in the kernel's ``include/uapi/linux/landlock.h``; which of them exist is asked, not guessed.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from oomdoctor.trial.sandbox import kernel

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = 1 << 8, 1 << 9, 1 << 10, 1 << 11
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = 1 << 12, 1 << 13, 1 << 14, 1 << 15

SINCE = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
"""ABI version -> the file rights that came with it."""
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule on a file, not a folder, may carry."""
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE

NET_TCP = 0b11
"""bind and connect, ABI 4."""
SCOPED = 0b11
"""abstract unix sockets and signals, ABI 6."""


class RulesetAttr(ctypes.Structure):
    """``struct landlock_ruleset_attr``; an older kernel takes a shorter one."""

    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class PathBeneathAttr(ctypes.Structure):
    """``struct landlock_path_beneath_attr``, packed: 12 bytes."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def abi() -> int:
    """Version of Landlock that the running kernel offers; 0 when it has none or it is switched off."""
    try:
        return kernel.syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def handled(version: int) -> int:
    """All file rights that ``version`` knows."""
    return sum(bits for since, bits in SINCE.items() if since <= version)


def restrict(read: Iterable[str], write: Iterable[str], devices: Iterable[str], *, network: bool, execute: bool) -> int:
    """Only ``read`` may be read and only ``write`` written from now on; ``devices`` may be both. Returns the ABI.

    Covers the calling thread and those it starts: call it before any other thread exists. ``network``: TCP stays
    allowed; ``execute``: programs under ``read`` may be started. Raises OSError where the kernel refuses.
    """
    version = abi()
    if version < 1:
        raise OSError("the kernel has no Landlock, or it is switched off")
    known = handled(version)
    attr = RulesetAttr(known, NET_TCP if version >= 4 and not network else 0, SCOPED if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = kernel.syscall(CREATE_RULESET, ctypes.addressof(attr), size, 0)
    try:
        for path in read:
            _allow(ruleset, path, (READ | (EXECUTE if execute else 0)) & known)
        for path in write:
            _allow(ruleset, path, (WRITE | (EXECUTE if execute else 0)) & known)
        for path in devices:
            _allow(ruleset, path, (READ_FILE | WRITE_FILE) & known)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    """One rule. A path that does not exist needs none."""
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(folder).st_mode):
            rights &= ON_FILES
        attr = PathBeneathAttr(rights, folder)
        kernel.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.addressof(attr), 0)
    finally:
        os.close(folder)
