"""Damaged logs and scripts, for as long as you like: reading and rewriting never fail in a way that we did not foresee.

    python bench/fuzz.py [--minutes 10] [--seed 0]

Logs are the families' own examples and the shipped tracebacks; scripts are the docstring examples of the installed
diffusers and the shipped examples. Each round cuts, doubles, swaps and corrupts pieces of one or splices two together.
A log must give a Diagnosis or NoError, a script a Script or one of our errors; a rewritten script must compile when
the damaged one did, and writing the same strategy again must change nothing. What fails is printed with its seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from docstring_examples import examples

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from oomdoctor.diagnosis import diagnose
from oomdoctor.diagnosis.families import ALL
from oomdoctor.errors import OomDoctorError
from oomdoctor.rewrite import rewrite
from oomdoctor.script import read_script
from oomdoctor.values import Strategy

STRATEGIES = (
    "model_offload", "sequential_offload", "group_offload(leaf, stream=true)", "group_offload(block, blocks=2)",
    "fp8_casting", "bnb_nf4", "torchao_int8", "vae_tiling", "vae_slicing", "dtype(bf16)", "compile(regional)",
    "fp8_casting+model_offload+vae_tiling", "text_encoder_release", "batch_split",
)  # fmt: skip
NOISE = ("\x00", "\u202e", "\ufeff", "\r", "\t", "𝒙", "'''", '"""', "\\", "((((", "))))", "[", "{", "lambda: ", "#", "%",
         "99999999999999999999", "-1", "NaN", "GiB", "\x1b[31m", "</div>", "await ", "f'{", "async def f():\n")  # fmt: skip
SLOW_S = 5.0
"""Processor time that no text may take."""
LONGEST = 200_000
"""Characters; longer ones have tests of their own."""


def damaged(text: str, other: str, chance: random.Random) -> str:
    """``text`` after up to eight mutations."""
    for _ in range(chance.randint(1, 8)):
        text = text[:LONGEST]
        lines = text.splitlines(keepends=True) or [""]
        a = chance.randrange(len(lines))
        b = min(len(lines), a + chance.randint(1, 5))
        at = chance.randrange(len(text) + 1)
        kind = chance.randrange(9)
        if kind == 0:
            text = "".join(lines[:a] + lines[b:])
        elif kind == 1:
            text = "".join(lines[:b] + lines[a:b] * chance.randint(1, 30) + lines[b:])
        elif kind == 2:
            text = text[:at] + chance.choice(NOISE) + text[at:]
        elif kind == 3:
            text = text[:at]
        elif kind == 4:
            text = text[:at] + text[min(len(text), at + chance.randint(1, 40)) :]
        elif kind == 5:
            chance.shuffle(lines)
            text = "".join(lines)
        elif kind == 6:
            text = "".join(("    " * chance.randint(0, 3)) + line for line in lines)
        elif kind == 7:
            cut = chance.randrange(len(other) + 1)
            text = text[:at] + other[cut : cut + chance.randint(1, 400)] + text[at:]
        else:
            text = text.replace(chance.choice(("\n", " ", "(", "=", ".", "0", "pipe")), chance.choice(NOISE), 3)
    return text


def try_log(text: str, chance: random.Random) -> str:
    """Reads it; the word to count it under."""
    try:
        found = diagnose(text)
    except OomDoctorError as error:
        return type(error).__name__
    assert found.cause and len(found.model_dump_json()) < 200_000
    return "read"


def try_script(text: str, chance: random.Random) -> str:
    """Reads it and writes a strategy into it, twice."""
    try:
        read_script(text)
        strategy = Strategy.parse(chance.choice(STRATEGIES))
        patch = rewrite(text, strategy)
    except OomDoctorError as error:
        return type(error).__name__
    if _compiles(text):
        assert _compiles(patch.source), f"{strategy.id} makes it invalid"
    if patch.diff:
        try:
            again = rewrite(patch.source, strategy)
        except OomDoctorError:
            return "written"
        assert again.source == patch.source, f"{strategy.id} is not stable"
        return "written"
    return "left alone"


def _compiles(source: str) -> bool:
    try:
        compile(source, "x.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logs = [example.text for family in ALL for example in family.examples]
    logs += [p.read_text("utf-8") for p in sorted(ROOT.glob("examples/**/traceback.txt"))]
    scripts = [*examples().values(), *(p.read_text("utf-8") for p in sorted(ROOT.glob("examples/**/script.py")))]
    tried: Counter[str] = Counter()
    failures = 0
    end = time.monotonic() + options.minutes * 60
    number = options.seed
    while time.monotonic() < end:
        number += 1
        chance = random.Random(number)
        corpus, work = chance.choice(((logs, try_log), (scripts, try_script)))
        run: Callable[[str, random.Random], str] = work
        text = damaged(chance.choice(corpus), chance.choice(corpus), chance)
        begin = time.process_time()
        try:
            tried[f"{run.__name__}: {run(text, chance)}"] += 1
        except Exception:
            failures += 1
            print(f"seed {number}, {run.__name__}:\n{traceback.format_exc(limit=-6)}", flush=True)
        if (took := time.process_time() - begin) > SLOW_S:
            failures += 1
            print(f"seed {number}, {run.__name__}: {took:.1f} s for {len(text)} characters", flush=True)
    for name, count in sorted(tried.items()):
        print(f"{count:8d}  {name}")
    print(f"{sum(tried.values())} tried, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
