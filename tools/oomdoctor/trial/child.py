"""The zygote: a process of the user's interpreter that becomes virtual, imports the big libraries once and forks runs.

Started as a file, so nothing of ours needs to be installed there: a bare ``oomdoctor`` package is made on the spot,
of which only ``vgpu``, ``loading`` and ``trial`` are importable. Requests come as JSON lines on stdin, answers leave
as JSON lines on the file descriptor that the command line names; the script's own output never mixes with them.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import types
from typing import Any, NoReturn


def _make_package(root: str) -> None:
    package = types.ModuleType("oomdoctor")
    package.__path__ = [root]
    sys.modules["oomdoctor"] = package
    trial = types.ModuleType("oomdoctor.trial")
    trial.__path__ = [os.path.join(root, "trial")]
    sys.modules["oomdoctor.trial"] = trial


def _send(fd: int, message: dict[str, Any]) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")


def _hide_real_cards() -> None:
    """Nothing may land on a real card: none is visible, and torch is asked for the count once so that it stays so."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
        os.environ[name] = "" if name != "ZE_AFFINITY_MASK" else "none"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"


def _imports(names: list[str]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            module = importlib.import_module(name)
            versions[name] = str(getattr(module, "__version__", "?"))
        except ImportError as error:
            versions[name] = f"missing: {error}"
    return versions


def _serve(fd: int) -> None:
    first = sys.stdin.readline()
    if not first:
        return
    setup = json.loads(first)
    # Whatever the script prints goes to stderr of the run; fd carries answers only.
    os.dup2(2, 1)
    _hide_real_cards()
    try:
        import torch
    except ImportError as error:
        _send(fd, {"ready": False, "missing": "torch", "error": str(error)})
        return
    torch.set_num_threads(1)
    torch.cuda.device_count()
    from oomdoctor.vgpu import VirtualCard, virtual_gpu

    card = VirtualCard.from_dict(setup["card"])
    notes: list[str] = []
    with virtual_gpu(card):
        from oomdoctor.loading.install import install
        from oomdoctor.trial import watch

        install(setup["loading"], notes)
        watch.install()
        versions = _imports(["diffusers", "transformers", "accelerate"])
        if versions["diffusers"].startswith("missing"):
            _send(fd, {"ready": False, "missing": "diffusers", "error": versions["diffusers"]})
            return
        versions["torch"] = torch.__version__
        _warm()
        import gc

        gc.collect()
        gc.freeze()
        _send(fd, {"ready": True, "versions": versions, "python": sys.version.split()[0]})
        _obey(fd, notes)


def _obey(fd: int, notes: list[str]) -> None:
    """Requests one after the other, until stdin closes."""
    waiting: list[str] = []
    while line := waiting.pop(0) if waiting else sys.stdin.readline():
        request = json.loads(line)
        if "cards" in request:  # a late "cancel" is for a run that has already ended
            waiting += _fork_and_wait(fd, request, notes)


def _warm() -> None:
    """Modules that nearly every run needs, imported once here instead of in each fork."""
    for name in (
        "diffusers.pipelines.pipeline_utils",
        "diffusers.hooks",
        "accelerate.hooks",
        "transformers.modeling_utils",
        "diffusers.models.autoencoders.autoencoder_kl",
        "diffusers.loaders",
    ):
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def _fork_and_wait(fd: int, request: dict[str, Any], notes: list[str]) -> list[str]:
    """Run one request in a fork; end it when the parent goes away (stdin closes) or asks for it.

    Returns the lines that came meanwhile and are for later: the next request may arrive before the fork has gone.
    """
    later: list[str] = []
    pid = os.fork()
    if pid == 0:
        _run_and_exit(fd, request, notes)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        readable, _, _ = select.select([sys.stdin], [], [], 0.05)
        if readable:
            line = sys.stdin.readline()
            if line and not json.loads(line).get("cancel"):
                later.append(line)
            else:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                if not line:
                    os._exit(3)
                _send(fd, {"id": request["id"], "cancelled": True})
                return later
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        _send(fd, {"id": request["id"], "crashed": code})
    return later


def _run_and_exit(fd: int, request: dict[str, Any], notes: list[str]) -> NoReturn:
    from oomdoctor.trial import running

    parent = os.getppid()
    running.die_with(parent)
    try:
        answer = running.run(
            request,
            notes,
            lambda stage, component: _send(fd, {"id": request["id"], "stage": stage, "component": component}),
        )
        _send(fd, {"id": request["id"], "result": answer})
        os._exit(0)
    except BaseException:
        import traceback

        _send(fd, {"id": request["id"], "defect": traceback.format_exc()[-8000:]})
        os._exit(0)


if __name__ == "__main__":
    _make_package(sys.argv[1])
    _serve(int(sys.argv[2]))
