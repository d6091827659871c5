"""One run inside the fork: execute the script on the virtual card, and say how it went. Child side, no pydantic."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

from oomdoctor.trial import guards
from oomdoctor.vgpu import HostExhausted, VirtualCard, renew
from oomdoctor.vgpu import tracker as _tracker

OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUTPUT_TAIL = 4000


def die_with(parent: int) -> None:
    """End this process when its parent is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(3)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()


def anonymous_bytes() -> int:
    """Private memory of this process now: the interpreter and what it imported. Linux only; 0 elsewhere."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("RssAnon"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def run(request: dict[str, Any], notes: list[str], on_stage: Callable[[str, str], None]) -> dict[str, Any]:
    """Execute ``request["source"]`` as ``__main__`` on ``request["cards"]``; the answer is a JSON-ready dict.

    Keys of the request: source, path, argv, cards, ram_bytes, recording, replay, scratch.
    """
    cards = [VirtualCard.from_dict(c) for c in request["cards"]]
    base = anonymous_bytes()
    world = renew(
        cards,
        ram_bytes=request.get("ram_bytes"),
        host_base_bytes=base,
        recording=bool(request.get("recording")),
        replay=bool(request.get("replay", True)),
    )
    world.tracker.on_stage = on_stage
    output = guards.install(request["scratch"], request["path"])
    started = time.perf_counter()
    outcome, error, failed_line = _execute(request, world)
    world.gpu.clock.synchronize()
    for gpu in world.gpus:
        gpu.finish()
        world.tracker.close_stage(gpu)
    return _report(world, request, outcome, error, failed_line, time.perf_counter() - started, notes, output)


def _execute(request: dict[str, Any], world: Any) -> tuple[str, str | None, int | None]:
    import torch

    module = types.ModuleType("__main__")
    path = request["path"]
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv = [path, *request.get("argv", [])]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    captured = io.StringIO()
    world.script_output = captured
    outer = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = captured
    try:
        code = compile(request["source"], path, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except torch.OutOfMemoryError as failure:
        return "oom", render(failure), script_line(failure, path)
    except HostExhausted as killed:
        return "oom", f"Killed\n({killed})", script_line(killed, path)
    except SystemExit as leaving:
        if leaving.code in (None, 0):
            return "ok", None, None
        return "error", f"SystemExit: {leaving.code}\n{captured.getvalue()[-OUTPUT_TAIL:]}", script_line(leaving, path)
    except BaseException as failure:
        return "error", render(failure), script_line(failure, path)
    finally:
        sys.stdout, sys.stderr = outer
    return "ok", None, None


def render(failure: BaseException) -> str:
    """The traceback as the real card would have printed it: without the frames of the virtual one."""
    shown = traceback.TracebackException.from_exception(failure)
    link: traceback.TracebackException | None = shown
    while link is not None:
        link.stack = traceback.StackSummary.from_list(_without_ours(list(link.stack)))
        link = link.__cause__ or link.__context__
    return "".join(shown.format())[-12000:]


def _without_ours(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Frames of the program only: neither ours nor the operator call that one of ours made."""
    kept = []
    ours = False
    for frame in frames:
        mine = frame.filename.startswith(OUR_FOLDER)
        if not mine and not (ours and frame.filename.endswith("_ops.py")):
            kept.append(frame)
        ours = mine
    return kept


def script_line(failure: BaseException, path: str) -> int | None:
    """The last line of the script itself in the traceback."""
    line = None
    for frame in traceback.extract_tb(failure.__traceback__):
        if frame.filename == path:
            line = frame.lineno
    return line


def _report(
    world: Any,
    request: dict[str, Any],
    outcome: str,
    error: str | None,
    failed_line: int | None,
    wall: float,
    notes: list[str],
    output: Any,
) -> dict[str, Any]:
    gpu = world.gpus[0]
    tracker = world.tracker
    answer: dict[str, Any] = {
        "outcome": outcome,
        "error": error,
        "script_line": failed_line,
        "peak_allocated_bytes": max(g.allocator.peak_allocated for g in world.gpus),
        "peak_reserved_bytes": max(g.allocator.peak_reserved for g in world.gpus),
        "context_bytes": gpu.card.context_bytes,
        "usable_bytes": gpu.card.total_bytes - gpu.card.context_bytes - gpu.card.other_process_bytes,
        "peak_host_bytes": world.host.peak,
        "peak_mapped_bytes": world.host.peak_mapped,
        "peak_pinned_bytes": world.host.peak_pinned,
        "host_limit_bytes": world.host.limit,
        "seconds": gpu.clock.now,
        "wall_seconds": wall,
        "stages": merge(tracker.stages),
        "alive_at_peak": {f"{kind}:{owner}" if owner else kind: n for (kind, owner), n in gpu.alive_at_peak.items()},
        "oom_moment": tracker.oom_moment,
        "ops": world.ops,
        "steps_run": world.replays.ran if world.replays else None,
        "steps_replayed": world.replays.replayed if world.replays else None,
        "assumptions": [*notes, *world.assumptions],
        "notes": output.notes(),
        "output_tail": world.script_output.getvalue()[-OUTPUT_TAIL:],
        "transferred_bytes": sum(g.transferred for g in world.gpus),
    }
    if request.get("recording"):
        answer["trace"] = trace(tracker)
        answer["offload_sequence"] = watch_sequence()
    return answer


def watch_sequence() -> list[str]:
    """The order in which the pipeline that ran would offload its components, from its class."""
    import gc

    try:
        from diffusers import DiffusionPipeline
    except ImportError:
        return []
    for thing in gc.get_objects():
        if isinstance(thing, DiffusionPipeline) and thing.model_cpu_offload_seq:
            return [n for n in thing.model_cpu_offload_seq.split("->") if getattr(thing, n, None) is not None]
    return []


def merge(stretches: list[Any]) -> list[dict[str, Any]]:
    """One entry per stage and component, in the order they first came."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for s in stretches:
        entry = merged.setdefault(
            (s.stage, s.component),
            {
                "stage": s.stage,
                "component": s.component or None,
                "peak_allocated_bytes": 0,
                "peak_reserved_bytes": 0,
                "seconds": 0.0,
            },
        )
        entry["peak_allocated_bytes"] = max(entry["peak_allocated_bytes"], s.allocated)
        entry["peak_reserved_bytes"] = max(entry["peak_reserved_bytes"], s.reserved)
        entry["seconds"] += max(0.0, s.end - s.start)
    return list(merged.values())


def trace(tracker: _tracker.Tracker) -> dict[str, Any]:
    """Modules and rows as columns, the JSON of ``values.measurement.Trace``."""
    rows = tracker.rows
    return {
        "modules": [
            {
                "component": n.component,
                "path": n.path,
                "class_name": n.class_name,
                "parent": n.parent,
                "own_bytes": n.own_bytes,
                "own_params": n.own_params,
                "linear": n.linear,
                "in_features": n.in_features,
                "cast_ok": n.cast_ok,
            }
            for n in tracker.nodes
        ],
        "module": rows.module,
        "entered": rows.entered,
        "stage": rows.stage,
        "live_bytes": rows.live,
        "peak_bytes": rows.peak,
        "seconds": rows.seconds,
        "repeats": rows.repeats,
        "reserved_bytes": rows.reserved,
    }
