"""Every docstring example of the installed diffusers times every technique: is each patch right, and how fast is it?

    python bench/rewriter.py [--json] [--only STRATEGY] [--sample N] [--quick] [--record [--minutes N]]

A cell is one example and one strategy. Where the strategy is legal, the patched script must parse and compile, a second
rewrite must change nothing, lines that have nothing to do with loading, placing, calling or a technique must be there
byte for byte, and taking the strategy out again must leave no trace. The bars: 60 s for all examples and one strategy,
150 ms for reading and rewriting a script of 300 lines, and no failing cell. ``--record`` keeps the counts, the reasons
of all refusals and the times in ``bench/recorded/rewriter.json``.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tools"), str(Path(__file__).parent)]

from docstring_examples import examples
from oomdoctor.errors import NotApplicable
from oomdoctor.rewrite import revert, rewrite
from oomdoctor.script import read_script
from oomdoctor.techniques import Context
from oomdoctor.techniques.catalogue import Entry, catalogue
from oomdoctor.techniques.quantisation import configurations
from oomdoctor.values import Script, Span, Strategy

PLAIN = Strategy()
REFERENCE = Strategy.parse("model_offload")
VERSIONS = {"diffusers": "0.42.1", "transformers": "5.23.0", "accelerate": "1.15.0", "torch": "2.13.0"}
RECORD = Path(__file__).parent / "recorded" / "rewriter.json"
SPEED = "dtype(bf16)+fp8_casting+model_offload+vae_tiling"


def strategies() -> tuple[str, ...]:
    """Each technique by itself, with each of its words, as its examples ask for it, and some combinations."""
    found = [s for entry in catalogue() for s in _of(entry)]
    found += [SPEED, "fp8_casting+group_offload(leaf, stream=true)+vae_tiling+compile(regional)"]
    return tuple(dict.fromkeys(found))


def _of(entry: Entry) -> list[str]:
    words = [o.name for o in entry.options if o.kind == "word"]
    return [entry.name, *(f"{entry.name}({w})" for w in words), *entry.written]


@cache
def read(source: str) -> Script:
    """A script, read once."""
    return read_script(source)


def check(source: str, strategy: Strategy) -> str | None:
    """What is wrong with the patch; None when nothing is. Raises NotApplicable where the strategy is not legal."""
    script = read(source)
    patch = rewrite(source, strategy, script=script, versions=VERSIONS)
    try:
        compile(patch.source, "patched.py", "exec")
    except SyntaxError as reason:
        return f"does not compile: {reason}"
    again = rewrite(patch.source, strategy, versions=VERSIONS)
    if again.diff:
        return "a second rewrite changes something:\n" + again.diff
    if lost := _lost(source, patch.source, script):
        return f"a line that has nothing to do with it changed: {lost!r}"
    if patch.changed and not patch.reasons:
        return "no reason is given"
    back = revert(patch.source, strategy, versions=VERSIONS)
    if revert(back.source, strategy, versions=VERSIONS).diff:
        return "taking it out twice changes something the second time"
    return _residue(source, back.source, strategy)


def _lost(before: str, after: str, script: Script) -> str | None:
    lines = before.splitlines()
    kept = Counter(after.splitlines())
    ours = changeable(before, script)
    wanted = Counter(line for number, line in enumerate(lines, 1) if number not in ours and line.strip())
    return next((line for line, count in wanted.items() if kept[line] < count), None)


def changeable(source: str, script: Script) -> set[int]:
    """Lines of imports, loads, placements, calls, configurations and techniques: what a rewrite may touch."""
    use = script.main
    assert use is not None
    spans: list[Span | None] = [use.load_statement, use.bound_statement, *(c.span for c in use.components)]
    for one in (*use.placements, *use.optimisations, *use.adapters, *use.calls, *use.part_calls, *script.settings):
        spans += [one.statement, one.span]
    lines = {n for s in spans if s is not None for n in range(s.line, s.end_line + 1)}
    for config in configurations(Context(script, use), ast.parse(source)).values():
        if config.statement is not None:
            lines |= set(range(config.statement.lineno, (config.statement.end_lineno or 0) + 1))
    imports = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom))
    lines |= {line for n in imports for line in range(n.lineno, (n.end_lineno or n.lineno) + 1)}
    return lines | {k.line for k in script.environment.values() if k.line}


def _residue(before: str, back: str, strategy: Strategy) -> str | None:
    """Brought to one common strategy, a script that had it and one that never had it are the same."""
    names = [a.technique for a in strategy.applications]
    others = [n for entry in catalogue() if entry.name in names for n in entry.conflicts]
    for name in (*names, *others):
        before = revert(before, Strategy.parse(name), versions=VERSIONS).source
        back = revert(back, Strategy.parse(name), versions=VERSIONS).source
    try:
        first = rewrite(revert(before, PLAIN, versions=VERSIONS).source, REFERENCE, versions=VERSIONS).source
        second = rewrite(revert(back, PLAIN, versions=VERSIONS).source, REFERENCE, versions=VERSIONS).source
    except NotApplicable:
        return None
    same = sorted(_code(first)) == sorted(_code(second))
    if "text_encoder_release" in names:  # the words come back side by side, whatever stood between them
        same = _statements(first) == _statements(second)
    if same or strategy.id.startswith(("modern_api", "low_ram_loading", "dtype")):
        return None
    import difflib

    rows = difflib.unified_diff(_code(first), _code(second), "never had it", "had it", lineterm="")
    return "taking it out leaves a trace:\n" + "\n".join(rows)


def _code(source: str) -> list[str]:
    return [line.rstrip() for line in source.splitlines() if line.strip() and not line.startswith(("import ", "from "))]


def _statements(source: str) -> list[str]:
    """The code of all statements without layout and without the order of keywords."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            node.keywords.sort(key=lambda k: k.arg or "")
    return sorted(_code("\n".join(ast.unparse(s) for s in tree.body)))


def script_of(lines: int) -> str:
    """A script of at least so many lines: one pipeline, and a lot that is not our business."""
    from script_reader import script

    head = (
        "import torch\nfrom diffusers import FluxPipeline\n\n"
        'pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")\npipe.to("cuda")\n'
        'image = pipe("a cat", height=1024, width=1024).images[0]\n'
    )
    return head + script(lines - 7)


def milliseconds(lines: int) -> float:
    """Processor time to read and rewrite such a script, best of five."""
    source, strategy, times = script_of(lines), Strategy.parse(SPEED), []
    for _ in range(5):
        start = time.process_time()
        rewrite(source, strategy, versions=VERSIONS)
        times.append(time.process_time() - start)
    return min(times) * 1000


def reasons(refused: NotApplicable) -> list[str]:
    """Each reason of a refusal, without the names that differ from script to script."""
    words = str(refused).partition(" cannot be written into this script. ")[2].partition(" `oom-doctor")[0]
    parts = re.split(r"(?<=\.) (?=[a-z_0-9]+: |[a-z_0-9]+ and [a-z_0-9]+ cannot)", words)
    return [
        re.sub(
            r"\b(there are [a-z][^.;]*|(?<=: )[a-z_0-9]+(?:, [a-z_0-9]+)* (?=is loaded|would be|holds)|[A-Z]\w*[a-z]\w*[A-Z]\w*|line \d+|'[^']*')",
            "…",
            part,
        )
        for part in parts
        if part
    ]


def tried(text: str, scripts: dict[str, str]) -> dict[str, Any]:
    """One strategy on all examples: how many are legal, which fail and why, and the reasons of the refusals."""
    strategy, start, legal = Strategy.parse(text), time.process_time(), 0
    refused: Counter[str] = Counter()
    failed: dict[str, str] = {}
    for name, source in scripts.items():
        try:
            wrong = check(source, strategy)
        except NotApplicable as reason:
            refused.update(reasons(reason))
            continue
        except Exception as defect:  # a defect is a result here
            wrong = f"{type(defect).__name__}: {defect}"
        legal += 1
        if wrong:
            failed[name] = wrong
    seconds = round(time.process_time() - start, 1)
    return {"legal": legal, "failed": failed, "seconds": seconds, "refused": dict(refused.most_common())}


def counts(rows: dict[str, Any], examples: int) -> dict[str, int]:
    """Cells by what came out."""
    legal, failed = sum(r["legal"] for r in rows.values()), sum(len(r["failed"]) for r in rows.values())
    return {"good": legal - failed, "failed": failed, "not legal": len(rows) * examples - legal}


def load() -> dict[str, Any]:
    """The rows that are recorded, when they were made with the same versions."""
    found = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
    rows: dict[str, Any] = found.get("strategies", {})
    return rows if found.get("versions") == VERSIONS else {}


def save(figures: dict[str, Any], rows: dict[str, Any]) -> None:
    """Keep what came out: the counts first, then a line for each strategy with the reasons against it."""
    lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in {"versions": VERSIONS, **figures}.items()]
    inside = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in rows.items())
    RECORD.write_text("{\n" + ",\n".join([*lines, f' "strategies": {{\n{inside}\n }}']) + "\n}\n", "utf-8")


def main() -> int:
    """Print what failed and how long it took; 1 when something failed or a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help="one strategy")
    parser.add_argument("--sample", type=int, default=1, help="every Nth example")
    parser.add_argument("--quick", action="store_true", help="time only")
    parser.add_argument("--record", action="store_true", help="keep what came out, and go on from what is recorded")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    scripts = {k: s for k, s in list(examples().items())[:: options.sample] if read_script(s).main is not None}
    if not scripts:
        sys.exit("There are no examples: diffusers is not installed in this environment.")
    rows: dict[str, Any] = load() if options.record else {}
    for text in () if options.quick else [options.only] if options.only else strategies():
        if text in rows or time.monotonic() > end:
            continue
        rows[text] = tried(text, scripts)
        if not options.json:
            row = rows[text]
            print(f"{text:75} legal {row['legal']:4} of {len(scripts)}  {row['seconds']:6.1f} s", flush=True)
        if options.record:
            save({"examples": len(scripts), **counts(rows, len(scripts))}, rows)
    start = time.process_time()
    for source in scripts.values():
        try:
            rewrite(source, Strategy.parse(SPEED), versions=VERSIONS)
        except NotApplicable:
            rewrite(source, Strategy.parse("vae_tiling" if "vae" in source else "modern_api"), versions=VERSIONS)
    one, small = time.process_time() - start, milliseconds(300)
    figures = {
        "examples": len(scripts),
        **counts(rows, len(scripts)),
        "one_strategy_seconds": round(one, 2),
        "300_lines_ms": round(small, 1),
    }
    if options.record:
        save(figures, rows)
    failures = [{"strategy": t, "example": n, "why": w} for t, r in rows.items() for n, w in r["failed"].items()]
    if options.json:
        print(json.dumps({**figures, "failures": failures}))
    else:
        for failure in failures:
            print(f"\n{failure['strategy']} in {failure['example']}: {failure['why']}")
        print(figures)
    return int(bool(failures) or one > 60 or small > 150)


if __name__ == "__main__":
    sys.exit(main())
