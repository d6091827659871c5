"""The part of the call run that calls: the pipeline, what encodes its prompt in advance, and what stands around it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from oomdoctor.script.harness_load import keywords, size
from oomdoctor.script.kernels import BACKEND, KERNELS
from oomdoctor.script.writing import PROMPT, Writer, comment, is_image
from oomdoctor.values import Call, Known

EMBEDDINGS: dict[str, dict[str, str]] = {
    **dict.fromkeys(
        (
            "KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline", "KandinskyV22InpaintPipeline",
            "KandinskyV22ControlnetPipeline", "KandinskyV22ControlnetImg2ImgPipeline",
        ),
        dict.fromkeys(("image_embeds", "negative_image_embeds"), "torch.randn(1, 1280)"),
    ),
    "StableCascadeDecoderPipeline": {"image_embeddings": "torch.randn(1, 16, 24, 24)"},
}  # fmt: skip
"""Pipelines that begin with what another one embedded -> stand-ins for it: the priors' width, and the size for 1024 x 1024."""
_HANDED = re.compile(r"(\w+)((?:\.\w+|\[-?\d+\])*?)(\.to\(torch\.(?:float16|bfloat16|float32)\))?")
_EMBEDS = re.compile(r"\w*embeds\w*|\w*prompt\w*_mask\Z")


def encoding(writer: Writer, pipe: str, calls: Iterable[Call]) -> tuple[int, list[str], dict[str, str]]:
    """``encode_prompt`` as the script calls it: position, lines, and what its names stand for in the generated code."""
    for call in calls:
        if not call.pipeline.endswith(".encode_prompt") or not call.targets or call.runs is False:
            continue
        notes: list[str] = []
        given = [*_positional(writer, call, notes), *keywords(writer, call.arguments, notes, skip=set())]
        made = f"{pipe}_encoded"
        lines = ["with torch.no_grad():", f"    {made} = {pipe}.encode_prompt({', '.join(given)})"]
        return call.order, [*notes, *lines], results_of(call, made)
    return 0, [], {}


def handed(known: Known, results: dict[str, str]) -> str | None:
    """An argument that another pipeline's call gave, in the generated code; ``results``: names of the script there."""
    if known.certainty != "unknown" or known.alternatives or not known.text:
        return None
    match = _HANDED.fullmatch(known.text)
    return f"{results[match[1]]}{match[2]}{match[3] or ''}" if match and match[1] in results else None


def results_of(call: Call, result: str) -> dict[str, str]:
    """What the names that a call's result is given stand for, when the generated code keeps it as ``result``."""
    whole = f"{result}.{call.attribute}" if call.attribute else result
    several = len(call.targets) > 1
    return {name: f"{whole}[{i}]" if several else whole for i, name in enumerate(call.targets) if name != "_"}


def calling(
    writer: Writer, pipe: str, call: Call, encoded: dict[str, str], results: dict[str, str], embeddings: dict[str, str]
) -> list[str]:
    """The lines that call the pipeline; ``encoded``: names of the script that hold ready embeddings, ``results``: names
    that hold what other pipelines made, ``embeddings``: stand-ins for what this one cannot do without."""
    notes: list[str] = []
    named = dict(call.arguments)
    there = {n: made for n, known in named.items() if (made := handed(known, results)) is not None}
    there |= {n: made for n, made in embeddings.items() if n not in there}
    named = {n: known for n, known in named.items() if n not in there}
    embedded = [n for n in named if _EMBEDS.match(n)]
    given = _positional(writer, call, notes)
    ready = {n: encoded[named[n].text or ""] for n in embedded if named[n].text in encoded}
    for name in embedded:
        named.pop(name)
    given += [f"{name}={value}" for name, value in (there | ready).items()]
    if embedded and not ready:
        if "prompt" not in named and not call.positional:
            given.append(f"prompt={PROMPT!r}")
        notes.append(comment("embeddings are computed from a stand-in prompt: their shapes are not told by the text"))
    given += keywords(writer, named, notes, skip=set())
    line = f"{pipe}({', '.join(given)})"
    around = [*(['torch.autocast("cuda")'] if call.autocast else []), *_attention(writer, call.attention)]
    return [*notes, *([f"with {', '.join(around)}:", f"    {line}"] if around else [line])]


def _positional(writer: Writer, call: Call, notes: list[str]) -> list[str]:
    given: list[str] = []
    for i, known in enumerate(call.positional):
        name = "image" if _looks_like_image(known) else "prompt" if i == 0 else ""
        value = max(known.alternatives, key=size) if known.alternatives else known.value
        told = known.certainty != "unknown" or bool(known.alternatives)
        written = (writer.expression(value, name) if told else None) or writer.stand_in(name)
        if written is None:
            notes.append(comment(f"left out: argument {i + 1} of the call, line {call.span.line}, and those after it"))
            break
        given.append(written)
    return given


def _attention(writer: Writer, allowed: tuple[str, ...]) -> list[str]:
    """The context manager that chooses the call's attention kernel."""
    if not allowed:
        return []
    if allowed[0].startswith(BACKEND):
        return [f"{writer.use('diffusers', 'attention_backend')}({allowed[0].removeprefix(BACKEND)!r})"]
    members = {kernel: member for member, kernel in KERNELS.items()}
    backend, manager = writer.use("torch.nn.attention", "SDPBackend"), writer.use("torch.nn.attention", "sdpa_kernel")
    return [f"{manager}([{', '.join(f'{backend}.{members[kernel]}' for kernel in allowed)}])"]


def _looks_like_image(known: Known) -> bool:
    made = known.value if isinstance(known.value, dict) else {}
    text = (known.text or "").lower().rsplit(".", 1)[-1]
    return made.get("class") in ("load_image", "load_video", "open", "resize", "convert") or is_image(text)
