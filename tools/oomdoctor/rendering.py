"""Values as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from oomdoctor.explain import stage_words
from oomdoctor.units import duration, gib, human
from oomdoctor.values import (
    Calibration,
    Cure,
    Diagnosis,
    Gpu,
    Hardware,
    Measurement,
    Patch,
    Plan,
    StrategyOption,
    Trial,
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; numbers to the right."""
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    numeric = [all(_is_number(r[i]) for r in rows) and bool(rows) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), line(["-" * w for w in widths]), *map(line, rows)])


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text in ("", "-", "?")


def diagnosis(d: Diagnosis) -> str:
    lines = [
        f"Diagnosis  {d.kind.value.replace('_', ' ')}, {stage_words(d.stage)}"
        + (f" ({d.component})" if d.component else "")
        + f", confidence {d.confidence}",
        f"  {d.cause}",
    ]
    lines += [f"  note: {w}" for w in d.warnings]
    lines += [f"  would not help: {n}" for n in d.not_helpful[:3]]
    lines.append(f"  next: {d.next_step}")
    return "\n".join(lines)


def options(rows: Sequence[StrategyOption]) -> str:
    return table(
        ["strategy", "VRAM GiB", "RAM GiB", "time", "picture", "proof"],
        [
            [
                o.id,
                gib(o.estimate.vram_bytes),
                gib(o.estimate.ram_bytes),
                duration(o.estimate.seconds),
                o.estimate.quality.value,
                o.proof,
            ]
            for o in rows
        ],
    )


def trial(t: Trial, title: str) -> str:
    lines = [f"{title}  {t.outcome} on {t.device} ({'your script' if t.ran == 'script' else 'a generated call'})"]
    if t.outcome == "oom" and t.diagnosis is not None:
        at = f" at line {t.diagnosis.script_line}" if t.diagnosis.script_line else ""
        where = f" ({t.diagnosis.component})" if t.diagnosis.component else ""
        lines.append(f"  died{at}, {stage_words(t.diagnosis.stage)}{where}")
    if t.outcome in ("error", "timeout"):
        lines.append("  " + (t.error or "").strip().replace("\n", "\n  "))
    if t.peak_vram_bytes is not None:
        usable = (t.usable_bytes or 0) + (t.context_bytes or 0)
        lines.append(
            f"  VRAM {human(t.peak_vram_bytes)} of {human(usable)}"
            f" ({human(t.peak_allocated_bytes)} allocated, {human(t.context_bytes)} context)"
            f"   RAM {human(t.peak_host_bytes)} of {human(t.host_limit_bytes)}"
            f" ({human(t.peak_pinned_bytes)} pinned)   about {duration(t.seconds)}"
        )
    lines += [
        f"    {s.stage.value:<12} {s.component or '':<18} {human(s.peak_reserved_bytes):>9} reserved  {duration(s.seconds):>9}"
        for s in t.stages
        if s.peak_reserved_bytes
    ]
    lines += [f"  assumed: {a}" for a in t.assumptions[:6]]
    lines += [f"  note: {n}" for n in t.notes]
    return "\n".join(lines)


def patch(p: Patch) -> str:
    lines = [p.diff.rstrip() or "(nothing changes)"]
    lines += [f"  line {r.line}: {r.text}" for r in p.reasons]
    lines += [f"  warning: {w}" for w in p.warnings]
    lines += [f"  by hand: {b}" for b in p.by_hand]
    return "\n".join(lines)


def plan(p: Plan) -> str:
    lines = [options(p.strategies)] if p.strategies else ["No strategy fits."]
    lines += [f"  would unlock it: {u}" for u in p.unlock]
    lines += [f"  note: {n}" for n in p.notes]
    lines += [f"  not here: {name}: {why}" for name, why in p.illegal.items()]
    lines.append(f"  {p.considered} combinations considered")
    return "\n".join(lines)


def cure(c: Cure) -> str:
    parts = []
    if c.diagnosis is not None:
        parts.append(diagnosis(c.diagnosis))
    if c.alternatives:
        parts.append("What fits\n" + _indent(options(c.alternatives)))
    parts.append(("Nothing fits  " if c.none_fits else "Choice  ") + c.why)
    if c.patch is not None:
        parts.append("Patch\n" + patch(c.patch))
    if c.original_trial is not None and c.original_trial is not c.trial:
        parts.append(trial(c.original_trial, "Before"))
    if c.trial is not None:
        parts.append(trial(c.trial, "After "))
    if c.real_trial is not None:
        parts.append(trial(c.real_trial, "Really"))
    parts += [f"note: {n}" for n in c.notes]
    return "\n\n".join(parts)


def calibration(c: Calibration, file: str) -> str:
    rates = ", ".join(f"{name} {flops / 1e12:.1f} TFLOP/s" for name, flops in c.matmul_flops.items())
    return "\n".join(
        [
            f"{c.label}  torch {c.torch}, driver {c.driver or 'unknown'}",
            f"  context {human(c.context_bytes)}, BLAS workspace {human(c.matmul_workspace_bytes)}",
            f"  to the card {c.h2d_pinned_bytes_per_second / 1e9:.1f} GB/s page-locked, "
            f"{c.h2d_pageable_bytes_per_second / 1e9:.1f} pageable; back {c.d2h_pinned_bytes_per_second / 1e9:.1f}",
            f"  matrix products {rates}; attention {c.attention_flops / 1e12:.1f} TFLOP/s",
            "  convolutions hold "
            + ", ".join(
                f"{100 * share:.0f} % of input + output ({name})" for name, share in c.convolution_share.items()
            ),
            f"kept in {file}; estimates for this card use it from now on.",
        ]
    )


def measurement(m: Measurement) -> str:
    rows = [
        [
            c.name,
            c.class_name,
            f"{c.params / 1e9:.2f}",
            *(gib(n) if n else "-" for n in (c.loaded_bytes, c.fp8_cast_bytes, c.int8_bytes, c.nf4_bytes)),
            gib(c.largest_block_bytes),
            gib(c.unmatched_bytes),
            gib(c.largest_leaf_bytes),
        ]
        for c in m.components
    ]
    head = ["component", "class", "params G", "loaded", "fp8 cast", "int8", "nf4", "block", "unmatched", "leaf"]
    stages = [
        [s.stage.value, s.component or "", gib(s.activation_bytes), str(s.calls), duration(s.seconds)] for s in m.stages
    ]
    return "\n".join(
        [
            f"{m.pipeline_class}  {m.model}  (GiB)",
            table(head, rows),
            "",
            table(["stage", "component", "activations", "calls", "time"], stages),
            f"weights {human(m.weights_bytes)}; all resident: {human(m.peak_allocated_bytes)} allocated, "
            f"{human(m.peak_reserved_bytes)} reserved; times for {m.timed_on}",
            *_first_load(m),
            *(f"assumed: {a}" for a in m.assumptions),
        ]
    )


def _first_load(m: Measurement) -> list[str]:
    if m.download_bytes is None:
        return ["what a first load downloads is not known"]
    if not m.download_bytes:
        return ["nothing to download: the weights are on this machine"]
    return [f"a first load downloads {human(m.download_bytes)}, about {duration(m.download_seconds or 0.0)} at 50 MB/s"]


def hardware(h: Hardware) -> str:
    lines = [f"OS       {h.os}" + (f" ({h.driver_model})" if h.driver_model and h.driver_model not in h.os else "")]
    for g in h.gpus:
        lines.append(
            f"GPU {g.index}    {g.name}: {human(g.free_bytes)} free of {human(g.total_bytes)}"
            + (f", capability {g.compute_capability[0]}.{g.compute_capability[1]}" if g.compute_capability else "")
            + (f", catalogue card {g.card}" if g.card else "")
        )
        lines += [f"         {', '.join(facts)}"] if (facts := _card_facts(g)) else []
        lines += [f"         process {p.pid} {p.name or ''} holds {human(p.used_bytes)}" for p in g.processes]
    if not h.gpus:
        lines.append("GPU      none found; name the card to plan for with --gpu")
    limit = f", limited to {human(h.ram.limit_bytes)} by the container" if h.ram.limit_bytes else ""
    lines.append(f"RAM      {human(h.ram.available_bytes)} available of {human(h.ram.total_bytes)}{limit}")
    if h.ram.pinned_cap_bytes is not None:
        lines.append(f"         at most {human(h.ram.pinned_cap_bytes)} of it page-locked")
    if h.ram.swap_bytes:
        lines.append(f"         {human(h.ram.swap_bytes)} of swap, which planning leaves alone")
    lines.append(f"Disk     {human(h.disk_free_bytes)} free")
    lines.append(f"Python   {h.python}")
    lines += [f"         {name} {version or 'not installed'}" for name, version in h.versions.items()]
    lines += [f"note: {n}" for n in h.notes]
    return "\n".join(lines)


def _card_facts(g: Gpu) -> list[str]:
    """What is known of a card besides its memory, in words."""
    facts = [f"driver {g.driver_version}"] if g.driver_version else []
    if g.pcie is not None and g.pcie.max_generation and g.pcie.max_lanes:
        facts.append(f"PCIe {g.pcie.max_generation}.0 x{g.pcie.max_lanes}")
    if g.mig is not None:
        facts.append("a MIG slice" if g.mig else "MIG off")
    return facts


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
