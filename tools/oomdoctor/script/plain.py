"""The same script with everything on the card: what a measurement runs."""

from __future__ import annotations

from oomdoctor.values import Known, PipelineUse, Placement, Script, Span

_KEPT_METHODS = ("load_", "set_adapters", "fuse_lora")
_DROPPED_ARGUMENTS = ("device_map", "max_memory", "quantization_config", "offload_folder", "offload_state_dict")


def plainly(script: Script) -> Script:
    """``script`` without its memory techniques, each pipeline moved to the card once, after it was loaded."""
    return script.model_copy(update={"pipelines": tuple(_plain(use) for use in script.pipelines)})


def _plain(use: PipelineUse) -> PipelineUse:
    kept = tuple(o for o in use.optimisations if o.method.split(".")[-1].startswith(_KEPT_METHODS))
    end = use.load_statement
    after = Span(line=end.end_line, column=end.end_column, end_line=end.end_line, end_column=end.end_column)
    loaded = tuple(
        c.model_copy(update={"arguments": _without(c.arguments)}) if hasattr(c, "arguments") else c
        for c in use.components
    )
    return use.model_copy(
        update={
            "optimisations": kept,
            "load_arguments": _without(use.load_arguments),
            "components": loaded,
            "part_calls": (),
            "calls": tuple(call.model_copy(update={"attention": ()}) for call in use.calls),
            "placements": (
                Placement(kind="to", device=Known(value="cuda", certainty="literal"), target=use.variable, span=after),
            ),
        }
    )


def _without(arguments: dict[str, Known]) -> dict[str, Known]:
    return {k: v for k, v in arguments.items() if k not in _DROPPED_ARGUMENTS}
