"""The machine's own memory: failed allocations, Windows' commit limit, and processes that were killed."""

from __future__ import annotations

import re

from oomdoctor.diagnosis.families.base import Example, Family, Numbers, gib, squeezed, to_bytes
from oomdoctor.values import Kind, Stage


def _read_integer(_: str, m: re.Match[str]) -> Numbers:
    return Numbers(requested=int(m.group(1)) if m.group(1) else None)


def _read_size(_: str, m: re.Match[str]) -> Numbers:
    return Numbers(requested=to_bytes(m.group(1)))


FAMILIES = (
    Family(
        name="cpu_allocator",
        device="cpu",
        anchor=squeezed(
            r"DefaultCPUAllocator : (?:not enough memory|can't allocate memory) : you tried to allocate (\d{1,20}) bytes"
            r"|DefaultCPUAllocator : (?:not enough|can't allocate)"
        ),
        needles=("DefaultCPUAllocator",),
        rank=60,
        kind=Kind.HOST_RAM,
        read=_read_integer,
        examples=(
            Example(
                "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 536870912 bytes. Error code 12 (Cannot allocate memory)",
                Numbers(requested=536870912),
            ),
            Example(
                "RuntimeError: [enforce fail at C:\\ci\\c10\\core\\impl\\alloc_cpu.cpp:81] data. DefaultCPUAllocator: "
                "not enough memory: you tried to allocate 134217728 bytes.",
                Numbers(requested=134217728),
            ),
            Example(
                "[enforce fail at ..\\c10\\core\\CPUAllocator.cpp:72] data. DefaultCPUAllocator: not enough memory: "
                "you tried to allocate 4194304 bytes. Buy new RAM!",
                Numbers(requested=4194304),
            ),
        ),
    ),
    Family(
        name="paging_file",
        device="cpu",
        # The text is in the language of the system; the number is not.
        anchor=squeezed(r"(?:os ?error|Win ?Error) 1455", re.IGNORECASE),
        needles=("1455",),
        rank=60,
        kind=Kind.HOST_RAM,
        stage=Stage.LOAD,
        examples=(
            Example("OSError: The paging file is too small for this operation to complete. (os error 1455)"),
            Example('OSError: [WinError 1455] Die Auslagerungsdatei ist zu klein. Error loading "c10.dll"'),
            Example("safetensors_rust.SafetensorError: Il file di paging è insufficiente (os error 1455)"),
        ),
    ),
    Family(
        name="host_numpy",
        device="cpu",
        anchor=squeezed(r"Unable to allocate {} for an array|ArrayMemoryError(?!: Unable)"),
        needles=("Unabletoallocate", "ArrayMemoryError"),
        rank=55,
        kind=Kind.HOST_RAM,
        read=_read_size,
        examples=(
            Example(
                "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 2.25 GiB for an array with shape (9, 9)",
                Numbers(requested=gib(2.25)),
            ),
            Example(
                "MemoryError: Unable to allocate 1.50 GiB for an array with shape (2, 3)", Numbers(requested=gib(1.5))
            ),
        ),
    ),
    Family(
        name="host_other",
        device="cpu",
        anchor=squeezed(
            r"Cannot allocate memory|std::bad_alloc|unable to mmap|mmap failed|os error 12\b"
            r"|RuntimeError: (?:\[enforce fail at)"
        ),
        needles=("Cannotallocatememory", "bad_alloc", "mmap", "oserror12", "[enforcefail"),
        rank=45,
        kind=Kind.HOST_RAM,
        examples=(
            Example("OSError: [Errno 12] Cannot allocate memory"),
            Example("terminate called after throwing an instance of 'std::bad_alloc'"),
        ),
    ),
    Family(
        name="host_notebook",
        device="cpu",
        anchor=squeezed(r"crashed after using all available RAM|OOMKilled|Out of memory : Killed process|oom-kill"),
        needles=("allavailableRAM", "OOMKilled", "Killedprocess", "oom-kill"),
        rank=57,
        kind=Kind.HOST_RAM,
        examples=(
            Example("Your session crashed after using all available RAM."),
            Example("Last State: Terminated\n  Reason: OOMKilled\n  Exit Code: 137"),
            Example("Out of memory: Killed process 8812 (python3) total-vm:80123456kB, anon-rss:31234567kB"),
        ),
    ),
)

LINES = (
    (
        "killed",
        ("illed",),
        re.compile(
            r"^\s{0,80}(?:\S{1,200}:\s(?:line\s\d{1,7}:\s+)?)?(?:\d{1,10}\s+)?(?:\[\d{1,9}\]\s+\+?\s*\d*\s*)?"
            r"[Kk]illed(?::\s9|\s{2,}\S.*|\s+\(core dumped\).*)?[.!]?\s*$"
        ),
    ),
    ("memory_error", ("MemoryError",), re.compile(r"^\s{0,80}(?:\w{1,80}\.){0,8}MemoryError(?::|\s*$)")),
    (
        "exit_137",
        ("137", "-9", "SIGKILL", "signal9"),
        re.compile(
            r"(?:exit(?:ed)?(?:\s+with)?(?:\s+(?:code|status|value))?|returned non-zero exit status)\W{0,4}(?:137|-9)\b"
            r"|SIGKILL|signal 9\b",
            re.IGNORECASE,
        ),
    ),
    ("interrupted", ("^C",), re.compile(r"^\s*\^C\s*$")),
    ("access_violation", ("3221225477", "0xC0000005", "0xc0000005"), re.compile(r"\b3221225477\b|\b0x[Cc]0000005\b")),
)
"""Forms that are a line of their own: (name, literals one of which the line has without white space, pattern)."""

KILLED = Family(
    name="killed",
    device="cpu",
    anchor=squeezed(r"[Kk]illed"),
    needles=(),
    rank=52,
    kind=Kind.HOST_RAM,
    examples=(
        Example("Killed"),
        Example("Killed: 9"),
        Example("run.sh: line 4: 18231 Killed                  python generate.py"),
        Example("zsh: killed     python generate.py"),
    ),
)
EXIT_137 = Family(
    name="exit_137",
    device="cpu",
    anchor=squeezed(r"137|SIGKILL|signal9"),
    needles=(),
    rank=51,
    kind=Kind.HOST_RAM,
    examples=(
        Example("Process finished with exit code 137 (interrupted by signal 9: SIGKILL)"),
        Example("subprocess.CalledProcessError: Command '['python']' died with <Signals.SIGKILL: 9>."),
    ),
)
ACCESS_VIOLATION = Family(
    name="access_violation",
    device="cpu",
    anchor=squeezed(r"3221225477|0xC0000005", re.IGNORECASE),
    needles=(),
    rank=8,
    kind=Kind.HOST_RAM,
    examples=(Example("Process finished with exit code 3221225477"),),
)
MEMORY_ERROR = Family(
    name="memory_error",
    device="cpu",
    anchor=squeezed(r"MemoryError"),
    needles=(),
    rank=46,
    kind=Kind.HOST_RAM,
    examples=(Example("MemoryError"),),
)
INTERRUPTED = Family(
    name="interrupted",
    device="cpu",
    anchor=squeezed(r"\^C"),
    needles=(),
    rank=7,
    kind=Kind.HOST_RAM,
    examples=(Example("Loading checkpoint shards:  33%|###       | 1/3 [00:12<00:24, 12.1s/it]\n^C"),),
)
BY_LINE = {
    "memory_error": MEMORY_ERROR,
    "interrupted": INTERRUPTED,
    "killed": KILLED,
    "exit_137": EXIT_137,
    "access_violation": ACCESS_VIOLATION,
}
