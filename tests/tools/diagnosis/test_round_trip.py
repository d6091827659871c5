"""Messages made from every template, with random figures and however they were pasted, are read back exactly."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oomdoctor.diagnosis import diagnose
from oomdoctor.units import GIB, MIB, parse_size
from oomdoctor.values import Diagnosis

_HINT = (
    "If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
    "fragmentation.  See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html)"
)


def size(n: int) -> str:
    """As PyTorch's ``format_size`` prints it."""
    if n <= 1024:
        return f"{n} bytes"
    if n <= MIB:
        return f"{n / 1024:.2f} KiB"
    if n <= GIB:
        return f"{n / MIB:.2f} MiB"
    return f"{n / GIB:.2f} GiB"


def read_back(n: int) -> int:
    return parse_size(size(n))


_SIZES = st.one_of(
    st.integers(0, 1024), st.integers(1025, MIB), st.integers(MIB + 1, GIB), st.integers(GIB + 1, 200 * GIB)
)
_LARGE = st.integers(MIB + 1, 200 * GIB)


@st.composite
def bracketed(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """torch 1.0 to 2.0."""
    n = {k: draw(_SIZES) for k in ("requested_bytes", "capacity_bytes", "allocated_bytes", "free_bytes")}
    allowed = draw(st.none() | _LARGE)
    cached = draw(_SIZES)
    gpu = draw(st.integers(0, 15))
    allocated = read_back(n["allocated_bytes"])
    oldest = draw(st.booleans()) and allowed is None
    if oldest:
        tail = f"{size(cached)} cached)"
        left = read_back(cached)
    else:
        cap = f"{size(allowed)} allowed; " if allowed is not None else ""
        total = draw(st.sampled_from([n["allocated_bytes"], n["allocated_bytes"] + cached]))
        tail = f"{cap}{size(total)} reserved in total by PyTorch)"
        left = max(0, read_back(total) - allocated)
    text = (
        f"RuntimeError: CUDA out of memory. Tried to allocate {size(n['requested_bytes'])} (GPU {gpu}; "
        f"{size(n['capacity_bytes'])} total capacity; {size(n['allocated_bytes'])} already allocated; "
        f"{size(n['free_bytes'])} free; {tail}"
    )
    want = {k: read_back(v) for k, v in n.items()} | {"gpu_index": gpu, "reserved_unallocated_bytes": left}
    if allowed is not None:
        want["allowed_bytes"] = read_back(allowed)
    return text, want


@st.composite
def sentences(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """torch 2.1 on, CUDA, HIP and XPU, with every optional part."""
    who, device = draw(st.sampled_from([("CUDA", "cuda"), ("HIP", "hip"), ("XPU", "xpu")]))
    names = (
        "requested_bytes", "capacity_bytes", "free_bytes", "allocated_bytes", "reserved_unallocated_bytes",
    )  # fmt: skip
    n = {k: draw(_SIZES) for k in names}
    gpu = draw(st.integers(0, 15))
    this = draw(st.none() | _LARGE) if device == "cuda" else None
    allowed, private = draw(st.none() | _LARGE), draw(st.none() | _LARGE)
    spelling = draw(st.sampled_from(["capacity", "capacty"]))
    parts = [
        (
            f"torch.OutOfMemoryError: {who} out of memory. Tried to allocate {size(n['requested_bytes'])}. GPU {gpu} has a "
            f"total {spelling} of {size(n['capacity_bytes'])} of which {size(n['free_bytes'])} is free. "
        )
    ]
    if this is not None:
        parts.append(f"Including non-PyTorch memory, this process has {size(this)} memory in use. ")
    if allowed is not None:
        parts.append(f"{size(allowed)} allowed; ")
    parts.append(f"Of the allocated memory {size(n['allocated_bytes'])} is allocated by PyTorch, ")
    if private is not None:
        parts.append(f"with {size(private)} allocated in private pools (e.g., CUDA Graphs), ")
    parts.append(f"and {size(n['reserved_unallocated_bytes'])} is reserved by PyTorch but unallocated. ")
    parts.append(
        draw(st.sampled_from([_HINT, "Please use `empty_cache` to release all unoccupied cached memory.", ""]))
    )
    want = {k: read_back(v) for k, v in n.items()} | {"gpu_index": gpu}
    for name, value in (("process_bytes", this), ("allowed_bytes", allowed), ("private_pool_bytes", private)):
        if value is not None:
            want[name] = read_back(value)
    return "".join(parts), want


@st.composite
def asynchronous(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """The cudaMallocAsync backend."""
    n = {k: draw(_SIZES) for k in ("allocated_bytes", "requested_bytes", "capacity_bytes", "free_bytes")}
    gpu, allowed = draw(st.integers(0, 15)), draw(st.none() | _LARGE)
    limit = size(allowed) if allowed is not None else "17179869184.00 GiB"
    text = (
        f"torch.OutOfMemoryError: Allocation on device {gpu} would exceed allowed memory. (out of memory)\n"
        f"Currently allocated     : {size(n['allocated_bytes'])}\nRequested               : {size(n['requested_bytes'])}\n"
        f"Device limit            : {size(n['capacity_bytes'])}\nFree (according to CUDA): {size(n['free_bytes'])}\n"
        f"PyTorch limit (set by user-supplied memory fraction)\n                        : {limit}"
    )
    want = {k: read_back(v) for k, v in n.items()} | {"gpu_index": gpu}
    return text, want | ({"allowed_bytes": read_back(allowed)} if allowed is not None else {})


@st.composite
def metal(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """MPS."""
    allocated, other, requested = draw(_SIZES), draw(_SIZES), draw(_SIZES)
    allowed = draw(st.none() | _LARGE)
    cap = f", max allowed: {size(allowed)}" if allowed is not None else ""
    pool = draw(st.sampled_from(["private", "shared"]))
    text = (
        f"RuntimeError: MPS backend out of memory (MPS allocated: {size(allocated)}, other allocations: {size(other)}{cap}"
        f"). Tried to allocate {size(requested)} on {pool} pool."
    )
    want = {
        "allocated_bytes": read_back(allocated),
        "requested_bytes": read_back(requested),
        "process_bytes": read_back(allocated) + read_back(other),
    }
    return text, want | ({"allowed_bytes": read_back(allowed)} if allowed is not None else {})


@st.composite
def host(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """DefaultCPUAllocator on either system."""
    n = draw(st.integers(1, 1 << 50))
    text = draw(
        st.sampled_from(
            [
                (
                    "RuntimeError: [enforce fail at C:\\b\\alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: "
                    f"you tried to allocate {n} bytes."
                ),
                (
                    "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
                    f"you tried to allocate {n} bytes. Error code 12 (Cannot allocate memory)"
                ),
            ]
        )
    )
    return text, {"requested_bytes": n}


_MESSAGES = st.one_of(bracketed(), sentences(), asynchronous(), metal(), host())


def _prefixed(text: str, prefix: str) -> str:
    return "\n".join(prefix + line for line in text.split("\n"))


_PASTES = {
    "as it is": lambda t: t,
    "wrapped between words": lambda t: "\n".join(textwrap.wrap(t, 60, break_long_words=False)),
    "wrapped anywhere": lambda t: "\n".join(t[i : i + 71] for i in range(0, len(t), 71)),
    "rank": lambda t: _prefixed(t, "[rank3]: "),
    "log": lambda t: _prefixed(t, "2026-02-03 04:05:06,789 - ERROR - "),
    "log in brackets": lambda t: _prefixed(t, "[2026-02-03 04:05:06] [INFO] [rank1]: "),
    "engine": lambda t: _prefixed(t, "(Core_0 pid=4711) ERROR 02-03 04:05:06 [core.py:123] "),
    "box": lambda t: "\n".join(f"│ {line:<76} │" for line in textwrap.wrap(t, 76)),
    "quoted": lambda t: _prefixed(t, "> "),
    "colours": lambda t: t.replace("out of memory", "\x1b[1;31mout of memory\x1b[0m"),
    "html": lambda t: f'<pre><span class="ansi-red-fg">{t.replace("&", "&amp;")}</span></pre>',
    "progress glued on": lambda t: f"  3%|▎         | 1/30 [00:02<01:01,  2.1s/it]{t}",
    "windows line ends": lambda t: t.replace("\n", "\r\n") + "\r\n",
    "one line": lambda t: " ".join(t.split()),
    "pretty printed": lambda t: t.replace("; ", ";\n\t").replace(". ", ".\n\t"),
}


def _check(d: Diagnosis, want: dict[str, int]) -> None:
    assert d.is_oom
    got = {name: getattr(d, name) for name in want}
    assert got == want


@settings(max_examples=150, deadline=None)
@given(_MESSAGES)
def test_every_template_is_read_back(made: tuple[str, dict[str, int]]) -> None:
    _check(diagnose(made[0]), made[1])


@pytest.mark.parametrize("paste", _PASTES)
@settings(max_examples=20, deadline=None)
@given(made=_MESSAGES)
def test_pasted_in_every_way(paste: str, made: tuple[str, dict[str, int]]) -> None:
    _check(diagnose(_PASTES[paste](made[0])), made[1])


@settings(max_examples=60, deadline=None)
@given(made=sentences(), cut=st.integers(0, 400))
def test_a_cut_end_loses_fields_but_invents_none(made: tuple[str, dict[str, int]], cut: int) -> None:
    text, want = made
    end = min(len(text), text.index("Tried to allocate") + 40 + cut)
    kept = text[:end].rsplit(" ", 2)[0] if end < len(text) else text
    d = diagnose(kept)
    assert d.is_oom
    for name, value in want.items():
        assert getattr(d, name) in (None, value), name


def test_messages_of_the_virtual_card_are_read_back() -> None:
    messages = pytest.importorskip("oomdoctor.vgpu.allocator.messages")
    for version in ((2, 6), (2, 9), (2, 10), (2, 13)):
        for others, allowed, private in ((0, None, 0), (3 * GIB, 10 * GIB, 256 * MIB)):
            failure = messages.Failure(
                requested=3 * GIB,
                block=3 * GIB - 512,
                total=12 * GIB,
                free=GIB // 2,
                allocated=6 * GIB,
                reserved=8 * GIB,
                private=private,
                device=1,
                allowed=allowed,
                in_use=8 * GIB + 300 * MIB,
                others=others,
            )
            d = diagnose("torch.OutOfMemoryError: " + messages.text_of(failure, version))
            assert (d.gpu_index, d.requested_bytes, d.capacity_bytes, d.free_bytes) == (1, 3 * GIB, 12 * GIB, GIB // 2)
            assert d.allocated_bytes == 6 * GIB + private
            assert d.reserved_unallocated_bytes == 2 * GIB - private
            assert d.allowed_bytes == allowed
            assert d.private_pool_bytes == (private or None)
            assert d.other_process_bytes == (others or None)
