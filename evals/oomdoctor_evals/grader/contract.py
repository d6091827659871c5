"""The work that was asked for is still done: the trace of the answer against that of the person's own script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from oomdoctor_evals.values import Observed

_FREE = {"num_images_per_prompt", "num_videos_per_prompt", "num_inference_steps", "max_sequence_length", "height",
         "width", "num_frames"}  # fmt: skip
"""Compared as what came out, not as what was asked for."""


def broken(reference: Observed, answer: Observed) -> Iterator[str]:
    """What the answer does not do, or does differently. Empty: the contract is kept."""
    before, after = _calls(reference), _calls(answer)
    if not after:
        yield "no pipeline was called to its end"
        return
    yield from _outputs(before, after)
    yield from _pipelines(before, after)
    yield from _numbers(before, after)
    yield from _encoded(before, answer)
    yield from _devices(after)
    yield from _saved(reference, answer)
    yield from _adapters(reference, answer)
    if any(not call.get("again") for call in after):
        yield "a call was not repeatable with another prompt and seed"


def _calls(run: Observed) -> list[dict[str, Any]]:
    return [c for c in run.workload.get("calls", []) if c.get("completed")]


def _outputs(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """Pictures per pipeline, size and number of steps. A batch may be split into several calls."""
    wanted, made = _pictures(before), _pictures(after)
    for key, count in wanted.items():
        if made.get(key, 0) < count:
            cls, size, steps = key
            others = {k: n for k, n in made.items() if k[0] == cls}
            yield f"{count} x {list(size)} in {steps} steps from {cls} were asked for, the answer made {_say(others)}"


def _say(made: dict[tuple[str, tuple[int, ...], int | None], int]) -> str:
    return "; ".join(f"{n} x {list(size)} in {steps} steps" for (_, size, steps), n in made.items()) or "none"


def _pictures(calls: list[dict[str, Any]]) -> Counter[tuple[str, tuple[int, ...], int | None]]:
    made: Counter[tuple[str, tuple[int, ...], int | None]] = Counter()
    for call in calls:
        out = call["out"]
        made[(call["class"], tuple(out["size"] or ()), call.get("steps"))] += out["count"]
    return made


def _pipelines(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """The same components from the same origin; storage is the preference's matter."""
    known = {(c["class"], name): part for c in before for name, part in c["components"].items()}
    seen = {(c["class"], name): part for c in after for name, part in c["components"].items()}
    for key, part in known.items():
        other = seen.get(key)
        if other is None:
            if not _may_be_gone(key[1]):
                yield f"{key[0]} has no {key[1]} any more"
            continue
        quantised = other["quantised"] or part["quantised"]  # a quantiser writes into the configuration
        if _class(other) != _class(part):
            yield f"{key[1]} is a {other['class']} now, not a {part['class']}"
        elif other["config"] != part["config"] and not quantised:
            yield f"{key[1]} has another configuration: it is another model"
        if _repo(other) and _repo(part) and _repo(other) != _repo(part) and not quantised:
            yield f"{key[1]} comes from {_repo(other)}, not from {_repo(part)}"
    schedulers = {(c["class"], c["scheduler"]["class"], c["scheduler"]["config"]) for c in before}
    for call in after:
        mine = (call["class"], call["scheduler"]["class"], call["scheduler"]["config"])
        if any(s[0] == call["class"] for s in schedulers) and mine not in schedulers:
            yield f"{call['class']} uses another scheduler ({mine[1]})"


def _may_be_gone(name: str) -> bool:
    """Text encoders may be freed once the prompt is encoded."""
    return name.startswith("text_encoder")


def _class(part: dict[str, Any]) -> str:
    return str(part["class"]).removesuffix("Model") if part.get("compiled") else str(part["class"])


def _repo(part: dict[str, Any]) -> str | None:
    """``owner/name`` of what was loaded; None when it does not say."""
    return str(part["source"]) or None


def _numbers(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """Guidance, strength, scales, negative prompt and the prompt itself."""
    for call in after:
        twins = [c for c in before if c["class"] == call["class"]]
        if not twins:
            continue
        if not any(_same_numbers(c, call) for c in twins):
            changed = {
                k for k in call["numbers"] if k not in _FREE and call["numbers"][k] != twins[0]["numbers"].get(k)
            }
            changed |= {k for k in ("negative", "cfg", "images") if call.get(k) != twins[0].get(k)}
            yield f"{call['class']} is called with other {', '.join(sorted(changed)) or 'arguments'}"
        words = {w for c in twins for w in c["words"] or ()}
        if call["words"] is not None and words and not set(call["words"]) <= words:
            yield f"{call['class']} is called with another prompt"


def _encoded(before: list[dict[str, Any]], answer: Observed) -> Iterator[str]:
    """Prompts that the script encodes itself must be the person's, the negative ones too."""
    wanted = {w for call in before for w in call["words"] or ()}
    negative = {w for call in before for w in call.get("negative_words") or ()} | {""}
    for said in answer.workload.get("encoded", []):
        if wanted and not set(said["prompt"] or ()) <= wanted:
            yield "another prompt is encoded"
        if wanted and not set(said["negative"] or ()) <= negative:
            yield "another negative prompt is encoded"


def _same_numbers(a: dict[str, Any], b: dict[str, Any]) -> bool:
    numbers = all(a["numbers"].get(k) == v for k, v in b["numbers"].items() if k not in _FREE)
    return (
        numbers
        and a["cfg"] == b["cfg"]
        and a["images"] == b["images"]
        and (b["words"] is None or a["negative"] == b["negative"])
    )


def _devices(after: list[dict[str, Any]]) -> Iterator[str]:
    for call in after:
        for name, device in (call.get("devices") or {}).items():
            if device != "cuda":
                yield f"{name} runs on {device}"


def _saved(reference: Observed, answer: Observed) -> Iterator[str]:
    wanted, made = _files(reference), _files(answer)
    for key, count in (wanted - made).items():
        yield f"{count} x {key[0]} ({key[1]}) is not saved any more"


def _files(run: Observed) -> Counter[tuple[str, str]]:
    return Counter((str(f.get("path")), str(f.get("what"))) for f in run.workload.get("saved", []))


def _adapters(reference: Observed, answer: Observed) -> Iterator[str]:
    loads = ("load_lora_weights", "load_ip_adapter", "load_textual_inversion")
    wanted, made = _adapter_set(reference, loads), _adapter_set(answer, loads)
    for lost in wanted - made:
        yield f"the adapter {lost} is not loaded any more"
    for scale in _adapter_set(reference, ("set_adapters", "set_ip_adapter_scale", "fuse_lora")) - _adapter_set(
        answer, ("set_adapters", "set_ip_adapter_scale", "fuse_lora")
    ):
        yield f"the adapters' scale changed: {scale} is gone"


def _adapter_set(run: Observed, methods: tuple[str, ...]) -> set[str]:
    entries = [a for a in run.workload.get("adapters", []) if a["method"] in methods]
    return {f"{a['method']}{a['arguments'][:2]}{sorted(a['options'].items())}" for a in entries}
