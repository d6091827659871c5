"""Tiny models of every class in the catalogue: the same config, every count and width made as small as the class allows.

Nothing is written by hand: a config's integers are lowered, one value at a time and wherever it occurs, as long as the
class can still be built from it. What is not a size (kinds of blocks, norms, flags) stays as published, so a tiny model
has the modules, the skip lists and the tied weights of the large one.
"""

from __future__ import annotations

import copy
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from oomdoctor.loading import tables
from oomdoctor.models import catalogue

SMALL_ENOUGH, TOO_SMALL = 60_000, 12_000
"""Elements under which a model is not made smaller, and that it must keep: its layers are to have rows and groups."""
STUCK = 6_000_000
"""Elements above which values are also lowered in pairs, which takes many tries."""
CANDIDATES = (2, 4, 6, 8, 12, 20, 24, 36, 40, 48, 64, 96)
"""Sizes to try, smallest first; most are no powers of two, so that rows and groups do not come out even."""
WIDTH, NARROW = 64, 20
"""A number above the first is taken for a width, and a width is not made smaller than the second."""
LEFT_ALONE = ("token_id", "version", "index", "max_position", "bos", "eos", "pad")
"""Words in the names of integers that are no sizes."""
Path_ = tuple[Any, ...]


def whole_config(library: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with the class's own defaults for what it leaves out."""
    cls = tables.find_class(library, name)
    if hasattr(cls, "config_class") and cls.config_class is not None:
        found: dict[str, Any] = json.loads(cls.config_class.from_dict(copy.deepcopy(config)).to_json_string(False))
        return found
    parameters = inspect.signature(cls.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in ("self", "kwargs")}
    whole: dict[str, Any] = json.loads(json.dumps({**defaults, **config}))
    return whole


def compact(library: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """``config`` without what the class assumes by itself."""
    cls = tables.find_class(library, name)
    if hasattr(cls, "config_class") and cls.config_class is not None:
        found = json.loads(cls.config_class.from_dict(copy.deepcopy(config)).to_json_string(True))
        for word in ("transformers_version", "architectures", "dtype", "torch_dtype"):
            found.pop(word, None)
        return found if elements(library, name, found) == elements(library, name, config) else config
    parameters = inspect.signature(cls.__init__).parameters.values()
    defaults = {p.name: json.loads(json.dumps(p.default)) for p in parameters if p.default is not p.empty}
    return {k: v for k, v in config.items() if k not in defaults or v != defaults[k]}


def integers(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, int]]:
    """Every integer in a config that may be a size, by its path."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        if value > 2 and not any(isinstance(p, str) and any(w in p for w in LEFT_ALONE) for p in path):
            yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from integers(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from integers(inner, (*path, number))


def put(config: dict[str, Any], paths: list[Path_], value: int) -> dict[str, Any]:
    """A copy of ``config`` with ``value`` at every one of ``paths``."""
    changed = copy.deepcopy(config)
    for path in paths:
        place: Any = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return changed


def elements(library: str, name: str, config: dict[str, Any]) -> int | None:
    """Elements of the model that the class builds from ``config``, None when it refuses."""
    try:
        module = tables.build(library, name, copy.deepcopy(config))
    except Exception:
        return None
    tensors = [*module.parameters(), *module.buffers()]
    if any(0 in t.shape for t in tensors) or not tensors:
        return None
    return sum(t.numel() for t in tensors)


def moves(config: dict[str, Any]) -> Iterator[tuple[list[Path_], int, int]]:
    """(paths, value now, value to try), the largest values first: everywhere it occurs, in one list, in one place."""
    found: dict[int, list[Path_]] = {}
    for path, value in integers(config):
        found.setdefault(value, []).append(path)
    for value in sorted(found, reverse=True):
        paths = found[value]
        groups = [paths, *([[p] for p in paths] if len(paths) > 1 else [])]
        for group in groups:
            for smaller in CANDIDATES:
                if smaller < value and not (value > WIDTH and smaller < NARROW):
                    yield group, value, smaller


def together(config: dict[str, Any]) -> Iterator[tuple[tuple[list[Path_], int], tuple[list[Path_], int]]]:
    """Two values at once, divided by the same number: a width that must stay a multiple of a count."""
    found: dict[int, list[Path_]] = {}
    for path, value in integers(config):
        found.setdefault(value, []).append(path)
    for by in (16, 15, 14, 10, 8, 7, 6, 5, 4, 3, 2):
        fitting = [value for value in sorted(found, reverse=True) if value % by == 0 and value > by]
        for i, first in enumerate(fitting):
            for second in fitting[i + 1 :]:
                yield (found[first], first // by), (found[second], second // by)


def shrink(library: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The smallest config that :func:`moves` lead to. Raises ValueError when the class cannot be built at all."""
    config = whole_config(library, name, config)
    size = elements(library, name, config)
    if size is None:
        raise ValueError(f"{library}.{name} cannot be built from its config")
    better = True
    while better and size > SMALL_ENOUGH:
        better = False
        done: set[tuple[Path_, ...]] = set()
        for paths, now, smaller in list(moves(config)):
            key = tuple(paths)
            if key in done or size <= SMALL_ENOUGH or any(_at(config, p) != now for p in paths):
                continue
            trial = put(config, paths, smaller)
            found = elements(library, name, trial)
            if found is not None and TOO_SMALL <= found < size:
                config, size, better = trial, found, True
                done.add(key)
        if not better and size > STUCK:
            for first, second in together(config):
                trial = put(put(config, *first), *second)
                found = elements(library, name, trial)
                if found is not None and TOO_SMALL <= found < size:
                    config, size, better = trial, found, True
                    break
    return config


def _at(config: Any, path: Path_) -> Any:
    for key in path:
        config = config[key]
    return config


def families() -> dict[str, dict[str, Any]]:
    """The first entry of the catalogue of every set of component classes, by its id."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry in catalogue().values():
        parts = [p for p in entry["components"].values() if p and "params" in p]
        found.setdefault(tuple(sorted(p["class"] for p in parts)), entry)
    return {entry["id"]: entry for entry in found.values()}


def main(out: str, *wanted: str) -> None:
    """Write ``{family: {component: [library, class, tiny config]}}``, each class and config shrunk once.

    ``wanted``: only these families; what ``out`` holds of the others stays.
    """
    known: dict[str, dict[str, Any]] = {}
    result: dict[str, dict[str, Any]] = json.loads(Path(out).read_text()) if wanted and Path(out).is_file() else {}
    for model, entry in families().items():
        if wanted and model not in wanted:
            continue
        parts = {name: part for name, part in entry["components"].items() if part and "params" in part}
        for name, part in parts.items():
            library, _, cls = part["class"].rpartition(".")
            key = part["class"] + json.dumps(part["config"], sort_keys=True)
            if key not in known:
                known[key] = compact(library, cls, shrink(library, cls, part["config"]))
                print(model, name, cls, elements(library, cls, known[key]), file=sys.stderr, flush=True)
            result.setdefault(model, {})[name] = [library, cls, known[key]]
        Path(out).write_text("{\n" + ",\n".join(_family(*item) for item in sorted(result.items())) + "\n}\n")


def _family(model: str, parts: dict[str, Any]) -> str:
    """One component on a line."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(part)}" for name, part in sorted(parts.items()))
    return f" {json.dumps(model)}: {{\n{lines}\n }}"


if __name__ == "__main__":
    main(*sys.argv[1:])
