"""The generated catalogue has everything that tables are made of, and plain data only."""

from __future__ import annotations

import json

import pytest
from oomdoctor.techniques import all_techniques, clashes
from oomdoctor.techniques.catalogue import Entry, catalogue
from oomdoctor.values import Quality

ENTRIES = [pytest.param(e, id=e.name) for e in catalogue()]


def test_it_lists_every_technique_once_in_script_order() -> None:
    assert [e.name for e in catalogue()] == list(all_techniques())


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_is_complete(entry: Entry) -> None:
    assert entry.about and entry.examples and entry.refusals and entry.tags
    assert "``" not in entry.about
    assert entry.quality in [q.value for q in Quality]
    assert entry.written, "some example shows how it is asked for"
    assert all(clashes(entry.name, other) for other in entry.conflicts)
    assert json.loads(json.dumps(entry.as_json()))["name"] == entry.name


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_word_and_option_is_explained(entry: Entry) -> None:
    known = all_techniques()[entry.name]
    named = {o.name for o in entry.options}
    assert named >= set(known.keys)
    assert all(o.summary.endswith(".") for o in entry.options), [o.name for o in entry.options if not o.summary]
