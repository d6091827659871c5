"""The record of the long comparison with PyTorch's own allocator: both versions, every option, nothing left unequal."""

from __future__ import annotations

import json
from pathlib import Path

RECORD = Path(__file__).parents[4] / "bench" / "recorded" / "allocator.json"
OPTIONS = (
    "expandable_segments", "max_split_size_mb", "max_non_split_rounding_mb", "roundup_power2_divisions",
    "garbage_collection_threshold", "release_lock_on_cudamalloc",
)  # fmt: skip
LATER = ("large_segment_size_mb", "per_process_memory_fraction", "throw_on_cudamalloc_oom")


def test_ten_thousand_steps_of_five_seeds_were_equal_in_both_versions() -> None:
    record = json.loads(RECORD.read_text())
    assert set(record) >= {"2.6", "2.13"}
    for version, rows in record.items():
        for name, row in rows.items():
            assert row["seeds"] == row["seeds_equal"] == 5, (version, name)
            assert row["steps_per_seed"] == 10_000, (version, name)
        confs = " ".join(row["conf"] for row in rows.values())
        for option in OPTIONS + (LATER if version == "2.13" else ()):
            assert option in confs, (version, option)
        assert {"native_1", "native_n", "native_pools", "pinned", "switching"} <= set(rows)
        assert sum(row["refusals"] for row in rows.values()) > 1000
