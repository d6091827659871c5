"""The fixed policy: diagnose, compare, take the best row that the person's rules allow, write it, prove it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from oomdoctor_evals.values import Answer, Predicted, Said, Unlock

TRIES = 4
HEADROOM = 0.95
"""A patch that leaves less than this much of the card free is taken only when nothing better passes."""
_QUALITY = {"bit-identical": 0, "numerically equivalent": 0, "slight": 1, "noticeable": 2}
_ALLOWED = {"identical": 0, "slight": 1, "noticeable": 2}
_QUANTISERS = ("bnb_", "torchao", "gguf")
_GIB_CARD = re.compile(r"A card with ([\d.]+) (GiB|MiB) free")
_GIB_RAM = re.compile(r"([\d.]+) GiB of RAM")


class ToolFailed(Exception):
    """A tool answered with an error."""


@dataclass(frozen=True)
class Tools:
    """How tools are called, and which arguments each has."""

    call: Callable[..., Awaitable[dict[str, Any]]]
    schemas: dict[str, set[str]]


@dataclass
class Policy:
    """One conversation."""

    tools: Tools
    question: dict[str, Any]
    free_gib: float

    async def answer(self) -> Answer:
        """The answer to the question; raises what the tools raise."""
        evidence = self.question["evidence"]
        text = "\n".join(evidence[k] for k in ("traceback", "dmesg") if k in evidence)
        found = await self.tools.call("diagnose_oom", traceback=text, script=self.question["script"])
        if not found.get("is_oom", True):
            return Answer(verdict="not_oom", diagnosis=_said(found), explanation=str(found.get("summary", "")))
        plan = await self.tools.call(
            "compute_strategies", script=self.question["script"], top=20, detail="full", wait_s=590,
            prefer=self._prefer(), **self._machine(), **self._rules(),
        )  # fmt: skip
        rows = [row for row in plan.get("strategies", []) if self._allowed(row)]
        proven = await self._prove(rows)
        if proven is None:
            unlock = _unlocks(plan.get("unlock", []), self.question["preference"]["rules"])
            return Answer(
                verdict="impossible", diagnosis=_said(found), unlock=unlock, explanation=str(plan.get("summary", ""))
            )  # fmt: skip
        row, source, trial = proven
        peak = (trial.get("peak_reserved_bytes") or 0) + (trial.get("context_bytes") or 0)
        said = _said(found)
        return Answer(
            verdict="fixable",
            patched_script=source,
            diagnosis=said,
            predicted=Predicted(peak_vram_mib=peak / 2**20, slowdown=row["estimate"].get("slowdown")),
            explanation=f"{row['id']}: {row.get('summary', '')}",
            claims_verified=True,
        )

    async def _prove(self, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], str, dict[str, Any]] | None:
        """The fastest rows, written and run, until one passes with room to spare."""
        tight = None
        for row in sorted(rows, key=lambda r: r["estimate"].get("seconds") or 0)[:TRIES]:
            if row["id"] == "plain":
                continue
            try:
                patch = await self.tools.call("rewrite_script", script=self.question["script"], strategy=row["id"])
                source = patch.get("source", "")
                trial = await self.tools.call(
                    "verify_script", script=source, run="script", wait_s=590, **self._machine()
                )  # fmt: skip
            except ToolFailed:
                continue  # the error names the way out: the next strategy of the list
            if trial.get("outcome") != "ok":
                continue
            peak = (trial.get("peak_reserved_bytes") or 0) + (trial.get("context_bytes") or 0)
            if peak <= HEADROOM * self.free_gib * 2**30:
                return row, source, trial
            tight = tight or (row, source, trial)
        return tight

    # ------------------------------------------------------------------ from the question to arguments
    def _machine(self) -> dict[str, Any]:
        machine = self.question["machine"]
        return {
            "gpu": machine["gpu"],
            "vram_gib": round(self.free_gib, 3) if machine["used_by_others_mib"] else None,
            "ram_gib": machine["ram_mib"] / 1024,
            "gpu_count": machine["count"] if machine["count"] > 1 else None,
        }

    def _prefer(self) -> str:
        return "speed" if self.question["preference"]["rules"]["quality"] != "identical" else "quality"

    def _rules(self) -> dict[str, Any]:
        rules = self.question["preference"]["rules"]
        return {
            "no_quantisation": rules["quantise"] == "forbid",
            "no_new_packages": rules["new_packages"] == "forbid",
            "max_slowdown": rules["max_slowdown"],
            "worst_quality": rules["quality"],
        }

    def _allowed(self, row: dict[str, Any]) -> bool:
        rules = self.question["preference"]["rules"]
        estimate = row["estimate"]
        if _QUALITY.get(estimate.get("quality", "bit-identical"), 2) > _ALLOWED[rules["quality"]]:
            return False
        if rules["quantise"] == "forbid" and any(word in row["id"] for word in _QUANTISERS):
            return False
        if rules["max_slowdown"] is not None and (estimate.get("slowdown") or 0) > rules["max_slowdown"]:
            return False
        installed = self.question["machine"]["versions"]
        needed = [
            p for word, p in (("bnb_", "bitsandbytes"), ("torchao", "torchao"), ("gguf", "gguf")) if word in row["id"]
        ]
        return rules["new_packages"] == "allow" or all(installed.get(p) for p in needed)


def _said(found: dict[str, Any]) -> Said:
    kind = str(found.get("kind", ""))
    resource = {"host_ram": "ram", "pinned_ram": "pinned_ram", "not_memory": "none"}.get(kind, "vram")
    return Said(phase=found.get("stage"), component=found.get("component"), resource=resource, root_cause=kind)


def _unlocks(sentences: list[str], rules: dict[str, Any]) -> tuple[Unlock, ...]:
    """What the sentences say would help, as figures."""
    out = []
    for sentence in sentences:
        if match := _GIB_CARD.search(sentence):
            out.append(Unlock(vram_mib=int(float(match.group(1)) * (1024 if match.group(2) == "GiB" else 1))))
        elif match := _GIB_RAM.search(sentence):
            out.append(Unlock(ram_mib=int(float(match.group(1)) * 1024)))
        elif sentence.startswith("Allow quantisation"):
            out.append(Unlock(rule="quantise"))
        elif "the time (you asked" in sentence:
            out.append(Unlock(rule="max_slowdown"))
    return tuple(out)
