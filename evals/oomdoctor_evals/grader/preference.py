"""The person's wishes, held against the trace: storage of the weights, quality, time, packages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oomdoctor_evals.values import QUALITY_ORDER, Observed, QualityClass, Scenario

_SMALL = ("float8_e4m3fn", "float8_e5m2", "int8", "uint8")
_PACKAGES = {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "gguf": "gguf", "quanto": "optimum-quanto"}


def broken(scenario: Scenario, reference: Observed, answer: Observed, source: str) -> Iterator[str]:
    """Which rules the answer breaks."""
    rules = scenario.preference.rules
    changed = list(_stored_smaller(reference, answer))
    if rules.quantise == "forbid":
        yield from (
            f"{name} is stored as {how}, and quantisation was excluded"
            for name, how, _ in changed
            if not how.startswith("float8")
        )
    worst = quality(reference, answer, source, scenario.script)
    if QUALITY_ORDER.index(worst) > QUALITY_ORDER.index(rules.quality):
        yield f"the picture changes ({worst}); at most {rules.quality} was allowed"
    if rules.max_slowdown is not None and reference.seconds and answer.seconds is not None:
        factor = answer.seconds / reference.seconds
        if factor > rules.max_slowdown:
            yield f"takes {factor:.2f} times as long; at most {rules.max_slowdown:g} times was allowed"
    if rules.new_packages == "forbid":
        for package in sorted({p for _, _, p in changed if p}):
            if scenario.machine.versions.get(package) is None:
                yield f"needs {package}, which is not installed, and nothing new was to be installed"


def quality(reference: Observed, answer: Observed, source: str, original: str) -> QualityClass:
    """What the answer does to the picture, by what its weights are stored in and how it decodes."""
    worst: QualityClass = "identical"
    for _, how, _ in _stored_smaller(reference, answer):
        worst = _worse(worst, "noticeable" if _four_bits(how) else "slight")
    if _lower_precision(reference, answer):
        worst = _worse(worst, "slight")
    if "enable_tiling" in source and "enable_tiling" not in original:
        worst = _worse(worst, "slight")
    if "enable_cache" in source and "enable_cache" not in original:
        worst = _worse(worst, "noticeable")
    return worst


def _worse(a: QualityClass, b: QualityClass) -> QualityClass:
    return max(a, b, key=QUALITY_ORDER.index)


def _four_bits(how: str) -> bool:
    return any(word in how.lower() for word in ("4bit", "int4", "nf4", "fp4", "gguf", "params4bit"))


def _parts(run: Observed) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["class"], name): part for c in run.workload.get("calls", []) for name, part in
            (c.get("components") or {}).items()}  # fmt: skip


def _stored_smaller(reference: Observed, answer: Observed) -> Iterator[tuple[str, str, str | None]]:
    """Components whose weights take fewer bits than in the person's script: (name, how, package)."""
    before = _parts(reference)
    for key, part in _parts(answer).items():
        was = before.get(key, {"quantised": None, "dtypes": {}, "kinds": []})
        how = _how(part)
        if how and how != _how(was):
            package = next((p for word, p in _PACKAGES.items() if word in how.lower()), None)
            yield key[1], how, package


def _how(part: dict[str, Any]) -> str | None:
    if part.get("quantised"):
        return str(part["quantised"])
    small = [d for d in part.get("dtypes", {}) if d in _SMALL]
    kinds = [k for k in part.get("kinds", []) if any(w in k for w in ("Int8", "Int4", "Float8", "GGUF", "4bit"))]
    if kinds:
        return f"torchao {kinds[0]}" if "GGUF" not in kinds[0] else f"gguf {kinds[0]}"
    return small[0] if small else None


def _lower_precision(reference: Observed, answer: Observed) -> bool:
    before = _parts(reference)
    return any(
        before[key]["dtypes"].get("float32", 0) > part["dtypes"].get("float32", 0) * 1.02
        for key, part in _parts(answer).items()
        if key in before and not _how(part)
    )
