"""What a run says about itself when it has ended, as a JSON-ready dict. Child side, no pydantic."""

from __future__ import annotations

from typing import Any

from oomdoctor.vgpu import tracker as _tracker


def report(
    world: Any, request: dict[str, Any], ending: tuple[str, str | None, int | None], notes: list[str]
) -> dict[str, Any]:
    """``ending``: outcome, text of the error, line of the script; ``notes``: what loading assumed."""
    outcome, error, failed_line = ending
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
        "stages": merge(tracker.stages),
        "alive_at_peak": {f"{kind}:{owner}" if owner else kind: n for (kind, owner), n in gpu.alive_at_peak.items()},
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
