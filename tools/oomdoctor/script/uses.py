"""What is done with a pipeline or model once it exists: placing, optimising, adapters, calls, assignments."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.script import arguments as args
from oomdoctor.script import folding, libraries, loads, results
from oomdoctor.script.arguments import Argument, Arguments
from oomdoctor.script.domain import UNKNOWN, Abstract, Const, Named, Record, Ref, Result, choices
from oomdoctor.script.expressions import dotted
from oomdoctor.script.known import known
from oomdoctor.values import Adapter, Call, Known, Optimisation, Placement, Span

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter

_CASTS = {"half": "float16", "float": "float32", "bfloat16": "bfloat16", "double": "float64"}
_OFF_CARD = frozenset({"pil", "np", "numpy"})


def invoke(
    reader: Interpreter, ref: Ref, node: ast.Call, given: Arguments, written: ast.expr | None = None
) -> Abstract:
    """``pipe(...)``, ``pipe.method(...)``, ``pipe.part.method(...)``; ``written``: who is called, if not `node.func`."""
    if not ref.path or ref.path == ("__call__",):
        return call(reader, ref.record, (), node, given, written)
    base, method = ref.path[:-1], ref.path[-1]
    record, here = ref.record, Ref(ref.record, base)
    if method in ("to", "cuda", "cpu") or method in _CASTS:
        place(reader, record, base, method, node, given)
        return here
    if method in libraries.ADAPTERS:
        _adapter(reader, record, method, node, given)
        return here
    if libraries.is_technique(method):
        span = reader.source.span(node)
        record_technique(reader, record, method, ".".join(base), _owner(node), args.facts(reader, given), span)
        _late_dtype(record, method, given, reader)
        return here
    if method in ("register_modules", "update_components"):
        for name, argument in given.keywords.items():
            loads.add_components(reader, record, name, argument)
        return UNKNOWN
    if method in libraries.PASS_THROUGH:
        return here
    if (
        method in libraries.PART_CALLS
        or (not base and libraries.WHOLE_CALLS.match(method))
        or libraries.COMPONENTS.match(method)
    ):
        return call(reader, record, ref.path, node, given, written)
    return UNKNOWN


def _owner(node: ast.Call) -> ast.expr:
    return node.func.value if isinstance(node.func, ast.Attribute) else node.func


def _late_dtype(record: Record, method: str, given: Arguments, reader: Interpreter) -> None:
    """Modular pipelines get their weights, and their dtype, from ``load_components``."""
    for name in ("dtype", "torch_dtype"):
        if method == "load_components" and name in given.keywords:
            record.dtype = args.fact(reader, given.keywords[name])


def call(
    reader: Interpreter,
    record: Record,
    path: tuple[str, ...],
    node: ast.Call,
    given: Arguments,
    written: ast.expr | None,
) -> Abstract:
    """Note a call of the pipeline or model (empty path) or of a part of it."""
    span = reader.source.span(node)
    whole = not path and record.kind == "pipeline"
    output = given.keywords.get("output_type")
    kind = folding.as_text(output.value) if output is not None else None
    on_device = not whole if kind is None else kind not in _OFF_CARD
    keywords = {name: args.fact(reader, a) for name, a in given.keywords.items()}
    positional = tuple(args.fact(reader, a) for a in given.positional)
    result = Result(record, span, on_device and (kind is not None or not whole))
    bucket = record.calls if not path else record.part_calls
    if not record.once("call", span):
        _again(bucket, span, keywords)
        return result
    condition, runs = reader.condition()
    loops = reader.context.loops
    bucket.append(
        Call(
            pipeline=dotted(written or node.func) or record.variable or "",
            arguments=keywords,
            positional=positional,
            in_loop=bool(loops),
            loop_line=loops[-1] if loops else None,
            pictures=whole and _joins(reader, node),
            targets=results.names_of(reader.statement, node),
            attribute=results.attribute_of(reader.statement, node),
            no_grad=None if whole else reader.context.grad_off > 0,
            autocast=reader.context.autocast > 0,
            attention=reader.context.attention,
            span=span,
            statement=reader.statement_span(),
            scope=reader.scope.name,
            condition=condition,
            runs=runs,
            order=reader.tick(),
        )
    )
    for unfollowed in given.unfollowed:
        text = reader.source.excerpt(reader.source.span(unfollowed)).lstrip("*")
        record.doubt(f"line {node.lineno}: what `{text}` adds to the call could not be followed")
    return result


def _joins(reader: Interpreter, node: ast.Call) -> bool:
    statement = reader.statement
    return results.pictures_of(statement, node) is not None and reader.source.has_lines_to_itself(statement)


def _again(bucket: list[Call], span: Span, keywords: dict[str, Known]) -> None:
    """The same call, reached with other arguments: where they differ, both count."""
    for i, seen in enumerate(bucket):
        if seen.span != span:
            continue
        merged = dict(seen.arguments)
        for name, fact in keywords.items():
            before = merged.get(name)
            if before is None or (before.value == fact.value and before.alternatives == fact.alternatives):
                continue
            values = [*(before.alternatives or (before.value,)), *(fact.alternatives or (fact.value,))]
            unique = [v for j, v in enumerate(values) if v not in values[:j]]
            if "unknown" in (before.certainty, fact.certainty) and not (before.alternatives or fact.alternatives):
                unique = [v for v in unique if v is not None]
            merged[name] = before.model_copy(
                update={"value": None, "certainty": "unknown", "alternatives": tuple(unique[:8])}
            )
        bucket[i] = seen.model_copy(update={"arguments": merged})


def place(
    reader: Interpreter, record: Record, base: tuple[str, ...], method: str, node: ast.Call, given: Arguments
) -> None:
    """Note ``.to(...)``, ``.cuda()``, ``.cpu()``, ``.half()``."""
    span = reader.source.span(node)
    memory_format = given.keywords.get("memory_format")
    if memory_format is not None:
        facts = {"memory_format": args.fact(reader, memory_format)}
        record_technique(reader, record, "to", ".".join(base), _owner(node), facts, span)
        if len(given.everything()) == 1:
            return
    if not record.once("place " + ".".join(base), span):
        return
    device, dtype = Known(), Known()
    for name, argument in [*(("", a) for a in given.positional), *given.keywords.items()]:
        fact = args.fact(reader, argument)
        if name in ("dtype", "torch_dtype") or (name == "" and _is_dtype(argument)):
            dtype = fact
        elif name in ("device", "torch_device", "") and device == Known():
            device = _device(fact)
    if method == "cuda":
        device = _device(device) if device.certainty != "unknown" else Known(value="cuda", certainty="literal")
    elif method == "cpu":
        device = Known(value="cpu", certainty="literal")
    elif method in _CASTS:
        dtype = Known(value=_CASTS[method], certainty="literal", text=f".{method}()", line=node.lineno)
    owner = dotted(_owner(node))
    condition, runs = reader.condition()
    record.placements.append(
        Placement(
            kind="cuda" if method == "cuda" else "to",
            device=device,
            dtype=dtype,
            chained=owner is None,
            target=owner or ".".join(base),
            part=".".join(base),
            span=span,
            statement=reader.statement_span(),
            condition=condition,
            runs=runs,
            order=reader.tick(),
        )
    )


def _is_dtype(argument: Argument) -> bool:
    def one(value: Abstract) -> bool:
        if isinstance(value, Named):
            return libraries.dtype_of(value.qualified) is not None
        return isinstance(value, Const) and isinstance(value.value, str) and value.value in libraries.DTYPES

    if argument.value is UNKNOWN:
        text = (dotted(argument.node) or "").rsplit(".", 1)[-1]
        return "dtype" in text
    return all(one(value) for value in choices(argument.value))


def _device(fact: Known) -> Known:
    if isinstance(fact.value, int) and not isinstance(fact.value, bool):
        return fact.model_copy(update={"value": f"cuda:{fact.value}"})
    return fact


def _adapter(reader: Interpreter, record: Record, method: str, node: ast.Call, given: Arguments) -> None:
    span = reader.source.span(node)
    if not record.once("adapter", span):
        return
    first = given.get(0, "pretrained_model_name_or_path_or_dict", *libraries.MODEL_KEYWORDS)
    model = args.fact(reader, first) if first is not None else Known()
    facts = args.facts(reader, given)
    if given.positional:
        facts.pop("0", None)
    condition, runs = reader.condition()
    record.adapters.append(
        Adapter.model_validate({
            "kind": libraries.ADAPTERS[method], "model": model, "arguments": facts, "span": span, "method": method,
            "target": dotted(_owner(node)), "statement": reader.statement_span(), "condition": condition, "runs": runs,
            "order": reader.tick(),
        })
    )  # fmt: skip


def record_technique(
    reader: Interpreter, record: Record, method: str, part: str, owner: ast.expr, facts: dict[str, Known], span: Span
) -> None:
    """Note a technique. ``part`` is the component it is applied to (empty: the whole), ``owner`` the expression."""
    if not record.once("technique " + method + part, span):
        return
    condition, runs = reader.condition()
    full = f"del {part}".strip() if method == "del" else f"{part}.{method}" if part else method
    record.optimisations.append(
        Optimisation(method=full, target=dotted(owner) or part, part=part, arguments=facts, span=span,
                     statement=reader.statement_span(), condition=condition, runs=runs, order=reader.tick())
    )  # fmt: skip


def apply_function(
    reader: Interpreter, name: str, ref: Ref, argument: Argument, node: ast.Call, given: Arguments
) -> None:
    """Note ``torch.compile(pipe.unet)``, ``apply_group_offloading(pipe.vae, ...)`` and their like."""
    facts = {n: args.fact(reader, a) for n, a in given.keywords.items()}
    for i, positional in enumerate(given.positional):
        if positional is not argument:
            facts[str(i)] = args.fact(reader, positional)
    part = ".".join(ref.path)
    span = reader.source.span(node)
    if not ref.record.once("technique " + name + part, span):
        return
    condition, runs = reader.condition()
    ref.record.optimisations.append(
        Optimisation(method=name, target=dotted(argument.node) or part, part=part, arguments=facts, span=span,
                     statement=reader.statement_span(), condition=condition, runs=runs, order=reader.tick())
    )  # fmt: skip


def assign_part(reader: Interpreter, ref: Ref, target: ast.Attribute, value: Abstract, node: ast.expr | None) -> None:
    """``pipe.vae = vae``, ``pipe.text_encoder = None``, ``pipe.vae.use_framewise_decoding = True``."""
    record, span = ref.record, reader.source.span(target)
    if node is None or not record.once("assign", span):
        return
    path = (*ref.path, target.attr)
    own = [choice for choice in choices(value) if isinstance(choice, Ref)]
    if own and all(choice.record is record for choice in own):
        return  # pipe.unet = torch.compile(pipe.unet): noted as the call
    if own and not ref.path:
        loads.add_components(reader, record, target.attr, Argument(value, node))
        return
    statement = reader.statement_span()
    condition, runs = reader.condition()
    record.optimisations.append(
        Optimisation(method=".".join(path), target=dotted(target.value) or ".".join(ref.path), part=".".join(ref.path),
                     arguments={"value": known(value, node, reader.source)}, span=span, statement=statement,
                     condition=condition, runs=runs, order=reader.tick())
    )  # fmt: skip


def setting(reader: Interpreter, name: str, facts: dict[str, Known], span: Span) -> None:
    """Note a process-wide switch."""
    if any(s.span == span for s in reader.settings[-50:]):
        return
    condition, runs = reader.condition()
    reader.settings.append(
        Optimisation(method=name, target=name.rpartition(".")[0], arguments=facts, span=span,
                     statement=reader.statement_span(), condition=condition, runs=runs, order=reader.tick())
    )  # fmt: skip


def set_environment(reader: Interpreter, key: Abstract, value: Known) -> None:
    """``os.environ["NAME"] = "value"``."""
    name = folding.as_text(key)
    if name is not None:
        reader.environment[name] = value
