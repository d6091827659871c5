"""Scripts put together at random from the idioms, and input that is random altogether."""

from __future__ import annotations

import ast
import importlib.util
import random
import string
from pathlib import Path

import libcst
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libcst.metadata import MetadataWrapper, PositionProvider
from oomdoctor.errors import InputError
from oomdoctor.script import read_script
from oomdoctor.script.harness import harness
from oomdoctor.values import Script, Span

NAMES = ("pipe", "p", "self.pipe", "flux")
CLASSES = ("FluxPipeline", "StableDiffusionXLPipeline", "DiffusionPipeline", "AutoPipelineForText2Image", "WanPipeline")
DTYPES = ("bfloat16", "float16", "float32")


@st.composite
def scripts(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    """A script and what must be found in it."""
    name, cls = draw(st.sampled_from(NAMES)), draw(st.sampled_from(CLASSES))
    model = draw(st.text(string.ascii_letters + "-._", min_size=1, max_size=12).map(lambda t: f"org/{t}"))
    dtype, keyword = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(["dtype", "torch_dtype"]))
    qualified = draw(st.booleans())
    alias = draw(st.sampled_from(["", "Alias"])) if not qualified else ""
    head = [
        "import torch",
        "import diffusers" if qualified else f"from diffusers import {cls}" + (f" as {alias}" if alias else ""),
    ]
    written = f"diffusers.{cls}" if qualified else alias or cls

    source = draw(st.sampled_from(["literal", "constant", "default", "option"]))
    expression = {"literal": repr(model), "constant": "MODEL", "default": "model", "option": "args.model"}[source]
    parameters = ["self"] if name.startswith("self") else []
    if source == "constant":
        head.append(f"MODEL = {model!r}")
    elif source == "option":
        head += [
            "import argparse",
            "parser = argparse.ArgumentParser()",
            f"parser.add_argument('--model', default={model!r})",
            "args = parser.parse_args()",
        ]
    elif source == "default":
        parameters.append(f"model={model!r}")

    chained = draw(st.booleans())
    device = draw(st.sampled_from(['"cuda"', "device", 'torch.device("cuda")']))
    head += ['device = "cuda" if torch.cuda.is_available() else "cpu"'] if device == "device" else []
    place = draw(st.sampled_from([f".to({device})", ".cuda()", ""]))
    techniques = draw(
        st.lists(
            st.sampled_from(["enable_model_cpu_offload", "vae.enable_tiling", "enable_attention_slicing"]), unique=True
        )
    )
    call = draw(st.dictionaries(st.sampled_from(["height", "width", "num_inference_steps"]), st.integers(1, 4096)))

    body = [f"{name} = {written}.from_pretrained({expression}, {keyword}=torch.{dtype}){place if chained else ''}"]
    body += [f"{name}{place}"] if place and not chained else []
    body += [f"{name}.{technique}()" for technique in techniques]
    line = f'{name}("x"{"".join(f", {k}={v}" for k, v in call.items())}).images[0]'
    loop = draw(st.booleans())
    body += ["for i in range(3):", f"    {line}"] if loop else [f"image = {line}"]

    wrap = (
        "class"
        if name.startswith("self")
        else "function"
        if source == "default"
        else draw(st.sampled_from(["module", "function", "main"]))
    )
    if wrap == "class":
        lines = ["class Work:", f"    def __init__({', '.join(parameters)}):", *(f"        {b}" for b in body)]
    elif wrap == "function":
        lines = [f"def work({', '.join(parameters)}):", *(f"    {b}" for b in body)]
    elif wrap == "main":
        lines = ['if __name__ == "__main__":', *(f"    {b}" for b in body)]
    else:
        lines = body
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = end.join([*head, *lines]) + end
    facts: dict[str, object] = {
        "variable": name, "class": cls, "model": model, "dtype": dtype, "placed": bool(place), "chained": chained and bool(place),
        "techniques": techniques, "call": call, "loop": loop,
    }  # fmt: skip
    return text, facts


@given(scripts())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_is_put_together_is_found(made: tuple[str, dict[str, object]]) -> None:
    text, facts = made
    script = read_script(text)
    (use,) = script.pipelines
    assert use.uncertain == ()
    assert {
        "variable": use.variable, "class": use.class_name, "model": use.model.value, "dtype": use.dtype.value,
        "placed": bool(use.placements), "chained": any(p.chained for p in use.placements),
        "techniques": [o.method for o in use.optimisations],
        "call": {n: k.value for n, k in use.calls[0].arguments.items()}, "loop": use.calls[0].in_loop,
    } == facts  # fmt: skip
    assert [p.device.value for p in use.placements] in ([], ["cuda"])
    check_spans(text, script)
    ast.parse(harness(script))
    assert Script.model_validate_json(script.model_dump_json()) == script


def excerpt(text: str, span: Span) -> str:
    lines = text.replace("\r\n", "\n").split("\n")[span.line - 1 : span.end_line]
    lines[-1] = lines[-1][: span.end_column]
    return "\n".join([lines[0][span.column :], *lines[1:]])


def check_spans(text: str, script: Script) -> None:
    """Every span cuts out what it says, and is where libcst sees a node."""
    wrapper = MetadataWrapper(libcst.parse_module(text), unsafe_skip_copy=True)
    places = {
        (r.start.line, r.start.column, r.end.line, r.end.column) for r in wrapper.resolve(PositionProvider).values()
    }

    def seen(span: Span) -> bool:
        return (span.line, span.column, span.end_line, span.end_column) in places

    for use in script.pipelines:
        assert ".from_pretrained(" in excerpt(text, use.load_span) and excerpt(text, use.load_span).endswith(")")
        spans = [use.load_span, *(p.span for p in use.placements), *(o.span for o in use.optimisations)]
        spans += [c.span for c in use.calls]
        for known in (use.model, use.dtype, *(k for c in use.calls for k in c.arguments.values())):
            assert known.span is not None and excerpt(text, known.span) == known.text
            spans.append(known.span)
        assert all(seen(span) for span in spans)
        for call in use.calls:
            for name, known in call.arguments.items():
                assert known.keyword is not None and excerpt(text, known.keyword) == f"{name}={known.text}"


@given(st.binary(max_size=200))
def test_random_bytes_never_crash_it(data: bytes) -> None:
    try:
        read_script(data)
    except InputError as error:
        assert len(str(error)) > 20


@given(st.text(max_size=120))
def test_random_text_never_crashes_it(text: str) -> None:
    try:
        read_script(text)
    except InputError as error:
        assert len(str(error)) > 20


def corpus() -> list[str]:
    """Functions of real modules of the standard library."""
    out = []
    for module in (
        "argparse",
        "ast",
        "dataclasses",
        "typing",
        "functools",
        "subprocess",
        "tempfile",
        "contextlib",
        "asyncio.tasks",
    ):
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        text = Path(spec.origin).read_text()
        out += [ast.unparse(node) for node in ast.parse(text).body if len(ast.unparse(node)) < 4000]
    return out


PIECES = corpus()
SWAPS = (
    "FluxPipeline.from_pretrained",
    "pipe",
    "pipe.to",
    "pipe.vae",
    "torch.compile",
    "args",
    "parser.add_argument",
    "self.pipe",
)


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_random_valid_python_never_crashes_it(chance: random.Random) -> None:
    """Real code with names exchanged for ours, so that pipelines turn up where nobody would write them."""
    head = "import torch, argparse\nfrom diffusers import FluxPipeline\nparser = argparse.ArgumentParser()\n"
    head += 'pipe = FluxPipeline.from_pretrained("a")\n'
    body = "\n".join(chance.sample(PIECES, 6))

    class Exchange(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            if isinstance(node.ctx, ast.Load) and chance.random() < 0.15:
                return ast.parse(chance.choice(SWAPS), mode="eval").body
            if isinstance(node.ctx, ast.Store) and chance.random() < 0.1:
                return ast.Name("pipe", ast.Store())
            return node

    text = head + ast.unparse(ast.fix_missing_locations(Exchange().visit(ast.parse(body))))
    script = read_script(text)
    assert script.pipelines
    try:
        ast.parse(harness(script))
    except InputError as error:
        assert len(str(error)) > 20
