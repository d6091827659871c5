"""What ``python bench/accuracy`` prints after its rows, and keeps: errors by counter and family, rivals, times."""

from __future__ import annotations

import collections
import json
import statistics
from typing import Any

from rivals import RIVALS

LARGE = 5.0
"""Percent above which a row needs its mechanism."""
BARS = {"allocated": (2.0, 8.0), "reserved": (None, 10.0)}
"""What has to be reached: median and 95th percentile of the absolute error, in percent."""
BEFORE_TENSOR_CORES = ("GTX 1070", "Tesla P100 16GB")


def counter(row: dict[str, Any]) -> str:
    """``nvidia-smi`` rows are reserved memory and the context."""
    return "allocated" if row["metric"] == "allocated" else "reserved"


def ran(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in results if "error_percent" in r]


def figures(errors: list[float]) -> dict[str, float]:
    """Rows, median and 95th percentile of the absolute error, and the mean error, in percent."""
    sizes = sorted(abs(e) for e in errors)
    return {
        "rows": len(sizes),
        "median": round(statistics.median(sizes), 2),
        "p95": round(sizes[round(0.95 * (len(sizes) - 1))], 2),
        "bias": round(statistics.mean(errors), 2),
    }


def groups(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Errors by counter, then by technique family."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    for r in ran(results):
        found[counter(r)].append(r["error_percent"])
        if not r["why"]:
            found[f"{counter(r)}, rows without a mechanism of their own"].append(r["error_percent"])
        for family in r["families"]:
            found[f"  {family}"].append(r["error_percent"])
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith(" "), item[0])))


def report(results: list[dict[str, Any]], left_out: collections.Counter[str], total: int) -> None:
    """Print the summary."""
    good = ran(results)
    if not good:
        print("no row ran")
        return
    cores = sum(r["card"] not in BEFORE_TENSOR_CORES for r in good)
    print(f"\n{len(good)} of {total} published rows run, {cores} of them on cards with tensor cores")
    failed = collections.Counter(r["failed"] for r in results if "failed" in r)
    for reason, n in failed.most_common():
        print(f"  {n:4} did not run: {reason}")
    for reason, n in left_out.most_common():
        print(f"  {n:4} left out: {reason}")
    changed = collections.Counter(change for r in good for change in r["changes"])
    for name, n in changed.most_common():
        print(f"  {n:4} run as the measured version did it: {name}")
    print(f"\n{'':52} rows  median |e|  p95 |e|   bias")
    for name, errors in groups(results).items():
        line(name, errors)
    rivals = [r for r in good if r["rivals"]]
    for rival in RIVALS:
        line(f"rival on resident rows: {rival}", [100 * r["rivals"][rival] for r in rivals])
    line("ours on the same rows", [r["error_percent"] for r in rivals])
    for name, (median, p95) in BARS.items():
        errors = [r["error_percent"] for r in good if counter(r) == name]
        if not errors:
            continue
        got = figures(errors)
        met = got["p95"] <= p95 and (median is None or got["median"] <= median)
        print(
            f"bar for {name}: {f'median {median:g} %, ' if median else ''}p95 {p95:g} %: {'met' if met else 'NOT met'}"
        )
    large = [r for r in good if abs(r["error_percent"]) > LARGE]
    open_rows = [r["row"] for r in large if not r["why"]]
    print(f"{len(large)} rows are off by more than {LARGE:g} %, {len(open_rows)} without a mechanism: {open_rows}")
    times(good)


def times(good: list[dict[str, Any]]) -> None:
    """Predicted against published seconds of the call, on the rows that state them."""
    known = [r for r in good if r.get("seconds") and r.get("predicted_seconds")]
    if not known:
        return
    print(f"\n{'seconds of a call':28} {'card':15} published predicted  ratio")
    for r in known:
        ratio = r["predicted_seconds"] / r["seconds"]
        print(
            f"{r['row']:28} {r['card']:15} {r['seconds']:9.2f} {r['predicted_seconds']:9.2f} {ratio:6.2f}  {r['families']}"
        )
    line("seconds", [100 * (r["predicted_seconds"] / r["seconds"] - 1) for r in known])
    right, pairs = order(known)
    if pairs:
        print(f"order of techniques within a source, model and card: {right} of {pairs} pairs right")


def order(known: list[dict[str, Any]]) -> tuple[int, int]:
    """Of the pairs of rows that differ in technique only and by more than a tenth in time: how many come out in order."""
    right = pairs = 0
    for i, a in enumerate(known):
        for b in known[:i]:
            same = (
                all(a[k] == b[k] for k in ("model", "card"))
                and a["row"].rsplit("-", 1)[0] == b["row"].rsplit("-", 1)[0]
            )
            if same and a["families"] != b["families"] and abs(a["seconds"] / b["seconds"] - 1) > 0.1:
                pairs += 1
                right += (a["seconds"] > b["seconds"]) == (a["predicted_seconds"] > b["predicted_seconds"])
    return right, pairs


def line(name: str, errors: list[float]) -> None:
    if errors:
        f = figures(errors)
        print(f"{name:52} {f['rows']:4}  {f['median']:8.2f} %  {f['p95']:6.2f} %  {f['bias']:+6.2f} %")


def record(results: list[dict[str, Any]], left_out: collections.Counter[str]) -> str:
    """The summary and a line per row, as JSON that stays readable."""
    good = ran(results)
    rivals = [r for r in good if r["rivals"]]
    summary = {
        "rows": len(good),
        "tensor_cores": sum(r["card"] not in BEFORE_TENSOR_CORES for r in good),
        "did_not_run": sorted({r["failed"] for r in results if "failed" in r}),
        "left_out": dict(left_out.most_common()),
        "errors": {name.strip(): figures(errors) for name, errors in groups(results).items()},
        "rivals": {name: figures([100 * r["rivals"][name] for r in rivals]) for name in RIVALS} if rivals else {},
        "ours_on_the_same_rows": figures([r["error_percent"] for r in rivals]) if rivals else {},
    }
    rows = [
        {
            "row": r["row"], "card": r["card"], "counter": r["metric"], "families": r["families"],
            "published": round(r["published"]), "predicted": round(r["predicted"]),
            "error_percent": round(r["error_percent"], 2), "why": r["why"] if abs(r["error_percent"]) > LARGE else "",
            "as_measured": r["changes"],
        }
        for r in good
    ]  # fmt: skip
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    return f'{{\n"summary": {json.dumps(summary, indent=1)},\n"rows": [\n{lines}\n]\n}}\n'
