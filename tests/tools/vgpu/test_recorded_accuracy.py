"""The recorded comparison with published peaks: enough rows of every kind, the bars it meets, a mechanism for the rest."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[3] / "bench" / "recorded"
ACCURACY: dict[str, Any] = json.loads((RECORDED / "accuracy.json").read_text())
ROWS: list[dict[str, Any]] = ACCURACY["rows"]
FAMILIES = {
    "resident", "model offload", "sequential offload", "group offload", "vae tiling", "vae alone", "bitsandbytes",
    "torchao", "gguf", "layerwise casting", "compile", "fused QKV",
}  # fmt: skip


def test_rows_of_every_family_were_compared() -> None:
    assert len(ROWS) == ACCURACY["summary"]["rows"] >= 120
    assert ACCURACY["summary"]["tensor_cores"] >= 60
    assert {family for row in ROWS for family in row["families"]} >= FAMILIES
    for row in ROWS:
        assert abs(100 * (row["predicted"] / row["published"] - 1) - row["error_percent"]) < 0.01


def test_allocated_peaks_are_within_the_bars() -> None:
    errors = sorted(abs(row["error_percent"]) for row in ROWS if row["counter"] == "allocated")
    assert statistics.median(errors) <= 2.0
    assert errors[round(0.95 * (len(errors) - 1))] <= 8.0


def test_every_large_error_names_its_mechanism() -> None:
    assert not [row["row"] for row in ROWS if abs(row["error_percent"]) > 5.0 and not row["why"]]


def test_rivals_were_held_against_the_same_rows() -> None:
    ours = ACCURACY["summary"]["ours_on_the_same_rows"]
    for rival in ACCURACY["summary"]["rivals"].values():
        assert rival["rows"] == ours["rows"] > 20
        assert rival["median"] > ours["median"]


def test_private_memory_of_real_loads_is_met() -> None:
    cases = json.loads((RECORDED / "host_memory.json").read_text())["cases"]
    assert len(cases) >= 8
    for name, case in cases.items():
        real, predicted = case["real"][2], case["virtual"][2]
        assert abs(real - predicted) <= 64 << 20 or abs(predicted / real - 1) <= 0.10, name
