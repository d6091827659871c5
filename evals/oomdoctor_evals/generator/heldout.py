"""A held-out set: the same families with other constants, drawn by a secret seed; a lock pins what was drawn.

The seed is never written down; the lock holds digests only, so that a set can be recognised and not be foretold. It pins
questions (scripts, cards, memory, wishes), which a draw decides without a single run: what the best answers are is
measured when the set is built, with the simulator of that day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from oomdoctor.errors import InputError

from oomdoctor_evals.generator.build import Mislabelled, build, question, write
from oomdoctor_evals.generator.families import all_families
from oomdoctor_evals.sim.cache import digest_of
from oomdoctor_evals.sim.simulator import Simulator

GENERATOR_VERSION = 2
FAMILIES = Path(__file__).parent / "families"
LOCK = Path(__file__).parents[1] / "scenarios" / "heldout.lock"


def generate(
    seed: str, root: Path, simulator: Simulator, tell: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Draw, build and write every family below ``root``. Variants that the draw makes untrue are left out, by name.

    Raises :class:`InputError` for a seed that could be guessed, and for the pinned seed when the families have changed
    since: it would draw something else.
    """
    pinned = json.loads(LOCK.read_text(encoding="utf-8")) if LOCK.is_file() else {}
    lock = lock_of(seed)
    if pinned.get("seed_sha256") == lock["seed_sha256"] and pinned != lock:
        raise InputError(
            f"{LOCK.name} pins another draw of this seed: the families have changed since. Pin a new seed."
        )
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


def lock_of(seed: str) -> dict[str, object]:
    """What pins a held-out set: digests of the seed and of every question that it draws, their number, the families.

    Raises :class:`InputError` for a seed that could be guessed.
    """
    if len(seed) < 16:
        raise InputError("The seed of a held-out set needs 16 characters or more; `openssl rand -hex 16` makes one.")
    questions = [question(family, variant, seed) for family in all_families() for variant in family.variants]
    return {
        "generator": GENERATOR_VERSION,
        "families": digest_of(FAMILIES),
        "seed_sha256": hashlib.sha256(seed.encode()).hexdigest(),
        "scenarios": len(questions),
        "sha256": hashlib.sha256(json.dumps(questions, sort_keys=True).encode()).hexdigest(),
    }
