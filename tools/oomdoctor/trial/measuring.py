"""From the recorded run to a Measurement: what each component weighs in every form, and what each stage needs."""

from __future__ import annotations

from typing import Any

from oomdoctor.values import Block, Component, Measurement, ModuleNode, Stage, StageUse, Trace

_BLOCK_CONTAINERS = ("ModuleList", "Sequential")
NF4_BITS = 4.5
"""4 bits and one fp32 absmax per 64 weights (bitsandbytes without double quantisation)."""
INT8_SCALE_BYTES = 4
"""One fp32 scale per output row (bitsandbytes LLM.int8, torchao int8 weight-only)."""


def to_measurement(
    answer: dict[str, Any], *, pipeline_class: str, model: str, call: dict[str, object], timed_on: str
) -> Measurement:
    """The answer of an unlimited, recorded run as the value that planning starts from."""
    trace = Trace.model_validate(answer["trace"])
    components = components_of(trace.modules)
    return Measurement(
        pipeline_class=pipeline_class,
        model=model,
        call=call,
        components=components,
        stages=stages_of(trace, answer.get("stages", [])),
        weights_bytes=sum(c.loaded_bytes for c in components),
        peak_allocated_bytes=answer["peak_allocated_bytes"],
        peak_reserved_bytes=answer["peak_reserved_bytes"],
        load_host_bytes=answer["peak_host_bytes"],
        timed_on=timed_on,
        trace=trace,
        offload_sequence=tuple(answer.get("offload_sequence", ())),
        sources=("one virtual call on an unlimited card; weights from configs",),
        assumptions=tuple(answer.get("assumptions", ())),
    )


def components_of(nodes: tuple[ModuleNode, ...]) -> tuple[Component, ...]:
    """Sizes per component. A component is a node without parent; the last of a name counts (a replaced one is gone)."""
    children: dict[int, list[int]] = {}
    roots: dict[str, int] = {}
    for i, node in enumerate(nodes):
        if node.parent < 0:
            roots[node.component] = i
        else:
            children.setdefault(node.parent, []).append(i)
    return tuple(_component(nodes, children, root) for root in roots.values())


def _below(children: dict[int, list[int]], root: int) -> list[int]:
    found, stack = [], [root]
    while stack:
        i = stack.pop()
        found.append(i)
        stack.extend(children.get(i, ()))
    return found


def _bytes_below(nodes: tuple[ModuleNode, ...], children: dict[int, list[int]], root: int) -> int:
    return sum(nodes[i].own_bytes for i in _below(children, root))


def _component(nodes: tuple[ModuleNode, ...], children: dict[int, list[int]], root: int) -> Component:
    node = nodes[root]
    members = [nodes[i] for i in _below(children, root)]
    loaded = sum(m.own_bytes for m in members)
    blocks = []
    matched = 0
    for i in children.get(root, ()):
        if nodes[i].class_name in _BLOCK_CONTAINERS and children.get(i):
            sizes = [_bytes_below(nodes, children, block) for block in children[i]]
            blocks.append(Block(path=nodes[i].path, count=len(sizes), largest_bytes=max(sizes), total_bytes=sum(sizes)))
            matched += sum(sizes)
    linear = [m for m in members if m.linear and m.own_bytes]
    rest = loaded - sum(m.own_bytes for m in linear)
    return Component(
        name=node.component,
        class_name=node.class_name,
        params=sum(m.own_params for m in members),
        loaded_bytes=loaded,
        blocks=tuple(blocks),
        largest_block_bytes=max((b.largest_bytes for b in blocks), default=0),
        unmatched_bytes=loaded - matched,
        largest_leaf_bytes=max((m.own_bytes for m in members), default=0),
        fp8_cast_bytes=sum(m.own_params if m.cast_ok else m.own_bytes for m in members),
        int8_bytes=rest + sum(_int8(m) for m in linear),
        nf4_bytes=rest + sum(_nf4(m) for m in linear),
        pinned_bytes=None,
        anonymous_bytes=sum(m.anonymous_bytes for m in members),
        source="config, loaded by the real loader without its data",
    )


def _split(m: ModuleNode) -> tuple[int, int]:
    """(weight elements, bias elements) of a linear layer."""
    bias = m.own_params // (m.in_features + 1) if m.in_features and m.own_params % (m.in_features + 1) == 0 else 0
    return m.own_params - bias, bias


def _int8(m: ModuleNode) -> int:
    weights, bias = _split(m)
    rows = weights // m.in_features if m.in_features else 0
    return weights + rows * INT8_SCALE_BYTES + bias * (m.own_bytes // max(m.own_params, 1))


def _nf4(m: ModuleNode) -> int:
    weights, bias = _split(m)
    return int(weights * NF4_BITS / 8) + bias * (m.own_bytes // max(m.own_params, 1))


def stages_of(trace: Trace, stretches: list[dict[str, Any]]) -> tuple[StageUse, ...]:
    """Activation peak, calls and seconds per stage and component."""
    use: dict[tuple[Stage, str], list[float]] = {}
    for i, index in enumerate(trace.module):
        node = trace.modules[index]
        entry = use.setdefault((trace.stage[i], node.component), [0, 0, 0.0])
        entry[0] = max(entry[0], trace.peak_bytes[i])
        if node.parent < 0 and trace.entered[i]:
            entry[1] += trace.repeats[i]
        entry[2] += trace.seconds[i] * trace.repeats[i]
    return tuple(
        StageUse(stage=stage, component=component, activation_bytes=int(peak), calls=int(calls) or 1, seconds=seconds)
        for (stage, component), (peak, calls, seconds) in use.items()
    )
