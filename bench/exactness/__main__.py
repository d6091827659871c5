"""Are the figures of a measurement those of the really loaded models? Every family, every type, every quantiser.

    python bench/exactness [--models WORD ...] [--forms NAME ...] [--rows FILE] [--record FILE]

Tiny models of all component classes of the catalogue (``tiny.json``, made by ``shrink.py``) are saved with random
weights, loaded really and on the virtual card, and weighed; each figure must be equal to the byte. Prints what differs;
exit status 1 when anything does. ``--rows`` adds to what an earlier part of the bench found (other forms), ``--record``
writes the outcome for the repository.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import compare
import forms

TINY = Path(__file__).with_name("tiny.json")
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "bitsandbytes", "torchao", "gguf")


def chosen(words: list[str]) -> dict[str, object]:
    """The families whose id has one of the words; all without any."""
    families: dict[str, object] = json.loads(TINY.read_text())
    return {name: parts for name, parts in families.items() if not words or any(word in name for word in words)}


def summary(rows: list[compare.Row]) -> dict[str, dict[str, int]]:
    """Form -> figures that are equal, figures that differ."""
    count = Counter((row.key.rpartition("/")[2], "equal" if row.equal else "differ") for row in rows)
    return {name: {kind: count[name, kind] for kind in ("equal", "differ")} for name in forms.FORMS}


def record(rows: list[compare.Row], families: dict[str, object]) -> str:
    """The outcome as JSON: versions, families, counts by form and by figure, and every row that differs."""
    figures = Counter(row.figure for row in rows if row.equal)
    return json.dumps(
        {
            "versions": {name: version(name) for name in LIBRARIES},
            "families": sorted(families),
            "models": len({row.key.rpartition("/")[0] for row in rows}),
            "loads": len({row.key for row in rows}),
            "forms": summary(rows),
            "equal_figures": dict(sorted(figures.items())),
            "refused_by_the_library_itself": sorted(
                {f"{r.key}: {r.real}" for r in rows if r.figure == "load" and r.equal}
            ),
            "differences": [f"{r.key} {r.figure}: really {r.real}, measured {r.virtual}" for r in rows if not r.equal],
        },
        indent=1,
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="*", default=[], metavar="WORD", help="families whose id has one of the words"
    )
    parser.add_argument(
        "--forms", nargs="*", default=list(forms.FORMS), metavar="NAME", help="of " + ", ".join(forms.FORMS)
    )
    parser.add_argument("--rows", type=Path, metavar="FILE")
    parser.add_argument("--record", type=Path, metavar="FILE")
    options = parser.parse_args()
    families = chosen(options.models)
    with tempfile.TemporaryDirectory() as made:
        rows = compare.run(families, options.forms, Path(made))
    if options.rows:
        kept = [compare.Row(*r) for r in json.loads(options.rows.read_text())] if options.rows.is_file() else []
        rows = [r for r in kept if r.key.rpartition("/")[2] not in options.forms] + rows
        options.rows.write_text(json.dumps(rows))
    for name, count in summary(rows).items():
        if count["equal"] or count["differ"]:
            print(f"{name:<20}{count['equal']:>7} equal{count['differ']:>6} differ")
    for row in rows:
        if not row.equal:
            print(f"{row.key} {row.figure}: really {row.real}, measured {row.virtual}")
    if options.record:
        options.record.write_text(record(rows, families) + "\n")
    return 0 if rows and all(row.equal for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
