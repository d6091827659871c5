"""A small assembler for classic BPF as seccomp runs it. Encodings: the kernel's ``linux/filter.h``, ``linux/seccomp.h``."""

from __future__ import annotations

import struct
from typing import NamedTuple

LOAD, AND = 0x20, 0x54  # BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K
EQUAL, ABOVE, AT_LEAST, RETURN = 0x15, 0x25, 0x35, 0x06  # BPF_JMP|BPF_JEQ|JGT|JGE|BPF_K, BPF_RET|BPF_K

ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000
"""Or-ed with the errno; 0 makes the call look successful although nothing happened."""

NUMBER, ARCH = 0, 4
"""Offsets in ``struct seccomp_data``."""


def argument(index: int, high: bool = False) -> int:
    """Offset of the low (or high) half of an argument of the call; little-endian machines."""
    return 16 + 8 * index + (4 if high else 0)


class Instruction(NamedTuple):
    """``struct sock_filter``."""

    code: int
    yes: int
    no: int
    value: int

    def bytes(self) -> bytes:
        return struct.pack("<HBBI", self.code, self.yes, self.no, self.value)


def load(offset: int) -> Instruction:
    return Instruction(LOAD, 0, 0, offset)


def mask(bits: int) -> Instruction:
    return Instruction(AND, 0, 0, bits)


def leave(action: int) -> Instruction:
    return Instruction(RETURN, 0, 0, action)


def unless_equal(value: int, skip: int) -> Instruction:
    """Goes on when the loaded word is ``value``; else jumps over ``skip`` instructions (at most 255)."""
    return Instruction(EQUAL, 0, skip, value)


def when(value: int, body: list[Instruction]) -> list[Instruction]:
    """``body`` runs only for a call of that number, and must leave."""
    return [unless_equal(value, len(body)), *body]


def assemble(program: list[Instruction]) -> bytes:
    """The array of ``sock_filter``. Raises ValueError for a program that the kernel would refuse for its length."""
    if not 0 < len(program) <= 4096:
        raise ValueError(f"a filter has 1 to 4096 instructions, not {len(program)}")
    return b"".join(i.bytes() for i in program)
