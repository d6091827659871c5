"""What quantising techniques share: how a configuration is written, recognised and taken out.

A pipeline takes one ``PipelineQuantizationConfig`` for all its components; a component that the script loads by itself
takes its own configuration at its own loader.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from oomdoctor.techniques.base import PLACING, Context, Phase, Technique
from oomdoctor.techniques.effects import Effect, Format, Store
from oomdoctor.values import Application, Known, Loaded, Measurement

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

KEYWORD = "quantization_config"
_TORCHAO = {
    "Int8WeightOnlyConfig": "torchao_int8",
    "Int4WeightOnlyConfig": "torchao_int4",
    "Float8WeightOnlyConfig": "torchao_fp8",
}
_QUANTO = {"int8": "quanto_int8", "float8": "quanto_fp8", "int4": "quanto_int4"}


class Quantiser(Technique):
    """Weights of ``nn.Linear`` in fewer bits, converted while loading."""

    on_card: ClassVar[bool] = True
    """Converts on the card while loading; False: on the host."""
    tags = ("quantization",)
    phase = Phase.QUANTIZE
    group = "quantisation"
    conflicts = ("quantization",)
    words = "components"
    explains = {
        "component": "The models to quantise; those that run the steps by default.",
    }
    sets_dtype: ClassVar[bool] = True
    """Where a load names no dtype, it takes 16 bits for what it does not quantise."""
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
            if context.reads_dtype(name):
                return f"{context.pipeline_class} makes tensors in the dtype of the {name}'s weights, which would fail."
            loaded = _own_load(context, name)
            if self.sets_dtype and context.strategy.applications and _without_dtype(context, name):
                return (
                    f"the script loads float32, and without a dtype {self.package} takes 16 bits for the {name} alone; "
                    "ask for dtype(bf16) as well."
                )
            if loaded is not None and loaded.loader == "from_single_file":
                return f"{name} is loaded from a single file, which this library does not quantise while loading."
            if loaded is None and context.use.loader != "from_pretrained":
                return f"{name} is not loaded by from_pretrained in this script, and weights are converted there."
        foreign = [k for k in configurations(context).values() if k.kind is None]
        if foreign:
            return f"the script quantises already in a way that is not understood (line {foreign[0].line})."
        return None

    def policy(self, application: Application, measurement: Measurement | None) -> tuple[Effect, ...]:
        return tuple(
            Store(n, self.format, linear_only=True, compute_dtype="bf16", on_card=self.on_card)
            for n in application.components
        )

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
        alone = [n for n in application.components if _own_load(context, n) is not None]
        together = tuple(n for n in application.components if n not in alone)
        for name in alone:
            loaded = _own_load(context, name)
            reason = f"Loads the {name}'s weights with fewer bits each."
            draft.set_load_argument(KEYWORD, self.component_config(draft, name), reason, loaded)
        if together and context.use.kind == "model":
            reason = "Loads the weights with fewer bits each."
            draft.set_load_argument(KEYWORD, self.component_config(draft, together[0]), reason)
        elif together:
            if self.on_card and not any(PLACING & set(_tags(a)) for a in context.strategy.applications):
                draft.restore_placement(f"{self.package} puts these parts on the card, so the rest belongs there too.")
            name = _name_there(draft)
            reason = f"Says which parts to load with fewer bits per weight: {', '.join(together)}."
            used = "Loads those parts with fewer bits per weight."
            draft.before_load_for(
                f"{KEYWORD}={name}",
                lambda: f"{name} = {self.pipeline_config(draft, together)}",
                reason,
                used,
                self.phase,
            )

    def read(self, context: Context) -> Application | None:
        found = configurations(context)
        names = tuple(n for n, c in found.items() if c.kind == self.name)
        return Application(technique=self.name, components=names) if names else None

    def remove(self, draft: Draft) -> None:
        reason = self.why_gone(draft)
        for name, config in configurations(draft.context, draft.tree.module).items():
            if config.kind != self.name:
                continue
            draft.remove_load_argument(KEYWORD, reason, _own_load(draft.context, name))
            if config.statement is not None:
                draft.remove_statement(config.statement, reason)


def _name_there(draft: Draft) -> str:
    """What the script calls the configuration that goes for this one; the usual name where there is none."""
    known = draft.use.load_arguments.get(KEYWORD)
    found = configurations(draft.context, draft.tree.module).values()
    goes = any(c.statement is not None and c.statement in draft.removed for c in found)
    return known.text if goes and known is not None and known.text and known.text.isidentifier() else KEYWORD


@dataclass(frozen=True)
class Configuration:
    """How one component is quantised in the script."""

    kind: str | None
    """Name of the technique; None: in a way that is not understood."""
    line: int
    statement: ast.stmt | None
    """The assignment that holds the configuration, when it is used for nothing else."""


def configurations(context: Context, module: ast.Module | None = None) -> dict[str, Configuration]:
    """Component -> how the script quantises it. With ``module``, the assignments that hold the configurations too."""
    found: dict[str, Configuration] = {}
    known = context.use.load_arguments.get(KEYWORD)
    if known is not None:
        line = known.line or context.use.load_span.line
        kinds = dict(_pipeline_kinds(known.value)) or {"*": None}
        if context.use.kind == "model":
            kinds = {context.bare or "*": _kind(known.value)}
        found |= {name: Configuration(kind, line, _assignment(module, known, line)) for name, kind in kinds.items()}
    for loaded in context.use.components:
        own = loaded.arguments.get(KEYWORD)
        if own is not None:
            line = own.line or (loaded.span.line if loaded.span else 0)
            found[loaded.name] = Configuration(_kind(own.value), line, _assignment(module, own, line))
    return found


def _assignment(module: ast.Module | None, known: Known, line: int) -> ast.stmt | None:
    """``config = ...`` above the load, when the name is read nowhere else."""
    name = known.text or ""
    if module is None or not name.isidentifier():
        return None
    best: ast.Assign | None = None
    reads = 0
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            reads += 1
        if not isinstance(node, ast.Assign) or node.lineno > line:
            continue
        if any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            best = node if best is None or node.lineno > best.lineno else best
    return best if reads == 1 else None


def _pipeline_kinds(value: Any) -> Iterator[tuple[str, str | None]]:
    """Component -> technique, from the reading of a ``PipelineQuantizationConfig``."""
    if not isinstance(value, dict) or value.get("class") != "PipelineQuantizationConfig":
        return
    arguments = value.get("arguments") or {}
    mapping, backend = arguments.get("quant_mapping"), arguments.get("quant_backend")
    if isinstance(mapping, dict):
        yield from ((str(name), _kind(config)) for name, config in mapping.items())
    elif backend is not None:
        given = arguments.get("quant_kwargs") or {}
        kind = "bnb_nf4" if backend == "bitsandbytes_4bit" and given.get("load_in_4bit") else None
        if backend == "bitsandbytes_8bit" and given.get("load_in_8bit"):
            kind = "bnb_int8"
        names = arguments.get("components_to_quantize")
        for name in [names] if isinstance(names, str) else names or ["*"]:
            yield str(name), kind


def _kind(value: Any) -> str | None:
    """The technique that a component's own configuration amounts to."""
    if not isinstance(value, dict):
        return None
    name, arguments = str(value.get("class")), value.get("arguments") or {}
    if name == "BitsAndBytesConfig":
        return "bnb_int8" if arguments.get("load_in_8bit") else "bnb_nf4" if arguments.get("load_in_4bit") else None
    if name == "TorchAoConfig":
        inner = (value.get("positional") or [arguments.get("quant_type")])[0]
        return _TORCHAO.get(str(inner.get("class"))) if isinstance(inner, dict) else None
    if name == "QuantoConfig":
        given = arguments.get("weights_dtype", arguments.get("weights", (value.get("positional") or ["int8"])[0]))
        return _QUANTO.get(str(given))
    return "gguf" if name == "GGUFQuantizationConfig" else None


def by_itself(context: Context, name: str) -> Loaded | None:
    """The component's own loading in the script, when it has one."""
    return next((c for c in context.use.components if c.name == name and c.span is not None and c.loader), None)


def _without_dtype(context: Context, name: str) -> bool:
    """The component is float32 because nobody said what else."""
    own = by_itself(context, name)
    said = own.dtype.text if own is not None else context.use.dtype.text
    return said is None and context.compute_dtype(name) == "float32"


def _tags(application: Application) -> tuple[str, ...]:
    from oomdoctor.techniques import technique

    return technique(application.technique).tags


def _own_load(context: Context, name: str) -> Loaded | None:
    """The same, without a model from a GGUF file: that load goes when this quantiser comes."""
    config = configurations(context).get(name)
    return None if config is not None and config.kind == "gguf" else by_itself(context, name)
