"""How right and how fast ``diagnose`` is.

``python bench/diagnosis.py [--cases FILE] [--json] [--misses]``
    times the reading of logs of 0.1, 1 and 10 MB, and judges it on a file of reported cases (JSON lines) when one is
    given, or found as ``data/oom-cases.jsonl`` under ``$OOMDOCTOR_SHARED`` or a folder ``shared`` beside the repository.

A case has the report's ``title``, its ``oom_message``, ``frames``, and labels given by readers of the report:
``is_oom``, ``cause_group`` and ``cause_class``, ``family``, ``stage``. The tables below say which of our kinds and
stages are a right reading of each label; they are wider than one only where the message alone cannot tell, or where
the label names another axis than our kind does (a VAE's peak can show as one tensor or as fragmentation).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oomdoctor.diagnosis import diagnose
from oomdoctor.errors import NoError
from oomdoctor.values import Diagnosis

Case = dict[str, Any]

KINDS = {
    "whole pipeline put on the card": {"vram_capacity", "load_time"},
    "one component bigger than the card": {"vram_capacity", "load_time"},
    "host RAM": {"host_ram"},
    "VAE decode/encode peak": {"vram_capacity", "single_tensor", "fragmentation"},
    "size of the job": {"vram_capacity", "single_tensor"},
    "attention score matrix": {"single_tensor"},
    "masked OOM": {"masked"},
    "pinned host memory": {"pinned_ram", "host_ram"},
    "training activations": {"vram_capacity"},
    "another process": {"other_process"},
    "memory kept between calls": {"vram_capacity", "fragmentation"},
    "MPS watermark": {"vram_capacity"},
    "other": {"vram_capacity", "load_time"},
    "not_oom": {"not_memory"},
}
"""Cause group (how it begins) -> kinds that are right."""
CLASSES = {
    # The group of allocator troubles is of many kinds; its classes are of one each.
    "fragmentation": {"fragmentation"},
    "single_allocation_limit": {"single_tensor"},
    "single_allocation_limit_wsl2": {"single_tensor"},
    "allocator_advice_harmful": {"single_tensor"},
    "free_but_refused": {"host_ram"},
    "wddm_reports_free_but_fails": {"host_ram"},
    "user_set_memory_fraction": {"vram_capacity", "fragmentation"},
    "sysmem_oversubscription": {"vram_capacity"},
    "pluggable_allocator_double_count": {"vram_capacity"},
    "non_fatal_warning": {"vram_capacity"},
}
"""Cause class -> kinds that are right; wins over the group."""
MASKS = {
    "cublas": {"masked"},
    "cudnn": {"masked"},
    "nvml_assert": {"masked"},
    "cuda_driver": {"masked", "pinned_ram"},
    "illegal_access": {"not_memory"},
}
"""Message family -> kinds that are right, whatever the cause behind it: these texts carry no figures."""
STAGES = {
    "denoise": {"denoise"},
    "vae decode": {"vae_decode"},
    "vae encode": {"vae_encode"},
    "text encode": {"text_encode"},
    "load": {"load", "place"},
    "quantize-load": {"quantize", "load"},
    "to(device)": {"place"},
    "training": {"training"},
    "compile": {"compile"},
    "other": {"unknown", "post", "image_encode"},
}
"""Stage label -> our stages. Their *load* covers page-locking and placing at start-up, which is our *place*."""
STAND_INS = {
    "hip": "torch.OutOfMemoryError: HIP out of memory.",
    "mps": "RuntimeError: MPS backend out of memory",
    "host": "Killed",
    "cuda_driver": "RuntimeError: CUDA error: out of memory",
}
"""For reports whose message was not kept (stages only): the plainest message of its family; else CUDA's."""

_NOTE = re.compile(r"^(?:\[rank\d+\] )?(.*?\.py)(?::(\d+))?(?: (<?[A-Za-z_][\w.]*>?):?(?![\w(.\[=]))?(?: ?(.*))?$")
_LOG = "2026-01-02 03:04:05,678 INFO worker: step 12 loss 0.123  24%|██▍       | 12/50 [00:24<01:16,  2.0s/it]\n"
_TRACEBACK = (
    'Traceback (most recent call last):\n  File "/w/draw.py", line 3, in <module>\n    image = pipe(prompt)\n'
    + '  File "/v/site-packages/torch/nn/modules/module.py", line 1775, in _wrapped_call_impl\n    return f(*args)\n'
    * 30
    + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 12.00 GiB\n"
)


@dataclass
class Score:
    """Right answers out of how many, and the ids of the wrong ones with what was said."""

    right: int = 0
    of: int = 0
    misses: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.right / self.of if self.of else 0.0

    def add(self, name: str, got: object, right: bool) -> None:
        self.of += 1
        self.right += right
        if not right:
            self.misses.append(f"{name}: {got}")


def pasted(case: Case, *, title: bool = False) -> str:
    """The case as a person would paste it: its title if wanted, its frames as a traceback, its message."""
    lines = [case["title"]] if title else []
    if case["frames"]:
        lines.append("Traceback (most recent call last):")
    for note in case["frames"]:
        if m := _NOTE.match(note):
            lines.append(f'  File "{m.group(1)}", line {m.group(2) or 1}, in {m.group(3) or "<module>"}')
            lines.extend([f"    {m.group(4)}"] if m.group(4) else [])
        else:
            lines.append(f"  {note}")
    stand_in = STAND_INS.get(case["family"], "torch.OutOfMemoryError: CUDA out of memory.")
    return "\n".join([*lines, case["oom_message"] if case["message_is_verbatim"] else stand_in])


def right_kinds(case: Case) -> set[str]:
    """The kinds that are a right reading of the case's labels."""
    if case["is_oom"] and case["family"] in MASKS:
        return MASKS[case["family"]]
    if case["cause_class"] in CLASSES:
        return CLASSES[case["cause_class"]]
    return next((kinds for group, kinds in KINDS.items() if case["cause_group"].startswith(group)), set())


def read(text: str) -> Diagnosis | None:
    """The diagnosis, None for *there is no error in this text*."""
    try:
        return diagnose(text)
    except NoError:
        return None


def judge(cases: Iterable[Case]) -> dict[str, Score]:
    """Scores: ``memory`` and ``kind`` on verbatim messages with their frames, ``stage`` where frames were the basis.

    ``stage`` reads the report as it was posted, title included; ``stage_without_title`` only frames and message.
    """
    scores = {name: Score() for name in ("memory", "kind", "stage", "stage_without_title")}
    for case in cases:
        d = read(pasted(case))
        if case["message_is_verbatim"]:
            scores["memory"].add(case["id"], d and d.kind.value, (d is not None and d.is_oom) == case["is_oom"])
            kind = d.kind.value if d else "not_memory"
            scores["kind"].add(case["id"], kind, kind in right_kinds(case))
        if case["stage_basis"].startswith("frames"):
            for name, text in (("stage", pasted(case, title=True)), ("stage_without_title", pasted(case))):
                d = read(text)
                stage = d.stage.value if d else "unknown"
                scores[name].add(case["id"], stage, stage in STAGES[case["stage"]])
    return scores


def find_cases() -> Path | None:
    """The shared file of cases, when this checkout has one."""
    named = os.environ.get("OOMDOCTOR_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    file = folder / "data" / "oom-cases.jsonl"
    return file if file.is_file() else None


def load_cases(file: Path) -> list[Case]:
    """One case a line."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def timings(repeat: int = 3) -> dict[str, float]:
    """Seconds to read logs of several sizes that end in an error; the best of ``repeat``."""
    found = {}
    for name, characters in (("traceback only", 0), ("0.1 MB", 100_000), ("1 MB", 1_000_000), ("10 MB", 10_000_000)):
        text = _LOG * (characters // len(_LOG)) + _TRACEBACK
        best = float("inf")
        for _ in range(repeat):
            begin = time.perf_counter()
            diagnose(text)
            best = min(best, time.perf_counter() - begin)
        found[name] = best
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, help="JSON lines; by default the shared file when it is there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--misses", action="store_true", help="also print the cases that were read wrongly")
    given = parser.parse_args(argv)
    file = given.cases or find_cases()
    seconds = timings()
    scores = judge(load_cases(file)) if file else {}
    if given.json:
        print(json.dumps({"seconds": seconds, "scores": {k: vars(v) for k, v in scores.items()}}, indent=2))
        return 0
    for name, best in seconds.items():
        print(f"{name:>22}: {best * 1000:7.1f} ms")
    for name, score in scores.items():
        print(f"{name:>22}: {score.right}/{score.of} = {score.share:.1%}")
        for miss in score.misses if given.misses else ():
            print(f"{'':>24}{miss}")
    if not file:
        print("no file of cases: accuracy was not judged", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
