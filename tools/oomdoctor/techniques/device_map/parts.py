"""The two ways to go beyond *balanced*: one model spread layer by layer, or a card named for each component.

A pipeline takes no map of its own making (only a word), so both are written with what the models and accelerate take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from oomdoctor.techniques.base import Context, Phase
from oomdoctor.techniques.quantisation import by_itself, configurations
from oomdoctor.techniques.uses import uses_of
from oomdoctor.values import Application, Known, Loaded

if TYPE_CHECKING:
    from oomdoctor.rewrite.draft import Draft

MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words with which a model spreads itself."""
_SAME = ("variant", "revision", "token", "cache_dir", "local_files_only", "use_safetensors")
"""Arguments of the pipeline's load that a part loaded by itself needs as well."""
_OURS = {"subfolder", "dtype", "torch_dtype", "device_map", "max_memory", *_SAME}


def spread_part(context: Context) -> Loaded | None:
    """The model that the script loads by itself and spreads over cards."""
    for loaded in context.use.components:
        known = loaded.arguments.get("device_map")
        if known is not None and loaded.span is not None and "quantization_config" not in loaded.arguments:
            spreads = isinstance(known.value, dict) and len(set(map(str, known.value.values()))) > 1
            if known.value in MAPS or spreads:
                return loaded
    return None


def dispatched(context: Context) -> dict[str, int]:
    """Component -> card, of the components that the script dispatches one by one."""
    found: dict[str, int] = {}
    for use in uses_of(context.use):
        if use.verb != "dispatch_model":
            continue
        given = use.argument("1", use.argument("device_map"))
        card = next(iter(given.values()), None) if isinstance(given, dict) else None
        if use.owner and isinstance(card, int):
            found[use.owner.split(".")[0]] = card
    return found


def is_reset(context: Context) -> bool:
    """The script takes its device map back."""
    return any(use.verb == "reset_device_map" for use in uses_of(context.use))


# -------------------------------------------------------------------------------------------------- one model spread
def no_spreading(context: Context, name: str) -> str | None:
    """Why the model cannot be spread layer by layer; None when it can."""
    loaded = by_itself(context, name)
    facts = context.model(name)
    if context.use.kind == "model" and context.use.loader != "from_pretrained":
        return "only a model that is loaded by from_pretrained is spread over cards while loading."
    if not context.may_have(name):
        return f"there is no component {name!r}; there are {', '.join(context.components)}."
    if facts is None:
        return f"{context.class_of(name) or name} is not known to be a model that spreads itself over cards."
    if not facts.spreads:
        return f"{context.class_of(name)} does not say which of its layers must stay together, so it cannot be spread."
    if loaded is not None and loaded.loader != "from_pretrained":
        return f"{name} is loaded from a single file, which cannot be spread over cards while loading."
    if loaded is None and not isinstance(context.use.model.value, str):
        return "the model id is not known, and the model has to be loaded by itself."
    if loaded is None and (name in context.use.load_arguments or any(c.name == name for c in context.use.components)):
        return f"the script hands the pipeline a {name} of its own; spread it where it is loaded."
    return None


def write_spread(draft: Draft, application: Application, name: str) -> None:
    """The model is loaded by itself with ``device_map="auto"``; the rest of the pipeline goes to the first card."""
    context, quote = draft.context, draft.quote
    reason = f"Spreads the {name}'s layers over the cards while loading."
    draft.remove_placement("The map places the weights; moving the pipeline as a whole would gather them on one card.")
    limits = memory_limits(draft, application)
    loaded = by_itself(context, name)
    if loaded is not None:
        draft.set_load_argument("device_map", quote("auto"), reason, loaded)
        if limits:
            draft.set_load_argument("max_memory", limits, "Leaves room for activations on each card.", loaded)
    else:
        model, load = context.use.model, context.use.load_arguments
        written = quote(str(model.value)) if model.certainty == "literal" else draft.written(model)
        arguments = [written, f"device_map={quote('auto')}", *([f"max_memory={limits}"] if limits else [])]
        arguments += [f"subfolder={quote(name)}"]
        arguments += [f"{k}={draft.written(load[k])}" for k in ("dtype", "torch_dtype", *_SAME) if k in load]
        unit = draft.text.indent_unit
        rows = [f"{unit}{argument}," for argument in arguments]

        def written_out() -> str:
            function = f"{name} = {draft.name(f'diffusers.{context.class_of(name)}')}.from_pretrained("
            return "\n".join([function, *rows, ")"])

        draft.before_load_for(name, written_out, reason, f"Uses that {name}.", Phase.LOAD)
    others = [n for n in context.components if n != name]
    alone = [n for n in others if by_itself(context, n) is not None]
    if context.use.loader == "from_pretrained" and not context.older("diffusers", "0.36"):
        draft.set_load_argument("device_map", quote("cuda"), "Puts everything else on the first card.")
        others = alone
    _to_card(draft, others, 0, "Puts what is not spread on the first card.")


def write_bare(draft: Draft, application: Application) -> None:
    """A model without a pipeline spreads itself."""
    draft.remove_placement("The map places the weights; moving the model would gather them on one card.")
    draft.set_load_argument("device_map", draft.quote("auto"), "Spreads the layers over the cards while loading.")
    if limits := memory_limits(draft, application):
        draft.set_load_argument("max_memory", limits, "Leaves room for activations on each card.")


def loaded_alone(context: Context) -> list[str]:
    """Components that the script loads by itself, and will after the rewrite: not those whose own load goes with a
    technique that the strategy does without."""
    found = []
    for name in context.components:
        loaded, config = by_itself(context, name), configurations(context).get(name)
        goes = config is not None and config.kind == "gguf" and context.planned("gguf") is None
        if loaded is not None and not goes and not (spread_part(context) is loaded and only_spread(context, loaded)):
            found.append(name)
    return found


def only_spread(context: Context, loaded: Loaded) -> bool:
    """The load does nothing but spread a model that the pipeline would load just so.

    Written here the map stands before the folder; where the script had the load already it comes behind.
    """
    names = list(loaded.arguments)
    first = {"device_map", "subfolder"} <= set(names) and names.index("device_map") < names.index("subfolder")
    same = loaded.model.value == context.use.model.value and loaded.dtype.value == context.use.dtype.value
    plain = loaded.variable == loaded.name and loaded.subfolder.value == loaded.name
    return first and plain and same and set(names) <= _OURS


def memory_limits(draft: Draft, application: Application) -> str:
    """``{0: "10GiB", 1: "20GiB"}``; empty when nothing limits the cards."""
    limit = int(application.option("max_gib", 0))
    if not limit:
        return ""
    first, cards = int(application.option("first_gib", limit)), int(application.option("cards", 2))
    sizes = [first, *[limit] * (cards - 1)]
    return "{" + ", ".join(f"{i}: {draft.quote(f'{size}GiB')}" for i, size in enumerate(sizes)) + "}"


def read_limits(known: Known | None) -> dict[str, int]:
    """The same, read back as options."""
    if known is None or not isinstance(known.value, dict) or not known.value:
        return {}
    sizes = [str(v).removesuffix("GiB") for v in known.value.values()]
    options = {"cards": len(sizes)}
    if all(s.isdigit() for s in sizes):
        options["max_gib"] = int(sizes[-1])
        options |= {"first_gib": int(sizes[0])} if sizes[0] != sizes[-1] else {}
    return options


def remove_spread(draft: Draft, loaded: Loaded, reason: str) -> None:
    """A load that only spread the model goes as a whole; a load of the user's own loses its map."""
    statement = draft.tree.statement(loaded.span) if loaded.span else None
    if only_spread(draft.context, loaded) and statement is not None:
        draft.remove_statement(statement, reason)
        draft.remove_load_argument(loaded.name, reason)
        return
    for keyword in ("device_map", "max_memory"):
        draft.remove_load_argument(keyword, reason, loaded)


# ------------------------------------------------------------------------------------------------ a card for each part
def no_such_places(context: Context, cards: Mapping[str, int]) -> str | None:
    """Why the components cannot be put on those cards; None when they can."""
    known = context.components
    if context.facts is None:
        return "the class of the pipeline is not known, so it is not known which components there are to place."
    wrong = [n for n in cards if not context.may_have(n)]
    if wrong:
        return f"there is no component {', '.join(wrong)}; there are {', '.join(known)}."
    count = context.target.gpu_count if context.target is not None else None
    high = max(cards.values())
    if min(cards.values()) < 0 or (count is not None and high >= count):
        return f"cards are numbered from 0; there {'is' if count == 1 else 'are'} {count or 'no negative'}."
    if len(set(cards.values())) < 2:
        return "all components are on one card; name another card for at least one of them."
    first = context.facts.first
    if "vae" in cards and first is not None and cards.get(first, cards["vae"]) != cards["vae"]:
        return (
            f"{context.pipeline_class} works on the card of its {first}, and the vae decodes there; "
            "give both the same card."
        )
    return None


def write_places(draft: Draft, cards: Mapping[str, int]) -> None:
    """Each component goes to its card and brings its inputs there and its results back.

    All of them get a hook, as *balanced* gives them: the pipeline asks the hook of the first one where it works, and
    without one any of the cards may be the answer.
    """
    draft.remove_placement("Each component goes to a card of its own; moving the pipeline as a whole would undo that.")
    if perhaps := ", ".join(f"{draft.pipe}.{n}" for n in draft.context.perhaps):
        draft.by_hand(f"Dispatch what the checkpoint has besides to the first of the cards: {perhaps}.")
    dispatch, quote = draft.name("accelerate.dispatch_model"), draft.quote
    lines = [
        f"{dispatch}({draft.component(n)}.to({quote(f'cuda:{card}')}), {{{quote('')}: {card}}}, force_hooks=True)"
        for n, card in cards.items()
    ]
    draft.after_load(lines, Phase.OFFLOAD, "Puts each part on its card; inputs and results travel by themselves.")


def remove_places(draft: Draft, reason: str) -> None:
    """Takes out dispatching and what puts the other components on their card."""
    for use in uses_of(draft.use):
        if use.verb == "dispatch_model":
            draft.remove_optimisation(use.found, reason)
    draft.remove_placement(reason)


def _to_card(draft: Draft, names: list[str], card: int, reason: str) -> None:
    device = draft.quote(f"cuda:{card}")
    draft.after_load([f"{draft.component(n)}.to({device})" for n in names], Phase.OFFLOAD, reason)
