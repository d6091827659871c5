"""Tokenizers and processors whose files are absent: stand-ins that are instances of the declared class."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from oomdoctor.loading import entries, hooks, hub, paths, session, words

VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
    "tekken.json", "merges.txt",
)  # fmt: skip
"""Files without which a tokenizer cannot be made."""
_NEEDS_NO_FILES = ("ByT5Tokenizer",)


class StandIn:
    """Comes first among the bases of a stand-in tokenizer, so that nothing of the real class needs its vocabulary."""

    def __init__(self, family: words.Family, length: int, folder: str) -> None:
        self.family = family
        self.model_max_length = length
        self.name_or_path = folder
        self.init_kwargs: dict[str, Any] = {}
        self.padding_side = "right"
        self.truncation_side = "right"
        self.chat_template: Any = None
        self.vocab_size = family.vocabulary
        self.added: dict[str, int] = {}
        self.seen: dict[int, str] = {}
        self.bos_token_id, self.eos_token_id, self.pad_token_id = family.bos, family.eos, family.pad
        self.unk_token_id = family.eos if family.eos is not None else family.pad
        self.bos_token = None if family.bos is None else "<|startoftext|>"
        self.eos_token = None if family.eos is None else "<|endoftext|>"
        self.pad_token = "<pad>" if family.pad != family.eos else "<|endoftext|>"
        self.unk_token = "<unk>"
        self.model_input_names = ["input_ids", "attention_mask"]
        self.all_special_ids = sorted({i for i in (family.bos, family.eos, family.pad) if i is not None})

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name} (a stand-in without vocabulary)")

    def __len__(self) -> int:
        return self.family.vocabulary + len(self.added)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(stand-in, model_max_length={self.model_max_length})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    @property
    def is_fast(self) -> bool:
        return type(self).__name__.endswith("Fast")

    # ------------------------------------------------------------------ text to numbers
    def tokenize(self, text: str, **options: Any) -> list[str]:
        return words.pieces(text, self.family.letters_per_piece)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        if isinstance(tokens, str):
            if tokens in self.added:
                return self.added[tokens]
            value = words.number(tokens, self.family.vocabulary)
            self.seen[value] = tokens
            return value
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, **options: Any) -> Any:
        return (
            self.seen.get(int(ids), "<unk>")
            if not hasattr(ids, "__iter__")
            else [self.seen.get(int(i), "") for i in ids]
        )

    def _ids(self, text: Any, limit: int | None, special: bool) -> list[int]:
        ids = self.convert_tokens_to_ids(self.tokenize(text) if isinstance(text, str) else list(text))
        head = [self.bos_token_id] if special and self.family.adds_bos else []
        tail = [self.eos_token_id] if special and self.family.adds_eos else []
        if limit is not None:
            ids = ids[: max(limit - len(head) - len(tail), 0)]
        return head + ids + tail

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        return self(text, **options)["input_ids"]

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding: Any = False,
        truncation: Any = None,
        max_length: int | None = None,
        return_tensors: Any = None,
        return_attention_mask: bool | None = None,
        return_length: bool = False,
        **options: Any,
    ) -> Any:
        single = isinstance(text, str)
        limit = max_length if max_length is not None else self.model_max_length
        cut = limit if truncation not in (None, False, "do_not_truncate") else None
        rows = [self._ids(t, cut, add_special_tokens) for t in ([text] if single else text)]
        return self.pad_rows(rows, padding, limit, return_tensors, return_attention_mask, return_length, single)

    batch_encode_plus = encode_plus = __call__

    def pad_rows(
        self,
        rows: list[list[int]],
        padding: Any,
        limit: int,
        return_tensors: Any,
        mask_wanted: bool | None = None,
        length_wanted: bool = False,
        single: bool = False,
    ) -> Any:
        """A ``BatchEncoding`` of rows of ids, padded and converted as asked."""
        from transformers import BatchEncoding

        lengths = [len(row) for row in rows]
        width = 0
        if getattr(padding, "value", padding) == "max_length":
            width = limit
        elif padding not in (False, None) and getattr(padding, "value", padding) != "do_not_pad":
            width = max(lengths, default=0)
        masks = [[1] * len(row) for row in rows]
        for row, mask in zip(rows, masks, strict=True):
            missing = max(width - len(row), 0)
            if self.padding_side == "left":
                row[:0], mask[:0] = [self.pad_token_id] * missing, [0] * missing
            else:
                row += [self.pad_token_id] * missing
                mask += [0] * missing
        data: dict[str, Any] = {"input_ids": rows}
        if mask_wanted is not False:
            data["attention_mask"] = masks
        if type(self).__name__.startswith("ChatGLM"):
            # This family counts positions in the tokenizer, from the first token that is not padding.
            data["position_ids"] = [[max(sum(mask[: i + 1]) - 1, 0) for i in range(len(mask))] for mask in masks]
        if length_wanted:
            data["length"] = [len(row) for row in rows]
        if return_tensors is None:
            return BatchEncoding({k: v[0] for k, v in data.items()} if single else data)
        return BatchEncoding(data, tensor_type=return_tensors)

    def pad(self, encoded: Any, padding: Any = True, max_length: int | None = None, **options: Any) -> Any:
        rows = encoded["input_ids"] if not isinstance(encoded, list) else [e["input_ids"] for e in encoded]
        rows = [[int(i) for i in row] for row in rows]
        return self.pad_rows(rows, padding, max_length or self.model_max_length, options.get("return_tensors"))

    # ------------------------------------------------------------------ numbers to text
    def decode(self, ids: Any, **options: Any) -> Any:
        listed = ids.tolist() if hasattr(ids, "tolist") else ids
        if isinstance(listed, list) and listed and isinstance(listed[0], list):
            return self.batch_decode(listed)
        hidden = set(self.all_special_ids) if options.get("skip_special_tokens") else set()
        listed = listed if isinstance(listed, list) else [listed]
        return " ".join(self.seen.get(int(i), "") for i in listed if int(i) not in hidden).strip()

    def batch_decode(self, rows: Any, **options: Any) -> list[str]:
        return [self.decode(row, **options) for row in rows]

    # ------------------------------------------------------------------ chats
    def apply_chat_template(
        self,
        conversation: Any,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        return_dict: bool | None = None,
        padding: Any = False,
        truncation: Any = False,
        max_length: int | None = None,
        return_tensors: Any = None,
        **options: Any,
    ) -> Any:
        single = not conversation or isinstance(conversation[0], dict)
        chats = [conversation] if single else conversation
        texts = [chat_text(chat, add_generation_prompt) for chat in chats]
        if not tokenize:
            return texts[0] if single else texts
        text = texts[0] if single and return_tensors is None else texts
        made = self(text, None, False, padding, truncation, max_length, return_tensors)
        wants_dict = _default_is_dict() if return_dict is None else return_dict
        return made if wants_dict else made["input_ids"]

    # ------------------------------------------------------------------ vocabulary
    def get_vocab(self) -> dict[str, int]:
        return dict(self.added)

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        listed = (
            [new_tokens] if isinstance(new_tokens, str) or not hasattr(new_tokens, "__iter__") else list(new_tokens)
        )
        fresh = [str(token) for token in listed if str(token) not in self.added]
        for token in fresh:
            self.added[token] = len(self)
        return len(fresh)

    def add_special_tokens(self, special_tokens_dict: dict[str, Any], **options: Any) -> int:
        return sum(self.add_tokens(value) for value in special_tokens_dict.values())

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return dict(self.added)

    @property
    def added_tokens_decoder(self) -> dict[int, str]:
        return {number: token for token, number in self.added.items()}

    def save_pretrained(self, *args: Any, **options: Any) -> tuple[str, ...]:
        return ()


def chat_text(messages: Any, add_generation_prompt: bool) -> str:
    """A conversation as ChatML, which most of today's text encoders use or come close to in length."""
    out = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = "".join(
                part if isinstance(part, str) else part.get("text") or "<|vision_start|><|image_pad|><|vision_end|>"
                for part in content
            )
        out.append(f"<|im_start|>{message['role']}\n{content}<|im_end|>\n")
    return "".join(out) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def _default_is_dict() -> bool:
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


# ---------------------------------------------------------------------- putting it in place
def stand_in(cls: Any, folder: Path | str, length: int | None = None) -> Any:
    """A tokenizer of class ``cls`` without its files."""
    family = words.family(cls.__name__)
    # Properties of the real class read the vocabulary; as plain attributes they can hold what the stand-in knows.
    mine = set(vars(StandIn))
    properties = {n for base in cls.__mro__ for n, v in vars(base).items() if isinstance(v, property)} - mine
    made: Any = type(cls.__name__, (StandIn, cls), {"__module__": cls.__module__, **dict.fromkeys(properties)})
    tokenizer = object.__new__(made)
    StandIn.__init__(tokenizer, family, length or family.length, str(folder))
    session.current().note(
        "tokenizer files are not at hand: token counts are estimated from the text (pipelines that pad to a fixed "
        "length are not affected)."
    )
    return tokenizer


def folder_of(model: Any, options: dict[str, Any]) -> Path:
    """The folder that a ``from_pretrained`` of a tokenizer or processor reads."""
    place = str(paths.localise(model))
    root = Path(place) if os.path.isdir(place) else hub.folder_of(place)
    return root / (options.get("subfolder") or "")


def has_vocabulary(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARIES)


def stated_length(folder: Path) -> int | None:
    """``model_max_length`` as a folder's tokenizer_config.json states it."""
    file = folder / "tokenizer_config.json"
    value = entries.read_json(file).get("model_max_length") if file.is_file() else None
    return value if isinstance(value, int) and 0 < value < 10**6 else None


def patch_tokenizers(module: ModuleType) -> None:
    """After ``import transformers.tokenization_utils_base``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
            if os.path.isfile(str(pretrained_model_name_or_path)):
                return original(cls, pretrained_model_name_or_path, *args, **options)
            folder = folder_of(pretrained_model_name_or_path, options)
            if cls.__name__ in _NEEDS_NO_FILES:
                return cls()
            if has_vocabulary(folder):
                return original(cls, pretrained_model_name_or_path, *args, **options)
            return stand_in(cls, folder, stated_length(folder))

        return from_pretrained

    hooks.wrap_method(module.PreTrainedTokenizerBase, "from_pretrained", make)


def patch_auto_tokenizer(module: ModuleType) -> None:
    """After ``import transformers.models.auto.tokenization_auto``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
            folder = folder_of(pretrained_model_name_or_path, options)
            if has_vocabulary(folder):
                return original(cls, pretrained_model_name_or_path, *args, **options)
            return stand_in(_declared(folder), folder, stated_length(folder))

        return from_pretrained

    hooks.wrap_method(module.AutoTokenizer, "from_pretrained", make)


def _declared(folder: Path) -> Any:
    import transformers

    file = folder / "tokenizer_config.json"
    name = entries.read_json(file).get("tokenizer_class") if file.is_file() else None
    return getattr(transformers, name or "", None) or transformers.PreTrainedTokenizerFast
