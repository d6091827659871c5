"""From what was collected to the frozen Script."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oomdoctor.script import libraries
from oomdoctor.script.domain import Record
from oomdoctor.values import Call, Known, Loaded, Optimisation, PipelineUse, Placement, Script

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter


def script(reader: Interpreter, path: str | None, sha256: str, *, is_notebook: bool) -> Script:
    """The Script value of a finished reading."""
    pipelines = [r for r in reader.records if r.kind == "pipeline"]
    bare = [r for r in reader.records if r.kind == "model" and not r.owners]
    used = [r for r in bare if r.calls or r.part_calls or not pipelines]
    missing = _no_grad_missing(reader)
    return Script(
        path=path,
        sha256=sha256,
        is_notebook=is_notebook,
        pipelines=tuple(_use(reader, record) for record in [*pipelines, *used]),
        models=tuple(loaded(record, record.variable or "") for record in bare),
        imports=reader.imports,
        allocator_settings={
            name: str(known.value)
            for name, known in reader.environment.items()
            if name in libraries.ALLOCATOR_VARIABLES and known.value is not None
        },
        settings=tuple(reader.settings),
        environment=reader.environment,
        training=reader.training_line is not None,
        no_grad_missing=missing is not None,
        warnings=tuple(_warnings(reader, pipelines, bare, missing)),
    )


def loaded(record: Record, name: str) -> Loaded:
    """A model or part as the component it is passed as."""
    return Loaded(
        name=name,
        variable=record.variable,
        class_name=record.class_name,
        library=_library(record),
        loader=record.loader,
        model=record.model,
        subfolder=record.subfolder,
        dtype=record.dtype,
        arguments=record.arguments,
        span=record.load_span,
    )


def _library(record: Record) -> str | None:
    if record.module.startswith("."):
        return "."  # a module beside the script
    return libraries.root(record.module) or None


def _use(reader: Interpreter, record: Record) -> PipelineUse:
    components = tuple(loaded(part, name) if isinstance(part, Record) else part for name, part in record.components)
    name = record.variable or ""
    placements = [_named(p, name) for p in record.placements]
    optimisations = list(record.optimisations)
    for keyword, part in record.components:
        if isinstance(part, Record):
            placements += [_inside(_named(p, part.variable or keyword), keyword) for p in part.placements]
            optimisations += [_of_part(o, keyword, part) for o in part.optimisations]
    return PipelineUse(
        variable=name,
        kind="pipeline" if record.kind == "pipeline" else "model",
        class_name=record.class_name,
        library=_library(record),
        loader=record.loader,
        from_variable=record.source.variable if record.source else None,
        model=record.model if record.source is None else record.source.model,
        dtype=record.dtype,
        variant=record.variant,
        load_arguments=record.arguments,
        components=components,
        placements=tuple(sorted(placements, key=lambda p: p.order)),
        optimisations=tuple(sorted(optimisations, key=lambda o: o.order)),
        adapters=tuple(record.adapters),
        calls=tuple(_kept(reader, record, c) for c in record.calls),
        part_calls=tuple(_kept(reader, record, c) for c in record.part_calls),
        load_span=record.load_span,
        load_statement=record.load_statement,
        bound_statement=record.bound,
        scope=record.scope,
        trust_remote_code=record.trust_remote_code,
        condition=record.condition,
        runs=record.runs,
        order=record.order,
        uncertain=tuple(record.uncertain),
    )


def _named(placement: Placement, name: str) -> Placement:
    """A placement that is chained to the load gets the name that the result is given."""
    if placement.target and not placement.chained:
        return placement
    target = f"{name}.{placement.target}" if placement.target else name
    return placement.model_copy(update={"target": target})


def _inside(placement: Placement, keyword: str) -> Placement:
    return placement.model_copy(update={"part": _join(keyword, placement.part)})


def _join(keyword: str, part: str | None) -> str:
    return f"{keyword}.{part}" if part else keyword


def _of_part(optimisation: Optimisation, keyword: str, part: Record) -> Optimisation:
    """``transformer.enable_x()`` on a model that is passed in counts as the pipeline's ``transformer.enable_x``."""
    function = optimisation.method in libraries.FUNCTIONS or optimisation.method.startswith("torch.")
    method = optimisation.method if function else f"{keyword}.{optimisation.method}"
    target = optimisation.target or part.variable or keyword
    return optimisation.model_copy(
        update={"method": method, "target": target, "part": _join(keyword, optimisation.part)}
    )


def _kept(reader: Interpreter, record: Record, call: Call) -> Call:
    kept = (id(record), call.span) in reader.kept
    return call.model_copy(update={"kept_on_device": True}) if kept else call


def _no_grad_missing(reader: Interpreter) -> int | None:
    """Line of the first call of a bare model that keeps the graph for a gradient nobody asks for."""
    if reader.training_line is not None:
        return None
    for setting in reader.settings:
        off = setting.arguments.get("0", setting.arguments.get("mode", Known())).value is False
        if setting.method.endswith("set_grad_enabled") and off:
            return None
    lines = [
        call.span.line
        for record in reader.records
        if record.kind != "part"
        for call in [*record.calls, *record.part_calls]
        if call.no_grad is False and not call.pipeline.endswith((".generate", ".encode_image", ".prepare_latents"))
        and not _on_tokenizer(call)
    ]  # fmt: skip
    return min(lines, default=None)


def _on_tokenizer(call: Call) -> bool:
    return bool(re.search(r"(tokenizer|processor|scheduler|extractor)\w*(\.\w+)?$", call.pipeline))


def _warnings(reader: Interpreter, pipelines: list[Record], bare: list[Record], missing: int | None) -> list[str]:
    out = list(dict.fromkeys(reader.warnings))
    if reader.training_line is not None:
        out.append(
            f"line {reader.training_line}: this script trains. Training is out of scope here, but gradient checkpointing "
            "(`enable_gradient_checkpointing()`), an 8-bit optimiser, LoRA instead of full weights, a smaller batch with "
            "gradient accumulation, and precomputed embeddings and latents are what usually makes it fit."
        )
    if missing is not None:
        out.append(
            f"line {missing}: a model is called outside torch.no_grad() / torch.inference_mode(), so its activations are "
            "kept for a backward pass that never comes."
        )
    for record in pipelines:
        if record.trust_remote_code:
            out.append(
                f"line {record.load_span.line}: trust_remote_code=True runs code from the model's repository, which was "
                "not read and is never run here."
            )
        if record.class_name.startswith(("Flax", "Onnx", "OV")):
            out.append(f"line {record.load_span.line}: {record.class_name} does not run on PyTorch with CUDA.")
        if any(c.autocast for c in record.calls):
            line = next(c.span.line for c in record.calls if c.autocast)
            out.append(
                f"line {line}: the pipeline is called inside torch.autocast, which keeps casted copies of weights and "
                "slows pure half-precision runs; load with the dtype instead."
            )
        for call in record.calls:
            if (id(record), call.span) in reader.kept and call.in_loop:
                out.append(
                    f"line {call.span.line}: results stay on the card while they are collected in a loop; move each to "
                    "the CPU before keeping it."
                )
    if not pipelines and not bare:
        out.append("no diffusers pipeline or model is loaded in this script")
    return out
