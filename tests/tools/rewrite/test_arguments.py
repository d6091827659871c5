"""Arguments that come and go in one call: whatever its layout, the result is the call that was asked for."""

from __future__ import annotations

import ast

from hypothesis import given, settings
from hypothesis import strategies as st
from oomdoctor.rewrite import arguments, edits
from oomdoctor.rewrite.edits import Edit
from oomdoctor.rewrite.text import Text

NAMES = ("a", "b", "c", "d", "e", "f")
LAYOUTS = (
    "pipe = load({})\n",
    "pipe = load(\n    {}\n)\n",
    "pipe = load(\n    {},\n)\n",
    "pipe = load(\n    {}  # last\n)\n",
    "pipe = load({},\n            )\n",
    "with x:\n\tpipe = load(\n\t\t{},\n\t).to(1)\n",
)
BETWEEN = (", ", ",\n    ", ",  # why\n    ", " ,\n\n    ")


@st.composite
def calls(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    parts = ['"model"', *(f"{n}={draw(st.sampled_from(('1', '[2, 3]', 'f(4)')))}" for n in names)]
    between = draw(st.sampled_from(BETWEEN))
    return draw(st.sampled_from(LAYOUTS)).format(between.join(parts))


def the_call(source: str) -> ast.Call:
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "load"]
    return found[0]


@given(calls(), st.dictionaries(st.sampled_from(NAMES), st.sampled_from(("9", '"new"', None)), max_size=4))
@settings(max_examples=200, deadline=None)
def test_the_call_passes_what_was_asked_for(source: str, wanted: dict[str, str | None]) -> None:
    text, call = Text(source), the_call(source)
    before = {k.arg: ast.unparse(k.value) for k in call.keywords}
    found = [Edit(start, end, new, "t", "why") for _, (start, end, new) in arguments.changes(text, call, wanted)]
    after, _ = edits.apply(source, found)
    now = {k.arg: ast.unparse(k.value) for k in the_call(after).keywords}
    expected = {k: v for k, v in before.items() if wanted.get(k or "", "") is not None}
    expected |= {k: ast.unparse(ast.parse(v, mode="eval")) for k, v in wanted.items() if v is not None}
    assert now == expected
    assert [ast.unparse(a) for a in the_call(after).args] == ["'model'"]
    assert sum("#" in line for line in after.splitlines()) <= sum("#" in line for line in source.splitlines())
    if all(wanted.get(k or "", v) == v for k, v in before.items()) and set(wanted) <= set(before):
        assert after == source
