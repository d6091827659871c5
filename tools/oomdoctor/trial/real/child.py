"""The child of a real run: executes the script on the GPU of this machine and watches it. Child side: torch and the
standard library, no pydantic, nothing else of ours but :mod:`oomdoctor.trial.life`.

One JSON request on stdin; progress and the result leave as JSON lines on the file descriptor that the command line
names; what the script prints goes where it would have gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
import types
from typing import Any

ERROR_CHARACTERS = 12000


def _make_package(root: str) -> None:
    package = types.ModuleType("oomdoctor")
    package.__path__ = [root]
    sys.modules["oomdoctor"] = package
    trial = types.ModuleType("oomdoctor.trial")
    trial.__path__ = [os.path.join(root, "trial")]
    sys.modules["oomdoctor.trial"] = trial


def main(root: str, answers: int, life: int) -> None:
    _make_package(root)
    from oomdoctor.trial.life import end_with_pipe
    from oomdoctor.trial.real import holding, watching

    end_with_pipe(life)
    request = json.loads(sys.stdin.readline())
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        os.write(answers, json.dumps(message).encode() + b"\n")

    try:
        import torch
    except ImportError as error:
        send({"missing": "torch", "error": str(error)})
        return
    if not torch.cuda.is_available():
        send({"missing": "cuda", "error": "torch.cuda.is_available() is False"})
        return
    torch.cuda.init()
    free, total = torch.cuda.mem_get_info()
    held = holding.hold(request.get("limit_bytes"), free, total)
    watch = watching.Watch(
        send,
        fewest_steps=request["mode"] == "probe",
        save_to=request.get("save_to"),
        compare_to=request.get("compare_to", []),
    )
    watch.install()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    outcomes: list[dict[str, Any]] = []
    for _ in range(request.get("times", 1)):
        outcomes.append(_once(request, torch, watch))
        if outcomes[-1]["outcome"] != "ok":
            break
    answer = {
        **outcomes[-1],
        "seconds": time.perf_counter() - started,
        "stages": watch.finish(),
        "steps_run": watch.steps,
        "runs": outcomes,
        "name": torch.cuda.get_device_name(),
        "total_bytes": total,
        "free_bytes": free,
        "held_bytes": held,
        "torch": torch.__version__,
        "outputs": watch.outputs,
        "peak_allocated_bytes": max((s["peak_allocated_bytes"] for s in watch.stages), default=0),
        "peak_reserved_bytes": max((s["peak_reserved_bytes"] for s in watch.stages), default=0),
    }
    send({"result": answer})


def _once(request: dict[str, Any], torch: Any, watch: Any) -> dict[str, Any]:
    """The script from its first line to its last, once."""
    path = request["path"]
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv = [path, *request.get("argv", [])]
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    torch.manual_seed(request.get("seed", 0))
    outcome, error, line = "ok", None, None
    try:
        exec(compile(request["source"], path, "exec", dont_inherit=True), module.__dict__)
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            outcome, error, line = "error", f"SystemExit: {leaving.code}", _line(leaving, path)
    except BaseException as failure:
        outcome = "oom" if isinstance(failure, (torch.cuda.OutOfMemoryError, MemoryError)) else "error"
        error, line = traceback.format_exc()[-ERROR_CHARACTERS:], _line(failure, path)
        if outcome == "error" and "out of memory" in error.lower():
            outcome = "oom"
    with contextlib.suppress(RuntimeError):
        torch.cuda.synchronize()
    watch.close_stage()
    allocated = torch.cuda.memory_allocated()
    module.__dict__.clear()
    return {"outcome": outcome, "error": error, "script_line": line, "left_bytes": allocated}


def _line(failure: BaseException, path: str) -> int | None:
    line = None
    for frame in traceback.extract_tb(failure.__traceback__):
        if frame.filename == path:
            line = frame.lineno
    return line


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
