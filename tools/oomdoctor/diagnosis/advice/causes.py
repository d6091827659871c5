"""The cause in one sentence for a newcomer, and the one next step, for each reason a verdict can have."""

from __future__ import annotations

from collections.abc import Callable

from oomdoctor.diagnosis import numbers as figures
from oomdoctor.diagnosis.case import Case
from oomdoctor.units import human
from oomdoctor.values import Kind, Stage

_DOING = {
    Stage.LOAD: "while loading the model",
    Stage.QUANTIZE: "while loading and quantising the model",
    Stage.PLACE: "while moving the model to the device",
    Stage.TEXT_ENCODE: "while encoding the prompt",
    Stage.IMAGE_ENCODE: "while encoding the input image",
    Stage.DENOISE: "during denoising",
    Stage.VAE_ENCODE: "while the VAE encoded the input",
    Stage.VAE_DECODE: "while the VAE decoded the result, after all the steps were done",
    Stage.COMPILE: "while torch.compile was at work",
    Stage.TRAINING: "during training",
    Stage.POST: "after the picture was made",
    Stage.UNKNOWN: "",
}
_EXPLAINS = {
    Stage.PLACE: ("place", "dtype"),
    Stage.LOAD: ("place", "dtype"),
    Stage.VAE_DECODE: ("grad",),
    Stage.VAE_ENCODE: ("grad",),
    Stage.DENOISE: ("grad", "dtype"),
}
"""Accidents in the script that come before any technique, by the stage that they make fail."""


def doing(case: Case) -> str:
    """``during denoising (transformer)``, empty when unknown."""
    text = _DOING[case.stage]
    component = case.place.component
    return f"{text} ({component})" if text and component else text


def _sentence(*parts: str) -> str:
    text = " ".join(part for part in parts if part).strip()
    return text[0].upper() + text[1:] + "."


def cause(case: Case) -> str:
    """Why it failed, in one sentence."""
    return _CAUSES[case.verdict.why](case)


def next_step(case: Case) -> str:
    """What to do first: mend the version or the accident that explains the failure, else what the verdict calls for."""
    if case.regression:
        return case.regression
    if case.kind in (Kind.LOAD_TIME, Kind.VRAM_CAPACITY):
        for accident in _EXPLAINS.get(case.stage, ()):
            for finding in case.findings:
                if finding.accident == accident:
                    return finding.text
    return _STEPS.get(case.verdict.why, _step_by_stage)(case)


def _full(case: Case) -> str:
    n = case.numbers
    size = figures.limit(n)
    if n.allocated is not None and size:
        held = f"{human(n.allocated)} of {human(size)} hold live tensors"
        asked = f"and another {human(n.requested)} did not fit" if n.requested else "and there was no room for more"
        return _sentence("the GPU is full", doing(case) + ":" if doing(case) else ":", held, asked).replace(" :", ":")
    asked = f": {human(n.requested)} more did not fit" if n.requested else ""
    return _sentence(f"the GPU's memory ran out{' ' if doing(case) else ''}{doing(case)}{asked}")


def _tensor(case: Case) -> str:
    n = case.numbers
    size = figures.limit(n)
    on = f", on a card of {human(size)}" if size else ""
    when = f" {doing(case)}" if doing(case) else ""
    return _sentence(f"one single tensor of {human(n.requested)} was requested{when}{on}")


def _scores(case: Case) -> str:
    n = case.numbers
    asked = f" ({human(n.requested)})" if n.requested else ""
    return _sentence(
        f"the attention computes its whole score matrix{asked} instead of using a fused kernel", doing(case)
    )


def _pieces(case: Case) -> str:
    n = case.numbers
    return _sentence(
        f"PyTorch holds {human(n.cached)} that nothing uses, but in pieces: no room in one piece for {human(n.requested)}",
        doing(case),
    )


def _over_cap(case: Case) -> str:
    n = case.numbers
    return _sentence(
        f"the script's own limit of {human(n.allowed)} (set_per_process_memory_fraction) refused {human(n.requested)}",
        f"while the card had {human(n.free)} free" if n.free is not None else "",
    )


def _listed(case: Case) -> str:
    own = f"; this script itself has {human(case.owners.own)}" if case.owners.own is not None else ""
    return _sentence(f"another process holds {human(case.owners.other)} of the card{own}")


def _unexplained(case: Case) -> str:
    return _sentence(
        f"{human(case.owners.other)} of the card are neither free nor PyTorch's: another process or another library "
        "holds them"
    )


def _commit(case: Case) -> str:
    n = case.numbers
    return _sentence(
        f"{human(n.requested)} were refused although {human(n.free)} of the GPU were free: it is not the GPU's memory "
        "that ran out but Windows' commit limit (RAM plus page file)"
    )


def _wsl(case: Case) -> str:
    n = case.numbers
    return _sentence(
        f"{human(n.requested)} were refused although {human(n.free)} of the GPU were free: under WSL a limit of the "
        "host (page file, memory given to WSL, page-locked memory) stops the driver first"
    )


def _rlimit(case: Case) -> str:
    n = case.numbers
    return _sentence(
        f"{human(n.requested)} were refused although {human(n.free)} of the GPU were free: a limit on the process or "
        "container (ulimit -v, cgroup) stopped the driver, not the GPU's memory"
    )


def _host_allocator(case: Case) -> str:
    n = case.numbers
    asked = f": {human(n.requested)} more could not be had" if n.requested else ""
    return _sentence(
        f"the computer's own RAM ran out{' ' if doing(case) else ''}{doing(case)}, not the GPU's memory{asked}"
    )


_CAUSES: dict[str, Callable[[Case], str]] = {
    "full": _full,
    "unknown_wording": lambda c: _sentence("the text says that memory ran out, in words that carry no figures", doing(c)),
    "warning": lambda c: "A first attempt to get GPU memory failed; PyTorch then released its cache and tried again.",
    "tensor": _tensor,
    "mps_tensor": _tensor,
    "scores": _scores,
    "mps_buffer": lambda c: _sentence(
        f"one single tensor{' of ' + human(c.numbers.requested) if c.numbers.requested else ''} is larger than Metal "
        "allows a buffer to be, most likely attention scores"
    ),
    "xpu_block": lambda c: _sentence(
        f"one allocation of {human(c.numbers.requested)} is more than this GPU or driver gives in one piece; its total "
        "memory is not the limit"
    ),
    "pieces": _pieces,
    "over_cap": _over_cap,
    "oversubscribed": lambda c: _sentence(
        f"{human(c.numbers.allocated)} are allocated on a card of {human(c.numbers.capacity)}: it spilled into system "
        "memory until that was refused too"
    ),
    "mps": lambda c: _sentence(
        f"PyTorch's limit for unified memory{' (' + human(c.numbers.allowed) + ')' if c.numbers.allowed else ''} was "
        f"reached{' ' if doing(c) else ''}{doing(c)}: {human(c.numbers.allocated)} in tensors"
        + (f" and {human(c.numbers.metal)} held by Metal itself" if c.numbers.metal else "")
    ),
    "listed": _listed,
    "unexplained": _unexplained,
    "commit": _commit,
    "wsl": _wsl,
    "rlimit": _rlimit,
    "allocator": _host_allocator,
    "killed": lambda c: _sentence(
        "the operating system ended the process, as it does when the computer's RAM (or the container's limit) runs "
        "out", doing(c)
    ),
    "killed_pinned": lambda c: _sentence(
        "the operating system ended the process for lack of RAM; offloading with streams keeps a page-locked copy of "
        "the weights there"
    ),
    "paging_file": lambda c: (
        "Windows could not reserve memory: its commit limit (RAM plus page file) is reached (error 1455), not the "
        "GPU's memory."
    ),
    "access_violation": lambda c: (
        "The process crashed without a message (access violation); on Windows a page file that is too small is a "
        "frequent reason while large models load."
    ),
    "interrupted": lambda c: (
        "The process ended as if interrupted (^C); when nobody pressed it, a notebook service stopped it, as Colab does "
        "when RAM runs out."
    ),
    "pin": lambda c: "Page-locking RAM for offloading failed: a limit of the host, reported as a CUDA error.",
    "pin_likely": lambda c: (
        "CUDA reported 'out of memory' without figures while weights are offloaded: most likely page-locked (pinned) "
        "RAM ran out, not the GPU's memory."
    ),
    "driver": lambda c: _sentence(
        "the CUDA driver reported 'out of memory' without figures: the card was full before PyTorch's allocator was "
        "asked, or page-locked RAM ran out", doing(c)
    ),
    "nvml": lambda c: _sentence(
        "a real out-of-memory error whose message could not be written: PyTorch failed to ask the driver who holds "
        "the memory"
    ),
    "library": lambda c: _sentence(
        "a CUDA library (cuDNN, cuBLAS) could not get its workspace: most often the card is full", doing(c)
    ),
    "init": lambda c: _sentence(
        "a CUDA library (cuDNN, cuBLAS) could not start: either the card is full, or the libraries do not fit together"
    ),
    "headless": lambda c: (
        "A CUDA error whose first line, the one that names it, is missing from the text; out of memory is the most "
        "frequent one."
    ),
}  # fmt: skip


def _step_by_stage(case: Case) -> str:
    component = case.place.component
    if case.stage in (Stage.VAE_DECODE, Stage.VAE_ENCODE):
        return (
            "Split the VAE's work: pipe.vae.enable_tiling() (with a tile size below the picture's, or it does nothing) "
            "and pipe.vae.enable_slicing() for batches."
        )
    if case.stage is Stage.TEXT_ENCODE:
        if "enable_model_cpu_offload" in case.offloading:
            return "Store the text encoder smaller (quantise it), or bring it in pieces: enable_group_offload()."
        return "Keep the text encoder off the card when it is not in use: enable_model_cpu_offload(), or quantise it."
    if case.stage is Stage.QUANTIZE:
        return (
            "Quantised weights land on the GPU while they load: load a checkpoint that is quantised already, one "
            "component at a time, with nothing else on the card yet."
        )
    if case.stage in (Stage.LOAD, Stage.PLACE):
        return (
            "Do not put the whole pipeline on the card: load with dtype=torch.bfloat16 and call "
            "enable_model_cpu_offload() or enable_group_offload() instead of .to('cuda')."
        )
    if case.stage is Stage.TRAINING:
        return (
            "Training is out of scope here; gradient checkpointing, batch size 1 with accumulation, an 8-bit optimizer "
            "and cached latents and embeddings are the levers."
        )
    if case.stage is Stage.COMPILE:
        return "Run once without torch.compile; if that fits, use a mode without CUDA graphs or compile regionally."
    what = f" ({component})" if component else ""
    if "enable_model_cpu_offload" in case.offloading:
        return (
            f"Whole models take turns on the card already, and {component or 'one of them'} fills it alone: bring it in "
            "smaller pieces (enable_group_offload(), with use_stream=True where RAM allows) or store it smaller "
            "(quantise, or fp8 layerwise casting)."
        )
    if case.offloading:
        return (
            "Layers take turns on the card already, so it is this stage's own tensors that fill it: a lower resolution, "
            "fewer frames, a smaller batch."
        )
    return f"Offload what is not in use{what}: enable_model_cpu_offload(); if one component fills the card, group offloading."


_STEPS: dict[str, Callable[[Case], str]] = {
    "unknown_wording": lambda c: "Paste the whole traceback, from its first line to the end of the message.",
    "warning": lambda c: "Nothing, if the program went on: only an exception after this line is a failure.",
    "headless": lambda c: "Paste the lines above it, up to the one that begins with 'CUDA error:'.",
    "tensor": lambda c: _step_by_stage(c) if c.stage in (Stage.VAE_DECODE, Stage.VAE_ENCODE) else (
        "Make that tensor smaller: a fused attention kernel, a lower resolution or fewer frames, a smaller batch."
    ),
    "mps_tensor": lambda c: "Make that tensor smaller: a lower resolution, fewer frames, attention slicing on UNets.",
    "mps_buffer": lambda c: "Lower the resolution or the number of frames, or slice the attention; no setting lifts this.",
    "xpu_block": lambda c: "Make that one tensor smaller: VAE tiling, a lower resolution or fewer frames.",
    "scores": lambda c: (
        "Use PyTorch's scaled_dot_product_attention with a flash or memory-efficient kernel: drop custom attention "
        "processors and attention slicing, and check that torch has those kernels on this card."
    ),
    "pieces": lambda c: (
        "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True before Python starts."
        if c.device == "cuda" and not c.context.windows and not c.context.expandable_on
        else "Make the largest request smaller (VAE tiling, lower resolution) and free memory between stages."
    ),
    "over_cap": lambda c: "Raise or remove torch.cuda.set_per_process_memory_fraction(), or fit the script under it.",
    "mps": lambda c: (
        "Load with dtype=torch.float16 or bfloat16 and close other programs; see the warnings about the watermark "
        "before raising it."
    ),
    "listed": lambda c: "Look at nvidia-smi, end the other process or choose another GPU, then run again.",
    "unexplained": lambda c: (
        "Look at nvidia-smi (or the task manager) for who holds the card: other programs, an old kernel or server of "
        "yours, another library in the same process."
    ),
    "commit": lambda c: "Enlarge the Windows page file (32 GiB or more, system managed), restart, and run again.",
    "wsl": lambda c: "Raise memory and swap in .wslconfig and the Windows page file, and switch pinning off (use_stream=False).",
    "rlimit": lambda c: "Check ulimit -v and the container's memory limit; raise it.",
    "paging_file": lambda c: "Enlarge the Windows page file (32 GiB or more, system managed), restart, and run again.",
    "access_violation": lambda c: "Enlarge the Windows page file, watch RAM while it loads, and run again.",
    "allocator": lambda c: "Need less RAM while loading: load in bf16 or a quantised checkpoint, one component at a time.",
    "killed": lambda c: (
        "Check the real limit (cat /sys/fs/cgroup/memory.max in containers, not free), then load in bf16 or quantised; "
        "offloading to the CPU makes it worse."
    ),
    "interrupted": lambda c: "Watch the RAM gauge while it runs; if it fills, load in bf16 or a quantised checkpoint.",
    "killed_pinned": lambda c: (
        "Use group offloading with low_cpu_mem_usage=True or without use_stream, and check the real limit "
        "(cat /sys/fs/cgroup/memory.max in containers)."
    ),
    "pin": lambda c: "Do not pin: use_stream=False (or low_cpu_mem_usage=True) for group offloading, pin_memory=False elsewhere.",
    "pin_likely": lambda c: "Do not pin: use_stream=False (or low_cpu_mem_usage=True) for group offloading, pin_memory=False elsewhere.",
    "driver": lambda c: "Look at nvidia-smi just before it fails: a full card means the GPU, a half-empty one means RAM or pinning.",
    "nvml": _step_by_stage,
    "library": _step_by_stage,
    "init": lambda c: (
        "Look at nvidia-smi while it runs: if the card is nearly full this is out of memory; if not, reinstall torch "
        "with the CUDA libraries it was built for."
    ),
}  # fmt: skip
