"""What a person should know besides the cause: traps of the message, of the platform, of the version."""

from __future__ import annotations

from oomdoctor.diagnosis import numbers as figures
from oomdoctor.diagnosis import regressions
from oomdoctor.diagnosis.case import Case
from oomdoctor.units import GIB, human
from oomdoctor.values import Kind, Stage


def warnings(case: Case) -> tuple[str, ...]:
    """Sentences, the weightiest first."""
    n = case.numbers
    out: list[str] = []
    if not case.sighting.family.fatal:
        out.append(
            "This is a warning, not a failure: it is logged at the first refusal, before the cache is released and the "
            "request tried again. Without an exception after it the program went on."
        )
    if case.context.training or case.stage is Stage.TRAINING:
        out.append(
            "This looks like training, which is out of scope here: the advice is for inference. What still holds is "
            "the reading of the message; gradients, optimizer states and saved activations come on top."
        )
    if case.regression:
        out.append(case.regression)
    out.extend(_platform(case))
    if case.owners.renamed:
        out.append(
            "The process listed by number is this script itself: inside a container it is shown under the host's number."
        )
    if n.unlimited and case.sighting.family.name == "cuda":
        out.append("The process size printed as 17179869184.00 GiB means 'unknown' (usual under WSL); it was ignored.")
    if figures.oversubscribed(n):
        out.append(
            "More is allocated than the card has: on Windows and WSL the driver spills into system memory, which is "
            "very slow long before it fails (elsewhere a pluggable allocator counts memory twice)."
        )
    if (
        case.kind is Kind.SINGLE_TENSOR
        and n.cached
        and n.requested
        and n.cached > figures.CACHED_SHARE * (n.capacity or 0)
    ):
        out.append(
            f"{human(n.cached)} are cached in pieces as well; expandable_segments may help once the tensor is smaller."
        )
    out.extend(_unexplained(case))
    if doubt := regressions.possible(case.context, case.frames, case.device, case.stage):
        out.append(doubt)
    out.extend(_machine(case))
    if n.private and n.private > GIB // 4:
        out.append(f"{human(n.private)} sit in private pools (CUDA graphs): torch.compile's graph modes keep them.")
    if n.requested is not None and case.kind in (Kind.VRAM_CAPACITY, Kind.LOAD_TIME) and n.requested <= 100 << 20:
        out.append("The failing line only asked for the last straw; it says little about what fills the card.")
    if case.context.no_efficient_kernel:
        out.append(
            "This build of torch has no memory-efficient attention kernel ('not compiled with ...' in the log): the "
            "plain one computes the whole score matrix."
        )
    if case.verdict.why == "init":
        out.append(
            "The same text comes from a broken installation; free GPU memory at that moment decides which it is."
        )
    if case.context.jetson:
        out.append("On Jetson the CPU and the GPU share one memory: a copy on each side counts twice.")
    return tuple(out)


def _platform(case: Case) -> list[str]:
    if case.device == "mps":
        return [
            (
                "On Apple silicon the GPU uses unified memory: CPU offloading frees nothing, so quantise or use a smaller "
                "model or picture instead."
            ),
            (
                "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 removes the limit but not the shortage: the machine may swap heavily or "
                "freeze."
            ),
        ]
    if case.device == "hip":
        return [
            (
                "On ROCm the allocator's settings are read from PYTORCH_HIP_ALLOC_CONF (or PYTORCH_ALLOC_CONF from torch "
                "2.10); expandable segments are not available everywhere."
            ),
            (
                "Without a flash or memory-efficient kernel for this GPU, attention computes the whole score matrix; "
                "convolutions may take large MIOpen workspaces outside PyTorch's figures."
            ),
        ]
    if case.device == "xpu":
        return [
            (
                "Intel GPUs limit the size of one allocation (4 GiB on many): a request can be refused with memory free. "
                "torch.xpu.empty_cache() helps only for what is cached."
            ),
        ]
    if case.context.zluda:
        return [
            "Through ZLUDA the message says CUDA but the card is AMD's: bitsandbytes and flash kernels may not work."
        ]
    return []


def _unexplained(case: Case) -> list[str]:
    n, who = case.numbers, case.owners
    if case.kind is Kind.OTHER_PROCESS:
        return []
    out = []
    mine = figures.reserved(n)
    if who.other and n.capacity and who.other > max(figures.FOREIGN_SHARE * n.capacity, figures.OWN_SLACK):
        if not figures.oversubscribed(n):
            out.append(f"{human(who.other)} of the card are held by something other than this script's PyTorch memory.")
    elif who.own and mine is not None and who.own - mine > 2 * figures.OWN_SLACK:
        out.append(
            f"{human(who.own - mine)} of this process are outside PyTorch's allocator: other libraries, contexts, NCCL."
        )
    return out


def _machine(case: Case) -> list[str]:
    """What this machine has of what ran out."""
    if case.hardware is None:
        return []
    ram = case.hardware.ram
    if case.kind is Kind.HOST_RAM:
        limit = f", limited to {human(ram.limit_bytes)} by its container" if ram.limit_bytes else ""
        return [f"This machine has {human(ram.available_bytes)} of RAM available now{limit}."]
    if case.kind is Kind.PINNED_RAM and ram.pinned_cap_bytes is not None:
        return [f"At most {human(ram.pinned_cap_bytes)} of RAM can be page-locked on this machine."]
    return []
