"""Processors (tokenizer and image processor in one) and image processors whose files are absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from oomdoctor.loading import hooks, session, text

_IMAGE_PROCESSORS = {"PixtralProcessor": "PixtralImageProcessor", "Gemma3Processor": "Gemma3ImageProcessor"}
_TOKENIZERS = {"Pixtral": "PreTrainedTokenizerFast", "Qwen": "Qwen2TokenizerFast", "Gemma": "GemmaTokenizerFast"}


def patch(module: ModuleType) -> None:
    """After ``import transformers.processing_utils``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
            folder = text.folder_of(pretrained_model_name_or_path, options)
            if text.has_vocabulary(folder):
                return original(cls, pretrained_model_name_or_path, *args, **options)
            return stand_in(cls, folder)

        return from_pretrained

    hooks.wrap_method(module.ProcessorMixin, "from_pretrained", make)


def stand_in(cls: Any, folder: Path) -> Any:
    """A processor of class ``cls``: the real class around a tokenizer without vocabulary, its other parts by default."""
    import transformers

    name = next((t for prefix, t in _TOKENIZERS.items() if cls.__name__.startswith(prefix)), "PreTrainedTokenizerFast")
    tokenizer = text.stand_in(getattr(transformers, name), folder, text.stated_length(folder))
    made: Any = type(cls.__name__, (_Chats, cls), {"__module__": cls.__module__})
    parts: dict[str, Any] = {"tokenizer": tokenizer}
    for attribute in ("image_processor", "video_processor", "feature_extractor"):
        part = _default_part(cls, attribute)
        if part is not None:
            parts[attribute] = part
    try:
        return made(**parts)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        # Processors take their parts in ways that differ by version; text alone needs the tokenizer only.
        session.current().note(f"{cls.__name__} could not be built without its files ({error}); it takes text only.")
        return tokenizer


class _Chats:
    """Gives a processor without a chat template that of the stand-in tokenizer."""

    def apply_chat_template(self: Any, conversation: Any, tokenize: bool = False, **options: Any) -> Any:
        add = bool(options.pop("add_generation_prompt", False))
        single = not conversation or isinstance(conversation[0], dict)
        chats = [conversation] if single else conversation
        texts = [text.chat_text(chat, add) for chat in chats]
        if not tokenize:
            return texts[0] if single else texts
        images = [p.get("image") for c in chats for m in c if isinstance(m["content"], list) for p in m["content"]
                  if isinstance(p, dict) and p.get("image") is not None]  # fmt: skip
        kept = {k: v for k, v in options.items() if k in ("padding", "truncation", "max_length", "return_tensors")}
        made = self(text=texts, images=images, **kept) if images else self.tokenizer(texts, **kept)
        return made if options.get("return_dict") else made["input_ids"]


def _default_part(cls: Any, attribute: str) -> Any:
    """The part of a processor that its class names, built with its class's defaults; None when it names none."""
    import transformers

    named = getattr(cls, f"{attribute}_class", None)
    named = named[0] if isinstance(named, tuple) else named
    if attribute == "image_processor":
        named = (
            named
            if isinstance(named, str) and not named.startswith("Auto")
            else _IMAGE_PROCESSORS.get(cls.__name__, named)
        )
        if named is None or named.startswith("Auto"):
            named = cls.__name__.replace("Processor", "ImageProcessor")
    elif not isinstance(named, str) or named.startswith("Auto"):
        named = cls.__name__.replace("Processor", "VideoProcessor") if attribute == "video_processor" else None
    part = getattr(transformers, named, None) if named else None
    try:
        return None if part is None else part()
    except (ImportError, TypeError, ValueError):
        return None


def patch_image_processors(module: ModuleType) -> None:
    """After ``import transformers.image_processing_base``: absent settings mean the class's defaults."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
            place = str(pretrained_model_name_or_path)
            folder = text.folder_of(place, options)
            if os.path.isfile(place) or (folder / "preprocessor_config.json").is_file():
                return original(cls, pretrained_model_name_or_path, *args, **options)
            session.current().note(f"the settings of {cls.__name__} are not at hand; the class's defaults are used.")
            return cls()

        return from_pretrained

    hooks.wrap_method(module.ImageProcessingMixin, "from_pretrained", make)
