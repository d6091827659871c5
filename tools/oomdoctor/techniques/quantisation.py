"""What quantising techniques share: how a configuration is written, recognised and taken out.

A pipeline takes one ``PipelineQuantizationConfig`` for all its components; a component that the script loads by itself
takes its own configuration at its own loader.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from oomdoctor.techniques.base import Context, Phase, Technique
from oomdoctor.techniques.effects import Effect, Format, Store
from oomdoctor.values import Application, Loaded, Measurement

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

KEYWORD = "quantization_config"
_TORCHAO = {
    "Int8WeightOnlyConfig": "torchao_int8",
    "Int4WeightOnlyConfig": "torchao_int4",
    "Float8WeightOnlyConfig": "torchao_fp8",
}


class Quantiser(Technique):
    """Weights of ``nn.Linear`` in fewer bits, converted while loading."""

    tags = ("quantization",)
    phase = Phase.QUANTIZE
    group = "quantisation"
    conflicts = ("quantization",)
    words = "components"
    package: ClassVar[str]
    """What has to be installed."""
    minimum: ClassVar[str]
    format: ClassVar[Format]

    def options(self, context: Context) -> tuple[Application, ...]:
        sets = [context.denoisers, (*context.denoisers, *context.large_text_encoders), context.large_text_encoders]
        found = [Application(technique=self.name, components=s) for s in dict.fromkeys(sets) if s]
        return tuple(a for a in found if self.applies_to(context, a) is None)

    def resolve(self, application: Application, context: Context) -> Application:
        names = application.components or context.denoisers
        return application.model_copy(update={"components": tuple(dict.fromkeys(names))})

    def applies_to(self, context: Context, application: Application) -> str | None:
        if not application.components:
            return f"the script does not tell which model runs the steps; name it, as in {self.name}(transformer)."
        if context.older(self.package, self.minimum):
            return f"it needs {self.package} {self.minimum} or newer (pip install -U {self.package})."
        if context.older("diffusers", "0.35"):
            return "it needs diffusers 0.35 or newer (pip install -U diffusers)."
        known = context.components
        for name in application.components:
            if not context.may_have(name):
                return f"there is no component {name!r}; there are {', '.join(known)}."
            loaded = _by_itself(context, name)
            if loaded is not None and loaded.loader == "from_single_file":
                return f"{name} is loaded from a single file, which this library does not quantise while loading."
            if loaded is None and context.use.loader != "from_pretrained":
                return f"{name} is not loaded by from_pretrained in this script, and weights are converted there."
        foreign = [k for k in configurations(ast_of(context), context).values() if k.kind is None]
        if foreign:
            return f"the script quantises already in a way that is not understood (line {foreign[0].line})."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return tuple(Store(n, self.format, linear_only=True, compute_dtype="bf16") for n in application.components)

    # -- writing -------------------------------------------------------------------------------------------------

    @abstractmethod
    def pipeline_config(self, draft: Draft, names: tuple[str, ...]) -> str:
        """The expression of the pipeline's configuration, over several lines."""

    @abstractmethod
    def component_config(self, draft: Draft, name: str) -> str:
        """The expression of one component's own configuration."""

    def write(self, draft: Draft, application: Application) -> None:
        context = draft.context
        if context.missing(self.package):
            draft.warn(f"This needs the package {self.package}: pip install -U {self.package}")
        alone = [n for n in application.components if _by_itself(context, n) is not None]
        together = tuple(n for n in application.components if n not in alone)
        for name in alone:
            loaded = _by_itself(context, name)
            reason = f"Loads the {name}'s weights with fewer bits each."
            draft.set_load_argument(KEYWORD, self.component_config(draft, name), reason, loaded)
        if together:
            reason = f"Says which parts to load with fewer bits per weight: {', '.join(together)}."
            draft.before_load([f"{KEYWORD} = {self.pipeline_config(draft, together)}"], reason, self.phase)
            draft.set_load_argument(KEYWORD, KEYWORD, "Loads those parts with fewer bits per weight.")

    def read(self, context: Context) -> Application | None:
        found = configurations(ast_of(context), context)
        names = tuple(n for n, c in found.items() if c.kind == self.name)
        return Application(technique=self.name, components=names) if names else None

    def remove(self, draft: Draft) -> None:
        reason = f"Takes out {self.name}: the chosen strategy does without it."
        for name, config in configurations(draft.tree.module, draft.context).items():
            if config.kind != self.name:
                continue
            draft.remove_load_argument(KEYWORD, reason, _by_itself(draft.context, name))
            if config.statement is not None:
                draft.remove_statement(config.statement, reason)


@dataclass(frozen=True)
class Configuration:
    """How one component is quantised in the script."""

    kind: str | None
    """Name of the technique; None: in a way that is not understood."""
    line: int
    statement: ast.stmt | None
    """The assignment that holds the configuration, when it is used for nothing else."""


@lru_cache(maxsize=8)
def _parsed(source: str) -> ast.Module:
    return ast.parse(source.removeprefix("\ufeff"))


def ast_of(context: Context) -> ast.Module:
    """The script's syntax tree."""
    return _parsed(context.source)


def configurations(module: ast.Module, context: Context) -> dict[str, Configuration]:
    """Component -> how the script quantises it."""
    found: dict[str, Configuration] = {}
    known = context.use.load_arguments.get(KEYWORD)
    if known is not None:
        call, statement = _resolve(module, known.text, known.line or context.use.load_span.line)
        line = known.line or context.use.load_span.line
        kinds = dict(_pipeline_kinds(call)) or {"*": None}
        found |= {name: Configuration(kind, line, statement) for name, kind in kinds.items()}
    for loaded in context.use.components:
        own = loaded.arguments.get(KEYWORD)
        if own is not None:
            line = own.line or (loaded.span.line if loaded.span else 0)
            call, statement = _resolve(module, own.text, line)
            found[loaded.name] = Configuration(_kind(call), line, statement)
    return found


def _resolve(module: ast.Module, text: str | None, line: int) -> tuple[ast.Call | None, ast.stmt | None]:
    """The configuration's call: written in place, or assigned to a name above."""
    try:
        expression = ast.parse(text or "", mode="eval").body
    except SyntaxError:
        return None, None
    if isinstance(expression, ast.Call):
        return expression, None
    if not isinstance(expression, ast.Name):
        return None, None
    best: ast.Assign | None = None
    reads = 0
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and node.id == expression.id and isinstance(node.ctx, ast.Load):
            reads += 1
        if not isinstance(node, ast.Assign) or node.lineno > line or not isinstance(node.value, ast.Call):
            continue
        if any(isinstance(t, ast.Name) and t.id == expression.id for t in node.targets):
            best = node if best is None or node.lineno > best.lineno else best
    if best is None:
        return None, None
    assert isinstance(best.value, ast.Call)
    return best.value, best if reads == 1 else None


def _pipeline_kinds(call: ast.Call | None) -> Iterator[tuple[str, str | None]]:
    if call is None or _last(call.func) != "PipelineQuantizationConfig":
        return
    keywords = {k.arg: k.value for k in call.keywords}
    mapping, backend = keywords.get("quant_mapping"), _literal(keywords.get("quant_backend"))
    if isinstance(mapping, ast.Dict):
        for key, value in zip(mapping.keys, mapping.values, strict=True):
            yield str(_literal(key)), _kind(value if isinstance(value, ast.Call) else None)
    elif backend is not None:
        options = keywords.get("quant_kwargs")
        given = [_literal(k) for k in options.keys] if isinstance(options, ast.Dict) else []
        kind = {"bitsandbytes_4bit": "bnb_nf4", "bitsandbytes_8bit": "bnb_int8"}.get(str(backend))
        if kind == "bnb_int8" and "load_in_8bit" not in given:
            kind = None
        components = _literal(keywords.get("components_to_quantize"))
        names = [components] if isinstance(components, str) else components
        for name in names if isinstance(names, list) and names else ["*"]:
            yield str(name), kind


def _kind(call: ast.Call | None) -> str | None:
    """The technique that a component's own configuration amounts to."""
    if call is None:
        return None
    name, keywords = _last(call.func), {k.arg: _literal(k.value) for k in call.keywords}
    if name.endswith("BitsAndBytesConfig"):
        return "bnb_int8" if keywords.get("load_in_8bit") else "bnb_nf4" if keywords.get("load_in_4bit") else None
    if name.endswith("TorchAoConfig"):
        first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "quant_type"), None)
        return _TORCHAO.get(_last(first.func)) if isinstance(first, ast.Call) else None
    return "gguf" if name == "GGUFQuantizationConfig" else None


def _last(function: ast.expr) -> str:
    return ast.unparse(function).rsplit(".", 1)[-1]


def _literal(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _by_itself(context: Context, name: str) -> Loaded | None:
    """The component's own loading in the script, when it has one."""
    return next((c for c in context.use.components if c.name == name and c.span is not None and c.loader), None)
