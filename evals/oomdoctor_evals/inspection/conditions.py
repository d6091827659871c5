"""What a model has at hand in each condition: same question, same limits, other means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOOLS = ("diagnose_oom", "detect_hardware", "measure_components", "compute_strategies", "rewrite_script", "verify_script",
         "fix_oom")  # fmt: skip
PROVING = ("verify_script", "fix_oom")
SKILL = Path(__file__).parents[3] / "skill" / "diffusers-oom-doctor"


@dataclass(frozen=True)
class Condition:
    """One condition."""

    name: str
    skill: bool = False
    docs: bool = False
    tools: tuple[str, ...] = ()


CONDITIONS: dict[str, Condition] = {
    c.name: c
    for c in (
        Condition("bare"),
        Condition("docs", docs=True),
        Condition("skill", skill=True),
        Condition("tools", tools=TOOLS),
        Condition("skill_tools", skill=True, tools=TOOLS),
        Condition("skill_tools_no_verify", skill=True, tools=tuple(t for t in TOOLS if t not in PROVING)),
    )
}


def system_text(condition: Condition, docs: Path | None = None) -> str:
    """What stands above the question. Raises :class:`FileNotFoundError` when the documents are not at hand."""
    parts = [_BASE]
    if condition.skill:
        texts = [SKILL / "SKILL.md", *sorted((SKILL / "references").glob("*.md"))]
        parts += [path.read_text(encoding="utf-8") for path in texts]
    if condition.docs:
        if docs is None:
            raise FileNotFoundError(
                "The condition docs needs the memory page of the diffusers documentation: -T docs=PATH of a Markdown file."
            )
        parts.append(docs.read_text(encoding="utf-8"))
    return "\n\n".join(parts)


_BASE = (
    "Somebody's diffusers script fails. You get the script, what it printed, the machine, and what the person wants. "
    "Answer with one JSON object and nothing else, with these fields: verdict (fixable, impossible or not_oom); "
    "patched_script (the whole script, when fixable; same model, size, steps, guidance, number of pictures and saved "
    "files); diagnosis {phase, component, resource, root_cause}, with phase one of load, place, text_encode, denoise, "
    "vae_encode, vae_decode, resource one of vram, ram, pinned_ram, none, and root_cause one of vram_capacity, "
    "single_tensor, fragmentation, other_process, host_ram, pinned_ram, load_time, masked, not_memory; predicted "
    "{peak_vram_mib, slowdown}; unlock, when impossible: a list of {vram_mib}, {ram_mib} or {rule}, the least that would "
    "make it possible; explanation; claims_verified, true only when you saw that very script run."
)
