"""What a script does with its pipelines, seen from below its text: who is called, how, on what, and what comes out.

Runs inside the fork; imports no pydantic. What it records can be compared between the person's script and an answer:
pipelines, components and their origin, arguments of calls bound to the installed signatures, steps really taken,
pictures and frames that came out and were saved, adapters, storage of the weights, devices, new warnings.
It also makes every call twice when asked, the second time with other words and another seed.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import warnings
from typing import Any

NUMBERS = ("height", "width", "num_frames", "num_images_per_prompt", "num_videos_per_prompt", "num_inference_steps",
           "guidance_scale", "true_cfg_scale", "strength", "controlnet_conditioning_scale", "control_guidance_end",
           "control_guidance_start", "denoising_end", "denoising_start", "guidance_scale_2", "frame_rate",
           "max_sequence_length", "eta", "clip_skip", "guidance_rescale")  # fmt: skip
MORE_WORDS = ", seen from far away at dawn, with fog over the hills and a small boat on the lake"
OTHER_SEED = 90210
_DENOISERS = ("transformer", "transformer_2", "unet", "prior")


class Observer:
    """The record of one run."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.twice = bool(options.get("twice"))
        self.extra_seconds = 0.0
        self.calls: list[dict[str, Any]] = []
        self.adapters: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.encoded: list[dict[str, Any]] = []
        self._depth = 0
        self._wrapped: set[type] = set()

    # ------------------------------------------------------------------ putting it in
    def install(self) -> None:
        """Watch pipelines that are made from now on, what is saved, and what the libraries warn of."""
        from diffusers import DiffusionPipeline

        register = DiffusionPipeline.register_modules

        @functools.wraps(register)
        def register_modules(pipe: Any, **components: Any) -> Any:
            self._watch_class(type(pipe))
            return register(pipe, **components)

        DiffusionPipeline.register_modules = register_modules
        self._watch_warnings()

    def _watch_class(self, cls: type) -> None:
        if cls in self._wrapped:
            return
        self._wrapped.add(cls)
        call = cls.__dict__.get("__call__")
        if call is not None:
            setattr(cls, "__call__", self._calling(call))  # noqa: B010
        for name in ("load_lora_weights", "load_ip_adapter", "set_adapters", "fuse_lora", "set_ip_adapter_scale",
                     "load_textual_inversion", "unload_lora_weights"):  # fmt: skip
            method = getattr(cls, name, None)
            if method is not None and not getattr(method, "__grader__", False):
                setattr(cls, name, self._adapting(name, method))
        encode = getattr(cls, "encode_prompt", None)
        if encode is not None and not getattr(encode, "__grader__", False):
            cls.encode_prompt = self._encoding(encode)  # type: ignore[attr-defined]

    def _encoding(self, encode: Any) -> Any:
        """``encode_prompt`` as the script calls it itself, before it calls the pipeline with embeddings."""
        signature = inspect.signature(encode)

        @functools.wraps(encode)
        def wrapped(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._depth:
                given = signature.bind_partial(pipe, *args, **kwargs).arguments
                said = {"prompt": _words(given.get("prompt")), "negative": _words(given.get("negative_prompt"))}
                self.encoded.append(said)
            return encode(pipe, *args, **kwargs)

        wrapped.__grader__ = True  # type: ignore[attr-defined]
        return wrapped

    def _adapting(self, name: str, method: Any) -> Any:
        @functools.wraps(method)
        def wrapped(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            self.adapters.append({"method": name, "arguments": [_plain(a) for a in args],
                                  "options": {k: _plain(v) for k, v in sorted(kwargs.items())}})  # fmt: skip
            return method(pipe, *args, **kwargs)

        wrapped.__grader__ = True  # type: ignore[attr-defined]
        return wrapped

    def _watch_warnings(self) -> None:
        handler = _Listener(self.warnings)
        for library in ("diffusers", "transformers", "accelerate"):
            logging.getLogger(library).addHandler(handler)
        shown = warnings.showwarning

        def show(message: Any, category: Any, *args: Any, **kwargs: Any) -> None:
            if issubclass(category, (FutureWarning, DeprecationWarning)):
                self.warnings.append(f"{category.__name__}: {str(message)[:300]}")
            shown(message, category, *args, **kwargs)

        warnings.showwarning = show

    # ------------------------------------------------------------------ calls
    def _calling(self, call: Any) -> Any:
        signature = inspect.signature(call)

        @functools.wraps(call)
        def wrapped(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return call(pipe, *args, **kwargs)
            self._depth += 1
            try:
                return self._observe(call, signature, pipe, args, kwargs)
            finally:
                self._depth -= 1

        return wrapped

    def _observe(self, call: Any, signature: inspect.Signature, pipe: Any, args: Any, kwargs: Any) -> Any:
        bound = signature.bind(pipe, *args, **kwargs)  # raises what a wrong keyword raises on a real card
        given = set(bound.arguments)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        entry = _entry(pipe, arguments, given)
        self.calls.append(entry)
        steps = _count_steps(pipe)
        devices = _Devices(pipe)
        try:
            result = call(pipe, *args, **kwargs)
        finally:
            devices.remove()
            entry["steps"] = steps()
            entry["devices"] = devices.seen
        entry["cfg"] = bool(getattr(pipe, "do_classifier_free_guidance", False))
        entry["components"] = _components(pipe)
        entry["out"] = _outputs(result)
        entry["completed"] = True
        if self.twice:
            self._again(call, pipe, args, kwargs)
            entry["again"] = True
        return result

    def _again(self, call: Any, pipe: Any, args: Any, kwargs: Any) -> None:
        from oomdoctor.vgpu import current

        clock = current().gpu.clock
        clock.synchronize()
        start = clock.now
        other = {k: _other(k, v) for k, v in kwargs.items()}
        others = [_other("prompt" if i == 0 else "", a) for i, a in enumerate(args)]
        call(pipe, *others, **other)
        clock.synchronize()
        self.extra_seconds += clock.now - start

    # ------------------------------------------------------------------ the record
    def report(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "calls": self.calls,
            "adapters": self.adapters,
            "encoded": self.encoded,
            "warnings": sorted(set(self.warnings))[:40],
        }


class _Listener(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if any(word in text for word in ("deprecat", "will be ignored", "not expected by", "has no effect")):
            self.heard.append(text[:300])


class _Devices:
    """Where the denoisers, text encoders and VAEs find their inputs."""

    def __init__(self, pipe: Any) -> None:
        self.seen: dict[str, str] = {}
        self._hooks = []
        for name, component in pipe.components.items():
            watched: Any = getattr(component, "decoder", None) if name.startswith("vae") else component
            if hasattr(watched, "register_forward_pre_hook") and hasattr(watched, "parameters"):
                self._hooks.append(watched.register_forward_pre_hook(self._seeing(name), with_kwargs=True))

    def _seeing(self, name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            if name not in self.seen:
                for value in (*args, *kwargs.values()):
                    if hasattr(value, "device") and getattr(value, "is_floating_point", lambda: False)():
                        self.seen[name] = value.device.type
                        return

        return hook

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _count_steps(pipe: Any) -> Any:
    """Counts ``scheduler.step`` for one call: what is really denoised, whatever was asked for."""
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is None or not hasattr(scheduler, "step"):
        return lambda: None
    step = scheduler.step
    counted = {"n": 0}

    @functools.wraps(step)
    def counting(*args: Any, **kwargs: Any) -> Any:
        counted["n"] += 1
        return step(*args, **kwargs)

    scheduler.step = counting

    def done() -> int:
        scheduler.__dict__.pop("step", None)
        return counted["n"]

    return done


def _entry(pipe: Any, arguments: dict[str, Any], given: set[str]) -> dict[str, Any]:
    prompt = arguments.get("prompt")
    embeds = arguments.get("prompt_embeds")
    count = len(prompt) if isinstance(prompt, (list, tuple)) else 1
    if prompt is None and embeds is not None and hasattr(embeds, "shape"):
        count = int(embeds.shape[0])
    negative = arguments.get("negative_prompt") is not None or arguments.get("negative_prompt_embeds") is not None
    scheduler = getattr(pipe, "scheduler", None)
    return {
        "class": type(pipe).__name__,
        "numbers": {k: _plain(arguments[k]) for k in NUMBERS if k in arguments},
        "given": sorted(given - {"self"}),
        "prompts": count,
        "words": _words(prompt),
        "negative": negative,
        "negative_words": _words(arguments.get("negative_prompt")),
        "images": sorted(k for k, v in arguments.items() if "image" in k and "images" not in k and v is not None),
        "output_type": _plain(arguments.get("output_type")),
        "scheduler": {"class": type(scheduler).__name__, "config": _digest(getattr(scheduler, "config", None))},
        "completed": False,
    }  # fmt: skip


def _words(prompt: Any) -> list[str] | None:
    if prompt is None:
        return None
    return [str(p) for p in prompt] if isinstance(prompt, (list, tuple)) else [str(prompt)]


def _components(pipe: Any) -> dict[str, Any]:
    found = {}
    for name, component in pipe.components.items():
        if not hasattr(component, "parameters"):
            continue
        dtypes: dict[str, int] = {}
        kinds = set()
        for parameter in component.parameters():
            key = str(parameter.dtype).removeprefix("torch.")
            dtypes[key] = dtypes.get(key, 0) + int(parameter.numel())
            kinds.add(type(parameter).__name__)
            inner = getattr(parameter, "data", None)
            kinds.add(type(inner).__name__)
        config = getattr(component, "config", None)
        quantised = getattr(config, "quantization_config", None)
        found[name] = {
            "class": type(component).__name__,
            "source": _origin(getattr(component, "name_or_path", None) or getattr(config, "_name_or_path", None)),
            "config": _digest(config),
            "dtypes": dtypes,
            "kinds": sorted(kinds - {"Parameter", "Tensor", "VirtualTensor"}),
            "quantised": _method(quantised) or ("yes" if getattr(component, "is_quantized", False) else None),
            "backend": _backend(component),
            "compiled": getattr(component, "_compiled_call_impl", None) is not None
            or type(component).__name__ == "OptimizedModule",
        }
    return found


def _origin(path: Any) -> str:
    """``owner/name`` of what was loaded, also out of the path of a cached snapshot, which differs from run to run."""
    text = str(path or "")
    if "models--" in text:
        return text.split("models--", 1)[1].split("/", 1)[0].replace("--", "/")
    return text


def _method(quantised: Any) -> str | None:
    if quantised is None:
        return None
    method = quantised.get("quant_method") if isinstance(quantised, dict) else getattr(quantised, "quant_method", None)
    kind = quantised if isinstance(quantised, dict) else vars(quantised)
    four = kind.get("load_in_4bit") or kind.get("_load_in_4bit")
    eight = kind.get("load_in_8bit") or kind.get("_load_in_8bit")
    bits = "4bit" if four else "8bit" if eight else str(kind.get("quant_type") or "")
    return f"{getattr(method, 'value', method)}:{bits}"


def _backend(component: Any) -> str | None:
    for processor in list(getattr(component, "attn_processors", {}).values())[:1]:
        backend = getattr(processor, "_attention_backend", None)
        return str(getattr(backend, "value", backend)) if backend else None
    return None


_IGNORED = ("_name_or_path", "_use_default_values", "_class_name", "_diffusers_version", "quantization_config",
            "torch_dtype", "dtype", "transformers_version", "_commit_hash", "_attn_implementation_autoset")  # fmt: skip


def _digest(config: Any) -> str:
    if config is None:
        return ""
    items = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    text = json.dumps(_without(items), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without(value: Any) -> Any:
    """A configuration without what loading writes into it, at every depth."""
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if k not in _IGNORED}
    return value


def _outputs(result: Any) -> dict[str, Any]:
    pictures = getattr(result, "images", None)
    if pictures is None:
        pictures = getattr(result, "frames", None)
    if pictures is None and isinstance(result, tuple) and result:
        pictures = result[0]
    if pictures is None:
        return {"count": 0, "size": None}
    if hasattr(pictures, "shape"):
        return {"count": int(pictures.shape[0]), "size": [int(n) for n in pictures.shape[1:]]}
    first = pictures[0] if len(pictures) else None
    return {"count": len(pictures), "size": _frames(first) if first is not None else None}


def _frames(what: Any) -> list[int] | None:
    """Size of a picture (width, height) or of a video (frames, width, height)."""
    if hasattr(what, "size") and isinstance(what.size, tuple):
        return list(what.size)
    if hasattr(what, "shape"):
        shape = [int(n) for n in what.shape]
        return [shape[0], shape[2], shape[1]] if len(shape) == 4 else shape
    if isinstance(what, (list, tuple)) and what:
        return [len(what), *(_frames(what[0]) or [])]
    return None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return type(value).__name__


def _other(name: str, value: Any) -> Any:
    """The argument for the second call: more words, another seed, the rest as it is."""
    if name.startswith("prompt") and isinstance(value, str):
        return value + MORE_WORDS
    if name.startswith("prompt") and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return [v + MORE_WORDS for v in value]
    if name == "generator" and hasattr(value, "manual_seed"):
        return value.manual_seed(OTHER_SEED)
    return value
