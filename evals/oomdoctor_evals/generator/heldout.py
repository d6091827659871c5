"""A held-out set: the same families with other constants, drawn by a secret seed; a lock pins what was drawn.

The seed is never written down; the lock holds digests only, so that a set can be recognised and not be foretold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from oomdoctor.errors import InputError

from oomdoctor_evals.generator.build import Mislabelled, build, write
from oomdoctor_evals.generator.families import all_families
from oomdoctor_evals.sim.cache import digest_of
from oomdoctor_evals.sim.simulator import Simulator

GENERATOR_VERSION = 1
LOCK = Path(__file__).parents[1] / "scenarios" / "heldout.lock"


def generate(
    seed: str, root: Path, simulator: Simulator, tell: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Draw, build and write every family below ``root``. Variants that the draw makes untrue are left out, by name.

    Raises :class:`InputError` for a seed that could be guessed.
    """
    if len(seed) < 16:
        raise InputError("The seed of a held-out set needs 16 characters or more; `openssl rand -hex 16` makes one.")
    written = []
    for family in all_families():
        for variant in family.variants:
            try:
                built = build(simulator, family, variant, seed=seed, split="heldout")
            except Mislabelled as reason:
                tell(f"left out: {reason}")
                continue
            written.append(write(built, root))
            tell(f"written: {built.id}")
    drop_single_twins(written)
    return written


def drop_single_twins(folders: list[Path]) -> None:
    """Twins whose other half was left out stand alone."""
    ids = {f"{f.parent.name}/{f.name}" for f in folders}
    for folder in folders:
        path = folder / "scenario.json"
        meta = json.loads(path.read_text())
        if meta["twin"] and meta["twin"] not in ids:
            path.write_text(json.dumps({**meta, "twin": None}, indent=1) + "\n")


def lock_of(root: Path, seed: str) -> dict[str, object]:
    """What pins a held-out set: digests of seed and scenarios, number, version of the generator."""
    scenarios = sorted(p.parent for p in root.glob("*/*/scenario.json"))
    if not scenarios:
        raise InputError(f"There is no scenario in {root} to lock.")
    total = hashlib.sha256()
    for folder in scenarios:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return {
        "generator": GENERATOR_VERSION,
        "families": digest_of(Path(__file__).parent / "families"),
        "seed_sha256": hashlib.sha256(seed.encode()).hexdigest(),
        "scenarios": len(scenarios),
        "sha256": total.hexdigest(),
    }
