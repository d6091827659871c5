"""A patch changes how the work is done, never the work: the check of that promise, on the values that were read."""

from __future__ import annotations

from oomdoctor.values import Call, Known, PipelineUse, Script

SIZES = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale", "true_cfg_scale", "strength",
         "max_sequence_length", "output_type", "num_videos_per_prompt")  # fmt: skip
"""What has to stay, wherever both scripts say it."""
_COUNT = "num_images_per_prompt"


def broken(before: Script, after: Script) -> list[str]:
    """What the second script would do otherwise than the first, in words; empty when the work is the same.

    Only what both scripts tell is compared: a value that is decided at run time proves nothing either way.
    """
    old, new = before.main, after.main
    if old is None or new is None:
        return [] if new is old else ["the pipeline is no longer found in the patched script"]
    found = []
    if (_known(old.model), _known(new.model)) != (None, None) and _known(old.model) != _known(new.model):
        found.append(f"another model: {new.model.text} instead of {old.model.text}")
    if len(new.calls) != len(old.calls):
        return [*found, f"{len(new.calls)} calls instead of {len(old.calls)}"]
    for a, b in zip(old.calls, new.calls, strict=True):
        found += [
            f"{name}={b.arguments[name].value} instead of {a.arguments[name].value}"
            for name in SIZES
            if name in a.arguments and name in b.arguments and _differ(a.arguments[name], b.arguments[name])
        ]
        found += [
            f"{name} is {'no longer given' if name in a.arguments else 'given now'}"
            for name in SIZES
            if (name in a.arguments) != (name in b.arguments)
        ]
        found += _pictures(old, a, b)
    return found


def _pictures(use: PipelineUse, before: Call, after: Call) -> list[str]:
    a, b = _count(before), _count(after)
    if a is None or b is None or a == b or (after.in_loop and not before.in_loop):
        return []
    return [f"{b} pictures per call instead of {a}"]


def _count(call: Call) -> int | None:
    if _COUNT not in call.arguments:
        return 1
    value = call.arguments[_COUNT].value
    return value if isinstance(value, int) else None


def _known(fact: Known) -> object:
    return fact.value


def _differ(a: Known, b: Known) -> bool:
    return a.value is not None and b.value is not None and a.value != b.value
