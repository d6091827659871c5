"""A tokenizer without a vocabulary: it cuts text about where a real one would and numbers the pieces.

Lengths are what memory depends on. Byte-pair vocabularies of 30 000 entries and more hold most English words whole, so
a word is one piece per ten letters (one per six for SentencePiece models), every sign, digit and CJK character is one,
and a special token such as ``<|im_start|>`` is one. No torch.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_PIECES = re.compile(
    r"<\|[^|<>]*\|>|</?[a-z_]+>|\[[A-Z_]+\]|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]+|\d|\n+|[^\s]",
    re.UNICODE,
)
SPECIAL = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|vision_pad|>": 151654,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}
"""Ids that models compare with, of the Qwen family; other special tokens get an ordinary number."""


@dataclass(frozen=True)
class Family:
    """What a kind of tokenizer does around the pieces."""

    letters_per_piece: int
    length: int
    vocabulary: int
    """Size of the vocabulary, special tokens included: what ``len(tokenizer)`` says."""
    bos: int | None
    eos: int | None
    pad: int
    adds_bos: bool
    adds_eos: bool


FAMILIES = {
    "CLIP": Family(10, 77, 49408, 49406, 49407, 49407, True, True),
    "UMT5": Family(6, 512, 256300, None, 1, 0, False, True),
    "T5": Family(6, 512, 32100, None, 1, 0, False, True),
    "Gemma": Family(10, 8192, 256000, 2, 1, 0, True, False),
    "Qwen": Family(10, 131072, 151665, None, 151645, 151643, False, False),
    "Llama": Family(10, 131072, 128256, 128000, 128001, 128001, True, False),
    "ChatGLM": Family(10, 8192, 65024, 64790, 2, 0, True, False),
}
OTHER = Family(10, 8192, 32000, 1, 2, 0, True, False)


def family(class_name: str) -> Family:
    """The family of a tokenizer class, by its name."""
    return next((f for name, f in FAMILIES.items() if class_name.startswith(name)), OTHER)


def pieces(text: str, letters_per_piece: int) -> list[str]:
    """``text`` cut into about as many pieces as a real tokenizer would make."""
    found: list[str] = []
    for piece in _PIECES.findall(text):
        if piece.isalpha() and len(piece) > letters_per_piece:
            found += [piece[i : i + letters_per_piece] for i in range(0, len(piece), letters_per_piece)]
        else:
            found.append(piece)
    return found


def number(piece: str, vocabulary: int) -> int:
    """A stable id of a piece, inside the vocabulary and away from the special tokens at its start."""
    if piece in SPECIAL and vocabulary > SPECIAL[piece]:
        return SPECIAL[piece]
    low, high = 1000, min(vocabulary, 30000)
    return low + zlib.crc32(piece.encode()) % (high - low)
