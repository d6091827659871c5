"""The filter as data: interpreted here for both architectures, so that the one that is not at hand is checked too."""

from __future__ import annotations

import ctypes
import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.trial.sandbox import bpf, landlock, seccomp
from oomdoctor.trial.sandbox.syscalls import AUDIT_ARCH, NEWEST, NUMBERS, number

ARCHES = tuple(AUDIT_ARCH)
PID = 4242


def decide(program: list[bpf.Instruction], arch: str, call: int, *arguments: int) -> int:
    """What the kernel would do: the classic BPF machine, the opcodes that the filter uses."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", call & 0xFFFFFFFF, AUDIT_ARCH[arch], 0, *(w & (2**64 - 1) for w in words))
    word, at = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        if code == bpf.LOAD:
            (word,) = struct.unpack_from("<I", data, value)
        elif code == bpf.AND:
            word &= value
        elif code == bpf.RETURN:
            return value
        else:
            met = {bpf.EQUAL: word == value, bpf.ABOVE: word > value, bpf.AT_LEAST: word >= value}[code]
            at += yes if met else no


def verdict(arch: str, name: str, *arguments: int, **options: bool) -> int:
    call = number(name, arch)
    assert call is not None
    return decide(seccomp.program(arch, PID, **options), arch, call, *arguments)


@pytest.mark.parametrize("arch", ARCHES)
def test_every_named_call_is_decided(arch: str) -> None:
    for name in (*seccomp.ALWAYS, *seccomp.NETWORK, *seccomp.PROCESSES):
        if number(name, arch) is not None:
            assert verdict(arch, name) == bpf.ERRNO | errno.EPERM, name
    for name in seccomp.ATTRIBUTES:
        if number(name, arch) is not None:
            assert verdict(arch, name) == bpf.ERRNO, name
    for name in seccomp.ABSENT:
        assert verdict(arch, name) == bpf.ERRNO | errno.ENOSYS


@pytest.mark.parametrize("arch", ARCHES)
def test_arguments_decide(arch: str) -> None:
    refused = bpf.ERRNO | errno.EPERM
    assert verdict(arch, "clone", 0x3D0F00) == bpf.ALLOW  # a thread, as glibc starts it
    assert verdict(arch, "clone", 0x1200011) == refused  # a fork
    assert verdict(arch, "kill", PID, 9) == bpf.ALLOW
    assert verdict(arch, "kill", 0, 9) == verdict(arch, "kill", -1, 9) == verdict(arch, "kill", 1, 9) == refused
    assert verdict(arch, "sendto", 3, 0, 0, 0, 0) == bpf.ALLOW
    assert verdict(arch, "sendto", 3, 0, 0, 0, 1 << 40) == verdict(arch, "sendto", 3, 0, 0, 0, 1) == refused
    assert verdict(arch, "prlimit64", 0, 3) == verdict(arch, "prlimit64", PID, 3) == bpf.ALLOW
    assert verdict(arch, "prlimit64", 1, 3) == refused
    assert verdict(arch, "fcntl", 3, 3) == bpf.ALLOW
    assert {verdict(arch, "fcntl", 3, command) for command in (8, 10, 15)} == {refused}
    assert verdict(arch, "ioctl", 1, 0x5401) == bpf.ALLOW
    assert verdict(arch, "ioctl", 1, 0x5412) == bpf.ERRNO | errno.ENOTTY
    assert verdict(arch, "prctl", 1) == refused and verdict(arch, "prctl", 15) == bpf.ALLOW


@pytest.mark.parametrize("arch", ARCHES)
def test_an_old_landlock_gets_help_against_truncation(arch: str) -> None:
    refused, truncates = bpf.ERRNO | errno.EPERM, 0o1000
    assert verdict(arch, "openat", 0, 0, truncates) == bpf.ALLOW
    assert verdict(arch, "openat", 0, 0, truncates, old_landlock=True) == refused
    assert verdict(arch, "openat", 0, 0, truncates | 1, old_landlock=True) == bpf.ALLOW  # Landlock decides
    assert verdict(arch, "truncate", old_landlock=True) == refused
    assert verdict(arch, "openat2", old_landlock=True) == bpf.ERRNO | errno.ENOSYS


@pytest.mark.parametrize("arch", ARCHES)
def test_the_other_architecture_is_killed(arch: str) -> None:
    other = next(a for a in ARCHES if a != arch)
    assert decide(seccomp.program(arch, PID), other, 0) == bpf.KILL


@given(call=st.integers(0, 2**32 - 1), arguments=st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_every_call_gets_an_answer(call: int, arguments: list[int]) -> None:
    for arch in ARCHES:
        for options in ({}, {"network": True}, {"processes": True}, {"old_landlock": True}):
            action = decide(seccomp.program(arch, PID, **options), arch, call, *arguments)
            assert action in (bpf.ALLOW, bpf.KILL) or action & 0xFFFF0000 == bpf.ERRNO
            if call > NEWEST:
                assert action != bpf.ALLOW


def test_a_filter_is_short_enough_for_the_kernel() -> None:
    for arch in ARCHES:
        program = seccomp.program(arch, PID, old_landlock=True)
        assert len(bpf.assemble(program)) == 8 * len(program)
    with pytest.raises(ValueError, match="4096"):
        bpf.assemble([bpf.leave(bpf.ALLOW)] * 4097)


def test_structures_have_the_kernels_sizes() -> None:
    assert ctypes.sizeof(landlock.PathBeneathAttr) == 12
    assert ctypes.sizeof(landlock.RulesetAttr) == 24
    assert landlock.PathBeneathAttr.parent_fd.offset == 8
    assert landlock.handled(1) == 0x1FFF and landlock.handled(7) == 0xFFFF


HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), 0),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), 1),
}


@pytest.mark.parametrize("arch", ARCHES)
def test_numbers_are_those_of_the_kernels_headers(arch: str) -> None:
    path, column = HEADERS[arch]
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    wrong = {n: (v[column], known[n]) for n, v in NUMBERS.items() if n in known and str(v[column]) != known[n]}
    assert not wrong
