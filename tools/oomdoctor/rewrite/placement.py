"""Taking ``.to("cuda")``, ``.cuda()`` and ``device_map`` out of a script, and knowing whether one is there."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from oomdoctor.rewrite import anchors, arguments, branches
from oomdoctor.techniques.base import Phase
from oomdoctor.values import Placement

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

OFFLOAD_PHASE = int(Phase.OFFLOAD)
_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
_ACCELERATORS = ("cuda", "xpu", "mps", "hip")


def is_accelerator(placement: Placement) -> bool | None:
    """The placement goes to the card; None when the script decides that at run time."""
    if placement.kind == "cuda":
        return True
    device = placement.device
    if device.text is None and device.value is None:
        return False
    if isinstance(device.value, int) and not isinstance(device.value, bool):
        return True
    if not isinstance(device.value, str):
        return None
    return device.value.split(":")[0] in (*_ACCELERATORS, *_MAPS)


def on_card(draft: Draft) -> bool:
    """After the edits so far, something still puts the pipeline on the card (or may)."""
    here = (
        p
        for p in draft.use.placements
        if p.target in ("", draft.use.variable)
        and p not in draft.unplaced
        and draft.tree.statement(p.span) not in draft.removed
    )
    return any(is_accelerator(p) is not False for p in here)


def gather(draft: Draft, reason: str) -> None:
    """Moves in a branch whose other branch has lost its offloading go: the pipeline moves in one place for both."""
    for placement in draft.use.placements:
        statement = draft.tree.statement(placement.span)
        ours = placement.target in ("", draft.use.variable) and placement.kind != "device_map"
        if statement is not None and ours and is_accelerator(placement) and branches.halved(draft, statement):
            _remove_one(draft, placement, reason)


def remove(draft: Draft, reason: str) -> None:
    """Every placement of the pipeline and of its components that is surely on the card goes."""
    for placement in draft.use.placements:
        where = is_accelerator(placement)
        if where is None:
            draft.by_hand(
                f"Line {placement.span.line}: delete `{_written(draft, placement)}` if it moves the pipeline to the "
                "card; the script decides that at run time."
            )
        elif where:
            _remove_one(draft, placement, reason)
    _remove_maps(draft, reason)


def _remove_maps(draft: Draft, reason: str) -> None:
    """A part that is loaded by itself is not spread over cards either, and there is no map left to reset."""
    for loaded in draft.use.components:
        known = loaded.arguments.get("device_map")
        if known is None or "quantization_config" in loaded.arguments:
            continue
        if isinstance(known.value, dict) or str(known.value).split(":")[0] in (*_ACCELERATORS, *_MAPS):
            for name in ("device_map", "max_memory"):
                draft.remove_load_argument(name, reason, loaded)
        elif known.value is None and known.text != "None":
            draft.by_hand(f"Line {known.line}: delete device_map if it puts the {loaded.name} on the card.")
    call = draft.load_call()
    stays = call is not None and arguments.has_double_star(call) and arguments.find(call, "device_map") is None
    for use in draft.use.optimisations:
        if use.method.endswith("reset_device_map") and not stays:
            draft.remove_optimisation(use, "There is no device map left to reset.")


def postpone(draft: Draft, reason: str) -> None:
    """The pipeline goes to the card after casting, not before: ``.to("cuda")`` moves below what is written now.

    A separate ``pipe.to("cuda")`` below loading and adapters is in the right place already, unless it also names a
    dtype, which would undo the casting.
    """
    moved: str | None = None
    last = max((s.lineno for s in anchors.adapters(draft)), default=draft.use.load_statement.end_line)
    for placement in draft.use.placements:
        if placement.target not in ("", draft.use.variable) or not is_accelerator(placement):
            continue
        if placement.kind == "device_map":
            continue
        late = not placement.chained and placement.span.line > max(last, draft.use.load_statement.end_line)
        if late and placement.dtype.text is None:
            return
        moved = _device_as_written(draft, placement)
        _remove_one(draft, placement, reason)
    if moved is not None:
        draft.after_load([f"{draft.pipe}.to({moved})"], OFFLOAD_PHASE, "")


def _device_as_written(draft: Draft, placement: Placement) -> str:
    call = _call(draft, placement)
    device = next((k.value for k in call.keywords if k.arg == "device"), None) if call else None
    if device is None and call is not None and call.args:
        device = call.args[0]
    return draft.text.source[slice(*draft.text.node(device))] if device is not None else draft.quote("cuda")


def _written(draft: Draft, placement: Placement) -> str:
    start, end = draft.text.span(placement.span)
    return " ".join(draft.text.source[start:end].split())[-80:]


def _remove_one(draft: Draft, placement: Placement, reason: str) -> None:
    if placement in draft.unplaced:
        return
    if placement.kind == "device_map":
        call = draft.load_call()
        if placement.part:  # a part's own map goes where the part is loaded
            return
        if call is not None and arguments.find(call, "device_map") is None:
            _reset(draft, placement)
        draft.remove_load_argument("device_map", reason)
        draft.remove_load_argument("max_memory", reason)
        draft.unplaced.append(placement)
        return
    call = _call(draft, placement)
    if call is None or placement.kind == "constructor":
        draft.by_hand(
            f"Line {placement.span.line}: delete `{_written(draft, placement)}`; offloading moves the weights itself."
        )
        return
    assert isinstance(call.func, ast.Attribute)
    draft.unplaced.append(placement)
    dtype = _dtype_argument(call, placement)
    statement = draft.tree.statement(placement.span)
    if dtype is not None and not _fold_dtype(draft, placement, dtype, reason):
        start, end = draft.text.node(call)
        opening = draft.text.node(call.func)[1]
        written = draft.text.source[slice(*draft.text.node(dtype))]
        draft.edit(opening, end, f"({written})", reason)
        return
    if statement is not None and _only_moves(statement, call, placement):
        if not branches.vacate(draft, statement):
            draft.remove_statement(statement, reason)
        return
    start, end = _link(draft, call)
    draft.edit(start, end, "", reason)


def _reset(draft: Draft, placement: Placement) -> None:
    """The map comes in with ``**options``: it is taken back once everything is loaded."""
    resets = any(use.method.endswith("reset_device_map") for use in draft.use.optimisations)
    if placement.device.value in _MAPS and not resets:
        reason = "Takes the device map back: a pipeline that is spread over cards cannot be moved or offloaded."
        draft.after_load([f"{draft.pipe}.reset_device_map()"], OFFLOAD_PHASE - 1, reason)
    elif placement.device.value not in _MAPS:
        line = placement.span.line
        draft.by_hand(f"Line {line}: delete device_map from what is handed over; it fills the card while loading.")


def take_back_resets(draft: Draft, reason: str) -> None:
    """A device map that is still loaded with holds again when nothing resets it."""
    if any(p.kind == "device_map" and p not in draft.unplaced for p in draft.use.placements):
        for use in draft.use.optimisations:
            if use.method.endswith("reset_device_map"):
                draft.remove_optimisation(use, reason)


def _call(draft: Draft, placement: Placement) -> ast.Call | None:
    """The ``.to(...)`` or ``.cuda()`` call that the placement's span ends with."""
    start, end = draft.text.span(placement.span)
    found = [
        node
        for node in draft.tree.nodes(ast.Call)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("to", "cuda")
        and start < draft.text.node(node)[1] <= end
    ]
    return max(found, key=lambda n: draft.text.node(n)[1], default=None)


def _link(draft: Draft, call: ast.Call) -> tuple[int, int]:
    """``.to("cuda")`` with the line break that may stand before it."""
    assert isinstance(call.func, ast.Attribute)
    end = draft.text.node(call)[1]
    attribute = draft.text.node(call.func)[1] - len(call.func.attr)
    dot = draft.text.source.rindex(".", 0, attribute)
    head = draft.text.source[:dot]
    return len(head.rstrip(" \t\r\n\\")), end


def _only_moves(statement: ast.stmt, call: ast.Call, placement: Placement) -> bool:
    """``pipe.to(...)`` or ``pipe = pipe.to(...)``: nothing else happens in the statement."""
    assert isinstance(call.func, ast.Attribute)
    receiver = call.func.value
    if not isinstance(receiver, ast.Name | ast.Attribute):
        return False
    if isinstance(statement, ast.Expr):
        return statement.value is call
    if isinstance(statement, ast.Assign) and statement.value is call and len(statement.targets) == 1:
        return ast.unparse(statement.targets[0]) == ast.unparse(receiver)
    return False


def drop_dtypes(draft: Draft, reason: str) -> None:
    """``.to("cuda", torch.float16)`` becomes ``.to("cuda")``, and ``.to(torch.float16)`` goes: loading decides."""
    for placement in draft.use.placements:
        call = _call(draft, placement) if placement.target in ("", draft.use.variable) else None
        dtype = _dtype_argument(call, placement) if call is not None else None
        if call is None or dtype is None or placement in draft.unplaced:
            continue
        statement = draft.tree.statement(placement.span)
        others = [a for a in (*call.args, *(k.value for k in call.keywords)) if a is not dtype]
        keyword = next((k.arg for k in call.keywords if k.value is dtype), None)
        if not others and statement is not None and _only_moves(statement, call, placement):
            draft.remove_statement(statement, reason)
        elif not others:
            draft.edit(*_link(draft, call), "", reason)
        elif keyword is not None:
            draft.unset_keyword(call, keyword, reason)
        else:
            draft.edit(draft.text.node(others[0])[1], draft.text.node(dtype)[1], "", reason)


def _dtype_argument(call: ast.Call, placement: Placement) -> ast.expr | None:
    """The argument of ``.to`` that is a dtype."""
    if placement.dtype.text is None and placement.dtype.value is None:
        return None
    for keyword in call.keywords:
        if keyword.arg in ("dtype", "torch_dtype"):
            return keyword.value
    if len(call.args) >= 2:
        return call.args[1]
    alone = placement.device.text is None or any(k.arg == "device" for k in call.keywords)
    return call.args[0] if len(call.args) == 1 and alone else None


def _fold_dtype(draft: Draft, placement: Placement, dtype: ast.expr, reason: str) -> bool:
    """``.to("cuda", torch.float16)``: the dtype belongs to loading. True when nothing of it has to stay."""
    if placement.target not in ("", draft.use.variable):
        return False
    known = draft.use.dtype
    if draft.context.planned("dtype") is not None:
        return True
    if known.value is not None and known.value == placement.dtype.value:
        return True
    if known.certainty not in ("default", "unknown") or known.text is not None:
        return False
    written = draft.text.source[slice(*draft.text.node(dtype))]
    return draft.set_load_argument(draft.context.dtype_keyword, written, reason)
