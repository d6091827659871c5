"""From the recorded run to a Measurement: what each component weighs in every form, and what each stage needs."""

from __future__ import annotations

from typing import Any

from oomdoctor.values import Block, Component, Measurement, ModuleNode, Stage, StageUse, Trace

_BLOCK_CONTAINERS = ("ModuleList", "Sequential")
NF4_BLOCK, NF4_SCALE_BYTES, NF4_CODE_BYTES = 64, 4, 64
"""bitsandbytes without double quantisation: an fp32 absmax per 64 weights, and 16 fp32 codes per matrix."""
INT8_SCALE_BYTES = 4
"""One fp32 scale per output row (bitsandbytes LLM.int8)."""


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
    blocks, parts = _families(nodes, children, root)
    matched = sum(b.total_bytes for b in blocks)
    linear = [m for m in members if m.linear and _matrix(m)]
    rest = loaded - sum(m.own_bytes for m in linear)
    packed = any(m.packed for m in members)
    return Component(
        name=node.component,
        class_name=node.class_name,
        params=sum(m.own_params if m.params is None else m.params for m in members),
        loaded_bytes=loaded,
        blocks=blocks,
        largest_block_bytes=max((b.largest_bytes for b in blocks), default=0),
        unmatched_bytes=loaded - matched - sum(parts) + max(parts, default=0),
        largest_leaf_bytes=max((m.own_bytes for m in members), default=0),
        fp8_cast_bytes=None if packed else sum(m.own_params if m.cast_ok else m.own_bytes for m in members),
        int8_bytes=None if packed else rest + sum(_int8(m) for m in linear),
        nf4_bytes=None if packed else rest + sum(_nf4(m) for m in linear),
        pinned_bytes=sum(m.pinned_bytes for m in members) or None,  # nodes of older traces do not know it
        anonymous_bytes=sum(m.anonymous_bytes for m in members),
        source="config, loaded by the real loader without its data",
    )


def _families(
    nodes: tuple[ModuleNode, ...], children: dict[int, list[int]], root: int
) -> tuple[tuple[Block, ...], list[int]]:
    """(families of blocks; of every part that moves by itself, the bytes outside its blocks)."""
    below = _below(children, root)
    known = all(nodes[i].block_role is not None for i in below)
    if known:
        lists = sorted(i for i in below if nodes[i].block_role == "list" and children.get(i))
    else:
        lists = [i for i in children.get(root, ()) if nodes[i].class_name in _BLOCK_CONTAINERS and children.get(i)]
    blocks = []
    for i in lists:
        sizes = [_bytes_below(nodes, children, block) for block in children[i]]
        blocks.append(Block(path=nodes[i].path, count=len(sizes), largest_bytes=max(sizes), total_bytes=sum(sizes)))
    parts = {i: _bytes_below(nodes, children, i) for i in below if nodes[i].block_role == "part"}
    own = dict(parts)
    for i, size in [*parts.items(), *((i, _bytes_below(nodes, children, i)) for i in lists)]:
        above = nodes[i].parent
        while above >= 0 and above not in parts:
            above = nodes[above].parent
        if above in own:
            own[above] -= size
    return tuple(blocks), list(own.values())


def _matrix(m: ModuleNode) -> int:
    """Elements of the weight matrix of a linear layer."""
    return (m.own_params if m.params is None else m.params) - m.bias_params


def _int8(m: ModuleNode) -> int:
    rows = -(-_matrix(m) // m.in_features) if m.in_features else 0
    return _matrix(m) + rows * INT8_SCALE_BYTES + m.bias_bytes


def _nf4(m: ModuleNode) -> int:
    blocks = -(-_matrix(m) // NF4_BLOCK)
    return (_matrix(m) + 1) // 2 + blocks * NF4_SCALE_BYTES + NF4_CODE_BYTES + m.bias_bytes


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
