"""What publishers say their models weigh, against the catalogue, and the record of all that was compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oomdoctor.models import resolve

RECORD = Path(__file__).resolve().parents[3] / "bench" / "recorded" / "published.json"
SHARED = Path("/work/shared/data/model-published.json")


def test_every_published_figure_agrees_or_is_explained() -> None:
    rows = json.loads(RECORD.read_text())
    assert len(rows) >= 74
    assert [row for row in rows if not row["agrees"]] == []
    exact = [row for row in rows if row["kind"] == "exact"]
    assert len(exact) >= 11 and all(row["measured"] == row["published"] for row in exact)
    explained = [row for row in rows if "deviation" in row]
    assert len(explained) <= 4


def test_the_record_is_of_this_catalogue() -> None:
    for row in json.loads(RECORD.read_text()):
        part = resolve(row["repo"]).component(row["component"])
        assert part is not None and part.params is not None
        if row["what"] == "parameters":
            assert row["measured"] == part.params, row
        elif "deviation" not in row:
            assert row["measured"] % (part.params + part.buffers) == 0, row


@pytest.mark.skipif(not SHARED.is_file(), reason="the published figures are not on this machine")
def test_no_figure_is_left_out() -> None:
    recorded = {(row["repo"], row["component"], row["kind"]) for row in json.loads(RECORD.read_text())}
    given = {(row["repo"], row["component"], row["kind"]) for row in json.loads(SHARED.read_text())}
    assert given <= recorded
