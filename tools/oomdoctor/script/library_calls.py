"""What well-known library functions give, as far as reading needs it. A CUDA card is assumed to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oomdoctor.script import folding, libraries, options
from oomdoctor.script.arguments import Arguments
from oomdoctor.script.domain import UNKNOWN, Abstract, Const, Made, Mapping, Named, Options, Ref, Sequence, join

if TYPE_CHECKING:
    from oomdoctor.script.interpreter import Interpreter

# The script is read for someone whose CUDA card ran out of memory.
_ASSUMED: dict[str, bool | int | str] = {
    "torch.cuda.is_available": True, "torch.cuda.is_bf16_supported": True, "torch.accelerator.is_available": True,
    "torch.backends.mps.is_available": False, "torch.backends.mps.is_built": False, "torch.mps.is_available": False,
    "torch.xpu.is_available": False, "torch.cuda.device_count": 1, "torch.cuda.current_device": 0,
    "torch.accelerator.current_accelerator": "cuda", "diffusers.utils.torch_utils.get_device": "cuda",
    "accelerate.test_utils.testing.get_backend": "cuda", "torch.distributed.is_initialized": False,
    "torch.npu.is_available": False, "torch.accelerator.device_count": 1,
}  # fmt: skip


def value(reader: Interpreter, qualified: str, given: Arguments) -> Abstract | None:
    """The value of a call of a library function; None when it is nothing special."""
    if qualified in _ASSUMED:
        return Const(_ASSUMED[qualified], literal=False)
    if options.is_parser(qualified):
        return Options()
    values = given.values()
    match qualified:
        case "torch.device":
            return _device(values, given)
        case "os.environ.get" | "os.getenv":
            fallback = given.get(1, "default")
            return folding.derived(fallback.value) if fallback else UNKNOWN
        case "os.path.join":
            return folding.join_path(values)
        case "os.path.expanduser" | "os.path.abspath" | "os.path.realpath" | "os.fspath" | "str" if values:
            return _text(values[0])
        case "os.environ.setdefault" | "os.environ.update" | "os.putenv":
            _environment(reader, qualified, given)
            return UNKNOWN
        case "huggingface_hub.hf_hub_download":
            return _hub_file(given)
        case "huggingface_hub.snapshot_download":
            repo = given.get(0, "repo_id")
            return folding.derived(repo.value) if repo else UNKNOWN
        case "getattr" if len(values) >= 2:
            return _getattr(reader, values)
        case "vars" if values:
            return options.parsed(values[0], "__dict__") if isinstance(values[0], Options) else UNKNOWN
        case "int" | "float" if values:
            return folding.convert(folding.derived(values[0]), qualified)
        case "len" if values and isinstance(values[0], Sequence) and not values[0].open:
            return Const(len(values[0].items), literal=False)
        case "dict":
            first = values[0] if values else Mapping({})
            if isinstance(first, Mapping):
                return Mapping({**first.items, **given.named()}, first.open or bool(given.unfollowed))
            return UNKNOWN
        case "range" if values and all(isinstance(v, Const) and isinstance(v.value, int) for v in values):
            return _range([v.value for v in values if isinstance(v, Const)])
        case "list" | "tuple" if values and isinstance(values[0], Sequence):
            return Sequence(list(values[0].items), values[0].open)
        case "list" if not values:
            return Sequence([])
        case "min" | "max":
            numbers = [v.value for v in values if isinstance(v, Const) and isinstance(v.value, int | float)]
            if numbers and len(numbers) == len(values) == len(given.everything()):
                return folding.constant(min(numbers) if qualified == "min" else max(numbers))
            return UNKNOWN
        case "enumerate" | "reversed" | "sorted" | "iter" if values:
            return _enumerate(qualified, values[0])
        case "zip":
            return _zip(values)
        case "copy.deepcopy" | "copy.copy" if values:
            return values[0]
        case "types.SimpleNamespace" | "argparse.Namespace" | "easydict.EasyDict":
            return Options({name: folding.derived(v) for name, v in given.named().items()})
    return None


def _device(values: list[Abstract], given: Arguments) -> Abstract:
    first = given.get(0, "device", "type")
    if first is None or not isinstance(first.value, Const):
        return join([first.value]) if first is not None else UNKNOWN
    text = first.value.value
    if isinstance(text, int) and not isinstance(text, bool):
        return Const(f"cuda:{text}", literal=False)
    if len(values) > 1:
        index = values[1].value if isinstance(values[1], Const) else None
        return Const(f"{text}:{index}", literal=False) if index is not None else UNKNOWN
    return Const(text, literal=first.value.literal)


def _text(value: Abstract) -> Abstract:
    if isinstance(value, Made) and libraries.last(value.qualified) in libraries.PATHS:
        return folding.join_path(value.positional)
    return folding.convert(folding.derived(value), "str")


def _environment(reader: Interpreter, qualified: str, given: Arguments) -> None:
    from oomdoctor.script.arguments import fact
    from oomdoctor.script.known import plain
    from oomdoctor.values import Known

    values = given.values()
    if qualified == "os.environ.update":
        for mapping in values:
            if isinstance(mapping, Mapping):
                for name, item in mapping.items.items():
                    json, certain, _ = plain(item)
                    reader.environment[name] = Known(value=json, certainty="derived" if certain else "unknown")
    elif len(values) == 2 and (text := folding.as_text(values[0])) is not None:
        reader.environment[text] = fact(reader, given.positional[1])


def _hub_file(given: Arguments) -> Abstract:
    repo, file = given.get(0, "repo_id"), given.get(1, "filename")
    repo_id = folding.as_text(repo.value) if repo else None
    filename = folding.as_text(file.value) if file else None
    if repo_id is None or filename is None:
        return UNKNOWN
    folder = folding.as_text(given.keywords["subfolder"].value) if "subfolder" in given.keywords else None
    path = f"{folder}/{filename}" if folder else filename
    return folding.constant(f"https://huggingface.co/{repo_id}/blob/main/{path}")


def _getattr(reader: Interpreter, values: list[Abstract]) -> Abstract:
    name = folding.as_text(values[1])
    if name is None:
        return UNKNOWN
    owner = values[0]
    if isinstance(owner, Named):
        return Named(f"{owner.qualified}.{name}")
    if isinstance(owner, Ref):
        return Ref(owner.record, (*owner.path, name))
    if isinstance(owner, Options):
        return options.parsed(owner, name)
    return UNKNOWN


def _range(numbers: list[int]) -> Abstract:
    """The numbers of a short range; what a long one gives is not worth a list."""
    try:
        steps = range(*numbers[:3])
    except ValueError:
        return UNKNOWN
    return Sequence([Const(i, literal=False) for i in steps]) if len(steps) <= 32 else UNKNOWN


def _enumerate(qualified: str, value: Abstract) -> Abstract:
    if not isinstance(value, Sequence):
        return UNKNOWN
    if qualified == "enumerate":
        return Sequence([Sequence([UNKNOWN, item]) for item in value.items], value.open)
    return Sequence(list(value.items), value.open)


def _zip(values: list[Abstract]) -> Abstract:
    lists = [v for v in values if isinstance(v, Sequence) and not v.open]
    if len(lists) != len(values) or not lists:
        return UNKNOWN
    return Sequence([Sequence(list(row)) for row in zip(*(v.items for v in lists), strict=False)])


def mapping_method(owner: Mapping, name: str, given: Arguments, *, uncertain: bool) -> Abstract:
    """``dict.get`` and friends."""
    values = given.values()
    key = values[0].value if values and isinstance(values[0], Const) else None
    if name in ("get", "pop", "setdefault") and values:
        if str(key) in owner.items:
            return folding.derived(owner.items[str(key)])
        if owner.open or key is None:
            return UNKNOWN if not owner.items else join([*owner.items.values()])
        return folding.derived(values[1]) if len(values) > 1 else Const(None, literal=False)
    if name == "update":
        for other in values:
            if isinstance(other, Mapping):
                owner.items.update(other.items)
                owner.open = owner.open or other.open
            else:
                owner.open = True
        owner.items.update(given.named())
        owner.open = owner.open or uncertain
        return UNKNOWN
    if name == "items" and not owner.open:
        return Sequence([Sequence([Const(k, literal=False), v]) for k, v in owner.items.items()])
    if name == "values":
        return Sequence(list(owner.items.values()), owner.open)
    if name == "keys" and not owner.open:
        return Sequence([Const(k, literal=False) for k in owner.items])
    if name == "copy":
        return Mapping(dict(owner.items), owner.open)
    return UNKNOWN


def text_method(owner: Const, name: str, values: list[Abstract]) -> Abstract:
    """String methods without side effects, on text that is known."""
    text = owner.value
    parts = [v.value for v in values if isinstance(v, Const) and isinstance(v.value, str | int | float)]
    if not isinstance(text, str) or len(parts) != len(values):
        return UNKNOWN
    simple = {"lower", "upper", "strip", "lstrip", "rstrip", "title", "replace", "removeprefix", "removesuffix",
              "startswith", "endswith", "capitalize"}  # fmt: skip
    try:
        if name in simple and len(text) <= folding.MAX_TEXT // 10:
            return folding.constant(getattr(text, name)(*parts))
        if name == "format" and "{:" not in text and "!" not in text:
            plain = all(field in ("", *map(str, range(len(parts)))) for field in _fields(text))
            return folding.constant(text.format(*parts)) if plain else UNKNOWN
        if name == "split" and len(parts) <= 1:
            separator = str(parts[0]) if parts else None
            return Sequence([folding.constant(piece) for piece in text.split(separator)][: folding.MAX_ITEMS])
    except (TypeError, ValueError, IndexError, KeyError):
        return UNKNOWN
    return UNKNOWN


def _fields(template: str) -> list[str]:
    """Names of the replacement fields of a format string."""
    return [piece.split("}", 1)[0] for piece in template.replace("{{", "").replace("}}", "").split("{")[1:]]


def path_method(owner: Made, name: str, values: list[Abstract]) -> Abstract:
    """Methods of ``pathlib`` paths that stay on the same path or join to it."""
    if name in ("expanduser", "resolve", "absolute"):
        return owner
    if name in ("joinpath", "__truediv__"):
        return Made(owner.qualified, (*owner.positional, *values), {})
    if name in ("as_posix", "__str__"):
        return folding.join_path(owner.positional)
    return UNKNOWN
