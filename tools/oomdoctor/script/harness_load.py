"""The part of the call run that loads: pipelines, components and their arguments, from what the Script tells."""

from __future__ import annotations

from collections.abc import Callable

from oomdoctor.errors import UnknownModel
from oomdoctor.script import libraries
from oomdoctor.script.writing import Writer, comment, is_name
from oomdoctor.values import Known, Loaded, PipelineUse

_NEVER = frozenset({"trust_remote_code", "custom_pipeline", "custom_revision", "token", "use_auth_token", "cache_dir",
                    "proxies", "force_download", "local_files_only", "local_dir", "mirror", "resume_download",
                    "dtype", "torch_dtype", "callback", "callback_on_step_end", "callback_steps",
                    "callback_on_step_end_tensor_inputs"})  # fmt: skip


def _model(known: Known, what: str) -> str:
    if not isinstance(known.value, str):
        raise UnknownModel(
            f"line {known.line or '?'}: which model {what} loads is not told by the text (`{known.text or 'nothing'}`). "
            "Write the id into the script, or give the option a default."
        )
    return repr(known.value)


def load_lines(writer: Writer, use: PipelineUse, pipe: str, canonical: Callable[[str | None], str | None]) -> list[str]:
    """The lines that load; ``canonical`` gives the generated name of an earlier pipeline of the script."""
    out: list[str] = []
    after: list[str] = []
    groups: dict[str, list[str]] = {}
    for i, part in enumerate(use.components):
        if not is_name(part.name) or "." in part.name:
            continue
        owner = canonical(owner_name(part))
        if owner is not None and part.variable is not None and is_name(part.variable.rpartition(".")[2]):
            groups.setdefault(part.name, []).append(f"{owner}.{part.variable.rpartition('.')[2]}")
            continue
        if part.loader == "from_config" and part.class_name and part.name.endswith("scheduler"):
            options = keywords(writer, part.arguments, [], skip=set())
            made = f"{writer.use('diffusers', part.class_name)}.from_config"
            after.append(f"{pipe}.{part.name} = {made}({', '.join([f'{pipe}.{part.name}.config', *options])})")
            continue
        written = _part(writer, part)
        if written is None:
            out.append(
                comment(f"left out: {part.name} ({part.variable or part.class_name}), which the text does not tell")
            )
            continue
        out.append(f"{pipe}_{part.name}_{i} = {written}")
        groups.setdefault(part.name, []).append(f"{pipe}_{part.name}_{i}")
    parts = [f"{n}={v[0] if len(v) == 1 else '[' + ', '.join(v) + ']'}" for n, v in groups.items()]
    source = canonical(use.from_variable)
    call = writer.use("diffusers", use.class_name or "")
    given: list[str] = []
    if source is not None and use.loader == "from_pipe":
        call, given = f"{call}.from_pipe", [source]
    elif use.loader == "constructor":
        taken = any(owner_name(part) == use.from_variable for part in use.components)
        given = [f"**{source}.components"] if source is not None and not taken else []
    else:
        single = use.loader == "from_single_file"
        call = f"{call}.{'from_single_file' if single else 'from_pretrained'}"
        given = [_model(use.model, use.class_name or "the pipeline")]
    modular = "Modular" in (use.class_name or "")  # its dtype is an argument of load_components
    given += [
        *parts,
        *([] if modular else dtype_argument(writer, use.dtype)),
        *keywords(writer, use.load_arguments, out, skip=set(groups)),
    ]
    return [*out, f"{pipe} = {call}({', '.join(given)})", *after]


def _part(writer: Writer, part: Loaded) -> str | None:
    """How a component is loaded; None when the text does not tell."""
    if part.class_name is None or part.loader not in ("from_pretrained", "from_single_file", "constructor"):
        return None
    if part.loader != "constructor" and not isinstance(part.model.value, str):
        return None
    root = part.library if part.library not in (None, libraries.UNRESOLVED) else "diffusers"
    if root not in ("diffusers", "transformers"):
        return None
    given = [repr(part.model.value)] if part.loader != "constructor" else []
    given += dtype_argument(writer, part.dtype)
    given += keywords(writer, part.arguments, [], skip=set())
    name = writer.use(root, part.class_name)
    return (
        f"{name}({', '.join(given)})" if part.loader == "constructor" else f"{name}.{part.loader}({', '.join(given)})"
    )


def dtype_argument(writer: Writer, dtype: Known) -> list[str]:
    if dtype.certainty == "default" or dtype.value is None or dtype.line is None:  # nothing is written
        return []
    written = writer.expression(dtype.value, "torch_dtype")
    return [f"torch_dtype={written}"] if written else []


def keywords(writer: Writer, arguments: dict[str, Known], notes: list[str], *, skip: set[str]) -> list[str]:
    out = []
    for name, known in arguments.items():
        if name in _NEVER or name in skip or not is_name(name):
            continue
        value = max(known.alternatives, key=size) if known.alternatives else known.value
        told = known.certainty != "unknown" or bool(known.alternatives)
        written = writer.expression(value, name) if told else None
        if written is None:
            written = writer.stand_in(name)
        if written is None:
            notes.append(comment(f"left out: {name}, line {known.line}, is not told by the text or not a plain value"))
        else:
            out.append(f"{name}={written}")
    return out


def size(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def owner_name(part: Loaded) -> str | None:
    """``pipe`` for a component that is written as ``pipe.vae``."""
    return part.variable.rpartition(".")[0] if part.loader is None and part.variable and "." in part.variable else None
