"""What a run says about itself when it has ended, as a JSON-ready dict. Child side, no pydantic."""

from __future__ import annotations

from typing import Any

from oomdoctor.vgpu import tracker as _tracker
from oomdoctor.vgpu.timeline import thinned

SAMPLES = 4000
"""Points of a run's timeline in its report."""


def report(
    world: Any, request: dict[str, Any], ending: tuple[str, str | None, int | None], notes: list[str]
) -> dict[str, Any]:
    """``ending``: outcome, text of the error, line of the script; ``notes``: what loading assumed."""
    outcome, error, failed_line = ending
    gpu = max(world.gpus, key=lambda g: g.allocator.peak_allocated)
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
        "seconds": world.now,
        "stages": merge(tracker.stages),
        "alive_at_peak": by_component(gpu.alive_at_peak),
        "peak": peak(gpu),
        "oom_moment": tracker.oom_moment,
        "ops": world.ops,
        "steps_run": world.replays.ran if world.replays else None,
        "steps_replayed": world.replays.replayed if world.replays else None,
        "assumptions": [*notes, *world.assumptions],
        "output_tail": world.script_output.last(),
        "transferred_bytes": sum(g.transferred for g in world.gpus),
    }
    if request.get("recording"):
        answer["trace"] = trace(tracker)
        answer["offload_sequence"] = watch_sequence()
        answer["made"] = tracker.made
    if gpu.timeline is not None:
        answer["timeline"] = timeline(gpu, tracker)
    return answer


def by_component(live: dict[tuple[str, str, str], int]) -> dict[str, int]:
    """Bytes per ``kind:component``."""
    out: dict[str, int] = {}
    for (kind, component, _), n in live.items():
        name = f"{kind}:{component}" if component else kind
        out[name] = out.get(name, 0) + n
    return out


def peak(gpu: Any) -> dict[str, Any]:
    """The highest moment of a card, in the form of ``values.Moment``."""
    stage, component, path, seconds = gpu.peak_moment
    entries = _tracker.alive(gpu.alive_at_peak)
    cached = gpu.peak_reserved_then - gpu.allocator.peak_allocated
    if cached > 0:
        entries.append({"kind": "cached", "component": "", "path": "", "bytes": cached})
    return {
        "stage": stage or _tracker.UNKNOWN,
        "component": component or None,
        "path": path or None,
        "seconds": seconds,
        "allocated_bytes": gpu.allocator.peak_allocated,
        "reserved_bytes": gpu.peak_reserved_then,
        "alive": entries,
    }


def timeline(gpu: Any, tracker: _tracker.Tracker) -> dict[str, Any]:
    """Samples as columns, stretches and spans: the JSON of ``values.MemoryTimeline``."""
    samples = thinned(gpu.timeline.samples, SAMPLES)
    columns = list(zip(*samples, strict=True)) or [(), (), (), ()]
    return {
        "seconds": [round(t, 7) for t in columns[0]],
        "allocated_bytes": columns[1],
        "reserved_bytes": columns[2],
        "weights_bytes": columns[3],
        "stretches": [
            {"stage": s.stage, "component": s.component or None, "start": s.start, "end": s.end} for s in tracker.stages
        ],
        "spans": [s._asdict() for s in gpu.timeline.spans],
    }


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
                "params": n.params,
                "bias_params": n.bias_params,
                "bias_bytes": n.bias_bytes,
                "pinned_bytes": n.pinned_bytes,
                "packed": n.packed,
                "block_role": n.block_role,
                "linear": n.linear,
                "in_features": n.in_features,
                "cast_ok": n.cast_ok,
                "anonymous_bytes": n.anonymous_bytes,
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
        "arena_bytes": rows.arena,
        "launches": rows.launches,
    }
