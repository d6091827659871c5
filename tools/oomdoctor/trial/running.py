"""One run inside the fork: execute the script on the virtual card, and say how it went. Child side, no pydantic."""

from __future__ import annotations

import linecache
import os
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oomdoctor.trial import guards, reporting, snapshots, watching
from oomdoctor.trial.limits import Limits, apply
from oomdoctor.trial.output import Output
from oomdoctor.trial.sandbox import Policy, enter
from oomdoctor.vgpu import HostExhausted, VirtualCard, renew
from oomdoctor.vgpu.refusals import card_is_full
from oomdoctor.vgpu.timeline import Timeline
from oomdoctor.vgpu.world import OpsExhausted

Tell = Callable[[dict[str, Any]], None]
Ending = tuple[str, str | None, int | None]

OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUTPUT_TAIL = 4000


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


def run(request: dict[str, Any], notes: list[str], tell: Tell) -> dict[str, Any]:
    """Execute ``request["source"]`` as ``__main__`` on ``request["cards"]``; the answer is a JSON-ready dict.

    Keys of the request: source, path, argv, cards, ram_bytes, recording, timeline, snapshot, replay, scratch, policy,
    limits. Confines this process for good before it does anything else.
    """
    from oomdoctor.loading import attention, session

    limits = Limits.from_dict(request.get("limits"))
    policy = Policy.from_dict({**request.get("policy", {}), "scratch": request["scratch"]})
    apply(limits)
    isolation = enter(policy)
    if policy.mode == "required" and isolation.name != "sandbox":
        return {"outcome": "refused", "error": isolation.missing}
    tell({"isolation": isolation.name, "by": isolation.mechanism or isolation.missing})
    session.current().scratch = Path(request["scratch"], "models")
    os.makedirs(session.current().scratch, exist_ok=True)
    cards = [VirtualCard.from_dict(c) for c in request["cards"]]
    world = renew(
        cards,
        ram_bytes=request.get("ram_bytes"),
        host_base_bytes=anonymous_bytes(),
        recording=bool(request.get("recording")),
        replay=bool(request.get("replay", True)),
    )
    world.ops_limit = limits.ops
    watching.follow(world, tell)
    if request.get("timeline"):
        for gpu in world.gpus:
            gpu.timeline = Timeline(gpu.card.total_bytes)
    if request.get("snapshot"):
        snapshots.record(world, request["path"])
    guarded = guards.install(
        request["scratch"], allow_network=policy.allow_network, allow_processes=policy.allow_processes
    )
    attention.prepare(request["source"])
    started = time.perf_counter()
    ending = _execute(request, world)
    world.settle()
    for gpu in world.gpus:
        gpu.finish()
        world.tracker.close_stage(gpu)
    answer = reporting.report(world, request, ending, notes)
    if request.get("snapshot"):
        answer["snapshot"] = snapshots.write(world, request["scratch"])
    answer |= {
        "wall_seconds": time.perf_counter() - started,
        "files": guarded.files(),
        "notes": guarded.notes(),
    }
    return answer


def _execute(request: dict[str, Any], world: Any) -> Ending:
    """(outcome, error, line of the script)."""
    import torch

    module = types.ModuleType("__main__")
    path = request["path"]
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv = [path, *request.get("argv", [])]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    captured = Output(OUTPUT_TAIL)
    world.script_output = captured
    outer = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = captured
    try:
        code = compile(request["source"], path, "exec", dont_inherit=True)
        # For tracebacks that show the lines, and for inspect.getsource (TorchScript). Without a time it is never stale.
        text = request["source"]
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        exec(code, module.__dict__)
    except torch.OutOfMemoryError as failure:
        return "oom", render(failure), script_line(failure, path)
    except HostExhausted as killed:
        return "oom", f"Killed\n({killed})", script_line(killed, path)
    except OpsExhausted as stopped:
        return "timeout", str(stopped), script_line(stopped, path)
    except SystemExit as leaving:
        if leaving.code in (None, 0):
            return "ok", None, None
        return "error", f"SystemExit: {leaving.code}\n{captured.last()}", script_line(leaving, path)
    except BaseException as failure:
        return "oom" if card_is_full(failure) else "error", render(failure), script_line(failure, path)
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
