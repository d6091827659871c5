"""What loading, casting and quantising hold in RAM at their worst: a real model of this machine against the virtual one.

    python bench/accuracy/host_memory.py [--layers 3] [--record bench/recorded/host_memory.json]

A transformer of random weights, as wide as FLUX.1's, is saved once (between 1 and 2 GiB in half precision). Each case loads it for real and
virtually, each in a fork of its own of a process that has only imported the libraries. Compared are private memory
(RssAnon) and file pages (RssFile) at the end, and the highest private memory on the way, read a thousand times a second.
Linux only. No card is needed, so pinned copies are not among the cases.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

MIB = 1 << 20
CASES = {
    "as saved": "load('float16')",
    "cast while loading": "load('float32')",
    "cast after loading": "load('float16').float()",
    "to the same type": "load('float16').half()",
    "layerwise casting": "casting(load('float16'))",
    "torchao int8 weights": "quantised(load('float16'))",
    "let go": "gone(load('float16'))",
    "two of them": "(load('float16'), load('float16'))",
}


def in_a_fork(work: Callable[[], Any]) -> Any:
    """The value of ``work``, computed in a child that ends with it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return json.loads(said)


def held(key: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(key))


class Highest:
    """The highest private memory since the start, watched from a thread."""

    def __init__(self) -> None:
        self.bytes = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        with open("/proc/self/statm") as figures:
            page = os.sysconf("SC_PAGE_SIZE")
            while not self.over.is_set():
                figures.seek(0)
                _, resident, shared, *_ = figures.read().split()
                self.bytes = max(self.bytes, (int(resident) - int(shared)) * page)
                time.sleep(0.001)

    def stop(self) -> int:
        self.over.set()
        self.thread.join()
        return self.bytes


def names(path: str) -> dict[str, Any]:
    """What the cases may call."""
    import torch
    from diffusers import SD3Transformer2DModel

    def load(dtype: str) -> Any:
        return SD3Transformer2DModel.from_pretrained(path, torch_dtype=getattr(torch, dtype))

    def casting(model: Any) -> Any:
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float16)
        return model

    def quantised(model: Any) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(model, Int8WeightOnlyConfig())
        return model

    def gone(model: Any) -> Any:
        del model
        return gc.collect()

    return {"load": load, "casting": casting, "quantised": quantised, "gone": gone}


def touched(kept: Any) -> None:
    """Read every page of what is kept: mapped pages count once they were read."""
    for model in kept if isinstance(kept, tuple) else (kept,):
        for parameter in model.parameters() if hasattr(model, "parameters") else ():
            plain = getattr(parameter, "qdata", getattr(parameter, "tensor_impl", parameter))
            if hasattr(plain, "flatten") and hasattr(plain, "untyped_storage"):
                plain.detach().flatten()[::512].clone()


def save(path: str, layers: int) -> int:
    import torch
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=32, num_layers=layers, attention_head_dim=64, num_attention_heads=48, caption_projection_dim=3072,
        joint_attention_dim=1024, pooled_projection_dim=512, pos_embed_max_size=32,
    ).to(torch.float16)  # fmt: skip
    model.save_pretrained(path)
    return sum(p.numel() for p in model.parameters())


def real(path: str, case: str) -> list[int]:
    """Private memory and file pages at the end, and the most private memory: all above what the imports hold."""
    known = names(path)
    if "quantised" in case:
        import torchao.quantization  # noqa: F401  (imports are not what is measured)
    anonymous, mapped, watch = held("RssAnon"), held("RssFile"), Highest()
    kept = eval(case, known)
    gc.collect()
    touched(kept)
    return [held("RssAnon") - anonymous, held("RssFile") - mapped, watch.stop() - anonymous]


def virtual(path: str, scratch: str, case: str) -> list[int]:
    from oomdoctor.loading.install import install
    from oomdoctor.vgpu import VirtualCard, virtual_gpu

    with virtual_gpu(VirtualCard("a", "A", total_bytes=8 << 30)) as world:
        install({"catalogue": "", "configs": [], "like": {}, "hf_cache": None, "scratch": scratch}, [])
        known = names(path)
        host = world.host
        before = dict(host.by_kind)
        kept = eval(case, known)
        gc.collect()
        out = [host.by_kind[kind] - before[kind] for kind in ("anonymous", "mapped")]
        del kept
        return [*out, host.peak - host.base - before["anonymous"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import diffusers.models.modeling_utils  # noqa: F401  (imported before the forks)

    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        parameters = in_a_fork(lambda: save(path, options.layers))
        print(
            f"{parameters / 1e6:.0f} million parameters, {2 * parameters / 2**30:.2f} GiB as saved; MiB, real / virtual"
        )
        print(f"{'':24} {'private, end':>18} {'file pages, end':>18} {'private, highest':>18}")
        for name, case in CASES.items():
            got = in_a_fork(lambda case=case: real(path, case))
            said = in_a_fork(lambda case=case: virtual(path, folder, case))
            rows[name] = {"real": got, "virtual": said}
            pairs = [f"{a / MIB:7.0f} / {b / MIB:7.0f}" for a, b in zip(got, said, strict=True)]
            print(f"{name:24} " + " ".join(f"{pair:>18}" for pair in pairs), flush=True)
    worst = max(abs(row["real"][2] - row["virtual"][2]) for row in rows.values())
    print(f"the highest private memory is at most {worst / MIB:.0f} MiB off")
    if options.record:
        record = {"parameters": parameters, "order": ["anonymous", "mapped", "highest anonymous"], "cases": rows}
        options.record.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
