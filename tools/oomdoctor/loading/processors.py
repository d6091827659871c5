"""Processors (tokenizer and image processor in one) and image processors whose files, or libraries, are absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from oomdoctor.loading import entries, hooks, session, text, vision

_TOKENIZERS = {"Qwen": "Qwen2Tokenizer", "Gemma": "GemmaTokenizer", "Llama": "LlamaTokenizer"}
_IMAGE = "<|image_pad|>"


class StandIn:
    """A processor of text and, for the Qwen-VL family, pictures."""

    image_token = _IMAGE

    def __init__(self, tokenizer: Any, patch: int | None) -> None:
        self.tokenizer = tokenizer
        self.image_processor: Any = None
        self.patch = patch
        self.image_token_id = tokenizer.convert_tokens_to_ids(_IMAGE)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(stand-in)"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __call__(self, images: Any = None, text: Any = None, videos: Any = None, **options: Any) -> Any:
        if isinstance(images, str) or (isinstance(images, list) and images and isinstance(images[0], str)):
            images, text = text, images
        texts = [text] if isinstance(text, str) else list(text or [""])
        extra: dict[str, Any] = {}
        if images is not None and self.patch is not None and vision.pictures(images):
            extra, counts = vision.encode(images, self.patch)
            texts = _with_image_tokens(texts, counts)
        elif images is not None and vision.pictures(images):
            session.current().note(
                f"{type(self).__name__} is a stand-in that takes text only: what pictures cost in the text encoder is "
                "not counted."
            )
        known = ("padding", "truncation", "max_length", "return_tensors", "add_special_tokens", "padding_side")
        made = self.tokenizer(texts, **{k: v for k, v in options.items() if k in known})
        for key, value in extra.items():
            made[key] = value
        return made

    def apply_chat_template(self, conversation: Any, tokenize: bool = False, **options: Any) -> Any:
        add = bool(options.pop("add_generation_prompt", False))
        single = not conversation or isinstance(conversation[0], dict)
        chats = [conversation] if single else conversation
        texts = [text.chat_text(chat, add) for chat in chats]
        if not tokenize:
            return texts[0] if single else texts
        pictures = [part["image"] for part in _parts(chats) if part.get("image") is not None]
        made = self(text=texts, images=pictures or None, **options)
        return made if options.get("return_dict") else made["input_ids"]

    def batch_decode(self, rows: Any, **options: Any) -> list[str]:
        return self.tokenizer.batch_decode(rows, **options)

    def decode(self, ids: Any, **options: Any) -> Any:
        return self.tokenizer.decode(ids, **options)

    def save_pretrained(self, *args: Any, **options: Any) -> tuple[str, ...]:
        return ()


def _parts(chats: Iterable[Any]) -> list[dict[str, Any]]:
    contents = [message["content"] for chat in chats for message in chat if isinstance(message["content"], list)]
    return [part for content in contents for part in content if isinstance(part, dict)]


def _with_image_tokens(texts: list[str], counts: list[int]) -> list[str]:
    """``texts`` with each image token repeated as often as its picture has tokens."""
    left = list(counts)
    out = []
    for one in texts:
        pieces = one.split(_IMAGE)
        made = pieces[0]
        for piece in pieces[1:]:
            made += _IMAGE * (left.pop(0) if left else 1) + piece
        out.append(made)
    return out


def stand_in(cls: Any, name: str, folder: Path) -> Any:
    """A processor that is an instance of ``cls`` (any class, if the library refuses to give the real one)."""
    import transformers

    wanted = next((t for prefix, t in _TOKENIZERS.items() if name.startswith(prefix)), "PreTrainedTokenizerFast")
    tokenizer = text.stand_in(getattr(transformers, wanted), folder, text.stated_length(folder))
    made: Any = type(name, (StandIn, cls), {"__module__": cls.__module__})
    processor = object.__new__(made)
    patch = None
    if "VL" in name:
        patch = 16 if name.startswith("Qwen3") else 14
    StandIn.__init__(processor, tokenizer, patch)
    return processor


def patch(module: ModuleType) -> None:
    """After ``import transformers.processing_utils``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
            folder = text.folder_of(pretrained_model_name_or_path, options)
            if text.has_vocabulary(folder):
                return original(cls, pretrained_model_name_or_path, *args, **options)
            return stand_in(cls, cls.__name__, folder)

        return from_pretrained

    hooks.wrap_method(module.ProcessorMixin, "from_pretrained", make)


def patch_image_processors(module: ModuleType) -> None:
    """After ``import transformers.image_processing_base``: absent settings mean the class's defaults."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
            place = str(pretrained_model_name_or_path)
            if os.path.isfile(place):
                return original(cls, place, *args, **options)
            folder = text.folder_of(place, options)
            file = folder / "preprocessor_config.json"
            if file.is_file() and entries.read_json(file):
                return original(cls, str(folder), *args, **{k: v for k, v in options.items() if k != "subfolder"})
            session.current().note(f"the settings of {cls.__name__} are not at hand; the class's defaults are used.")
            return cls()

        return from_pretrained

    hooks.wrap_method(module.ImageProcessingMixin, "from_pretrained", make)


def patch_pipeline_loading(module: ModuleType) -> None:
    """After ``import diffusers.pipelines.pipeline_loading_utils``: processors that need a library which is missing.

    transformers then gives a placeholder class that only knows how to complain; in a virtual run a stand-in will do.
    """
    original = module.load_sub_model

    def load_sub_model(*args: Any, **options: Any) -> Any:
        name, library = options.get("class_name"), options.get("library_name")
        if isinstance(name, str) and library == "transformers" and "Processor" in name:
            import transformers

            cls = getattr(transformers, name, None)
            lacking = getattr(cls, "_backends", None)
            if lacking:
                session.current().note(
                    f"{name} needs {' and '.join(lacking)}, which the interpreter lacks: install it for a real run."
                )
                folder = Path(options["cached_folder"]) / options["name"]
                return stand_in(object, name, folder)
        return original(*args, **options)

    hooks.replace(module, "load_sub_model", load_sub_model)
