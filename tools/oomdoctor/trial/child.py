"""The zygote: a process of the user's interpreter that becomes virtual, imports the big libraries once and forks runs.

Started as a file, so nothing of ours needs to be installed there: a bare ``oomdoctor`` package is made on the spot,
of which only ``vgpu``, ``loading`` and ``trial`` are importable. Requests come as JSON lines on stdin, answers leave
as JSON lines on the file descriptor that the command line names, by way of :mod:`oomdoctor.trial.forking`; the script's own output never mixes with them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import types
from collections.abc import Iterable


def _make_package(root: str) -> None:
    package = types.ModuleType("oomdoctor")
    package.__path__ = [root]
    sys.modules["oomdoctor"] = package
    trial = types.ModuleType("oomdoctor.trial")
    trial.__path__ = [os.path.join(root, "trial")]
    sys.modules["oomdoctor.trial"] = trial


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


def _serve(fd: int, life: int, parent: int) -> None:
    from oomdoctor.trial.forking import Lines, Zygote, send
    from oomdoctor.trial.life import end_with_pipe

    end_with_pipe(life)
    if parent and os.getppid() != parent:
        return
    requests = Lines(0)
    first: list[bytes] = []
    while not first and requests.open:
        first = requests.read()
    if not first:
        return
    setup = json.loads(first[0])
    # Whatever the script prints goes to stderr of the run; fd carries answers only.
    os.dup2(2, 1)
    _hide_real_cards()
    try:
        import torch
    except ImportError as error:
        send(fd, {"ready": False, "missing": "torch", "error": str(error)})
        return
    torch.set_num_threads(1)
    torch.cuda.device_count()
    from oomdoctor.vgpu import VirtualCard, virtual_gpu

    card = VirtualCard.from_dict(setup["card"])
    notes: list[str] = []
    with virtual_gpu(card):
        from oomdoctor.loading.install import install
        from oomdoctor.trial import running, watch

        install(setup["loading"], notes)
        watch.install()
        versions = _imports(["diffusers", "transformers", "accelerate"])
        if versions["diffusers"].startswith("missing"):
            send(fd, {"ready": False, "missing": "diffusers", "error": versions["diffusers"]})
            return
        versions["torch"] = torch.__version__
        _warm(setup.get("warm") or ())
        gc.collect()
        gc.freeze()
        send(fd, {"ready": True, "versions": versions, "python": sys.version.split()[0]})
        Zygote(0, fd, life, parent, lambda request, tell: running.run(request, notes, tell)).obey()


def _warm(classes: Iterable[str]) -> None:
    """What nearly every run needs, and the ``classes`` that the coming ones will, imported once here instead of in
    each fork. ``diffusers.FluxPipeline``: only what the two libraries themselves hold is imported."""
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
    for name in classes:
        library, _, cls = name.partition(".")
        if library in ("diffusers", "transformers") and cls.isidentifier():
            with contextlib.suppress(ImportError, AttributeError, RuntimeError):
                getattr(importlib.import_module(library), cls)


def main() -> None:
    """``child.py ROOT ANSWERS LIFE PARENT``: our folder, two file descriptors, and the parent's process id (0: unknown)."""
    root, fd, life, parent = sys.argv[1], *map(int, sys.argv[2:5])
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]  # a script's `import watch` must not find ours
    _make_package(root)
    _serve(fd, life, parent)


if __name__ == "__main__":
    main()
