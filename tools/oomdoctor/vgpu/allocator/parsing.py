"""Reading allocator settings, with the refusals of the two parsers that PyTorch has had."""

from __future__ import annotations

import re
from collections.abc import Callable

from .blocks import MIN_LARGE, UNLIMITED
from .settings import INTERVALS, MAX_REGISTER_THREADS, MIB, TOKENISED, BadSetting

_SPLIT = re.compile(r"[,:\[\]]|[^,:\[\]]+")
Value = bool | int | float | str | tuple[int, ...]


class Tokens:
    """The settings string cut at its separators, with checked access."""

    def __init__(self, text: str, version: tuple[int, int], large_segment: int) -> None:
        text = re.sub(r"\s", "", text) if version >= TOKENISED else text.replace(" ", "")
        self.items: list[str] = _SPLIT.findall(text)
        self.tokenised = version >= TOKENISED
        self.divisions = "divisions" if self.tokenised else "divisons"  # PyTorch's spelling, then and now
        self.large_segment = large_segment
        self.at = 0

    def peek(self, ahead: int = 0) -> str | None:
        index = self.at + ahead
        return self.items[index] if index < len(self.items) else None

    def expect(self, mark: str) -> None:
        if self.peek() != mark:
            # The newer parser looks at separators without insisting on them, but for the end of the text.
            if self.tokenised and self.peek() is not None:
                self.at += 1
                return
            raise BadSetting(
                "Index out of bounds in ConfigTokenizer"
                if self.tokenised
                else f"Error parsing CachingAllocator settings, expected {mark}"
            )
        self.at += 1

    def value(self, name: str) -> str:
        item = self.peek()
        if item is None:
            raise BadSetting(
                "Index out of bounds in ConfigTokenizer" if self.tokenised else f"Error, expecting {name} value"
            )
        self.at += 1
        return item

    def integer(self, name: str) -> int:
        item = self.value(name)
        found = re.match(r"[+-]?\d+", item)
        if not found:
            raise BadSetting("stoull" if self.tokenised else "stoi")
        number = int(found.group())
        if not self.tokenised and not -(1 << 31) <= number < 1 << 31:
            raise BadSetting("stoi")
        return number & UNLIMITED  # what a negative number becomes as an unsigned one

    def real(self, name: str) -> float:
        item = self.value(name)
        found = re.match(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", item)
        if not found:
            raise BadSetting("stod")
        return float(found.group())

    def boolean(self, name: str) -> bool:
        at = self.at
        item = self.peek()
        if item not in ("True", "False"):
            if not self.tokenised:
                raise BadSetting(f"Expected a single True/False argument for {name}")
            if item is None:
                raise BadSetting("Index out of bounds in ConfigTokenizer")
            raise BadSetting(f"Expected 'True' or 'False' at index {at} in ConfigTokenizer but got '{item}'")
        self.at += 1
        return item == "True"


def _megabytes(tokens: Tokens, name: str) -> int:
    number = tokens.integer(name)
    least = tokens.large_segment // MIB
    if number < least or (number == least and not tokens.tokenised):
        sign = ">=" if tokens.tokenised else ">"
        raise BadSetting(f"CachingAllocator option {name} too small, must be {sign} {least}")
    return min(number, UNLIMITED // MIB) * MIB


def _large_segment(tokens: Tokens, name: str) -> int:
    number = tokens.integer(name)
    if number <= MIN_LARGE // MIB:
        raise BadSetting(f"CachingAllocator option {name} must be > {MIN_LARGE // MIB} MB")
    tokens.large_segment = number * MIB
    return tokens.large_segment


def _threshold(tokens: Tokens, name: str) -> float:
    number = tokens.real(name)
    if not 0.0 < number < 1.0:
        if tokens.tokenised:
            raise BadSetting("garbage_collect_threshold is invalid, set it in (0.0, 1.0)")
        raise BadSetting(f"garbage_collect_threshold too {'small' if number <= 0.0 else 'big'}, set it 0.0~1.0")
    return number


def _power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def _divisions(tokens: Tokens, name: str) -> tuple[int, ...]:
    if tokens.peek() != "[":
        number = tokens.integer(name)
        if not _power_of_two(number):
            raise BadSetting(f"For roundups, the {tokens.divisions} has to be power of 2 ")
        return (number,) * INTERVALS
    tokens.value(name)
    table = [0] * INTERVALS
    first, last = True, 0
    after = 1 if tokens.tokenised else 0  # older versions let ">" overwrite the interval named last
    while tokens.peek() not in (None, "]"):
        bound = tokens.value(name)
        tokens.expect(":")
        number = tokens.integer(name)
        if number and not _power_of_two(number):
            raise BadSetting(f"For roundups, the {tokens.divisions} has to be power of 2 or 0 to disable roundup ")
        if bound == ">":
            table[last + after :] = [number] * (INTERVALS - last - after)
        else:
            if not bound.isdigit():
                raise BadSetting("stoull" if tokens.tokenised else "stoul")
            if not _power_of_two(int(bound)):
                raise BadSetting("For roundups, the intervals have to be power of 2 ")
            index = min(int(bound).bit_length() - 1, INTERVALS - 1)
            if first:
                table[:index] = [number] * index
                first = False
            table[index] = number
            last = index
        if tokens.peek() != "]":
            tokens.expect(",")
    tokens.expect("]")
    return tuple(table)


def _backend(tokens: Tokens, name: str) -> str:
    item = tokens.value(name)
    if item not in ("native", "cudaMallocAsync"):
        raise BadSetting("Unknown allocator backend, options are native and cudaMallocAsync")
    return item


def _threads(tokens: Tokens, name: str) -> int:
    number = tokens.integer(name)
    if not _power_of_two(number):
        got = f", got {number}" if tokens.tokenised else " "
        raise BadSetting(f"Number of register threads has to be power of 2{got}")
    if number > MAX_REGISTER_THREADS:
        got = f", got {number}" if tokens.tokenised else ""
        raise BadSetting(f"Number of register threads should be less than or equal to {MAX_REGISTER_THREADS}{got}")
    return number


def _reserve(tokens: Tokens, name: str) -> int:
    number = tokens.integer(name)
    if number <= 0:
        raise BadSetting("Pinned reserve segment size has to be greater than 0")
    return number * MIB


def _any_megabytes(tokens: Tokens, name: str) -> int:
    return tokens.integer(name) * MIB


def _boolean(tokens: Tokens, name: str) -> bool:
    return tokens.boolean(name)


def _fraction(tokens: Tokens, name: str) -> float:
    number = tokens.real(name)
    if not 0.0 <= number <= 1.0:
        raise BadSetting("per_process_memory_fraction is invalid, set it in [0.0, 1.0]")
    return number


Reader = Callable[[Tokens, str], Value]
# option of the variable -> (field of Settings, reader, first torch version that knows it)
OPTIONS: dict[str, tuple[str, Reader, tuple[int, int]]] = {
    "backend": ("backend", _backend, (2, 0)),
    "expandable_segments": ("expandable_segments", _boolean, (2, 1)),
    "max_split_size_mb": ("max_split_size", _megabytes, (1, 10)),
    "max_non_split_rounding_mb": ("max_non_split_rounding", _megabytes, (2, 6)),
    "garbage_collection_threshold": ("garbage_collection_threshold", _threshold, (1, 12)),
    "roundup_power2_divisions": ("roundup_power2_divisions", _divisions, (1, 12)),
    "large_segment_size_mb": ("large_segment_size", _large_segment, (2, 11)),
    "release_lock_on_cudamalloc": ("release_lock_on_cudamalloc", _boolean, (2, 1)),
    "release_lock_on_hipmalloc": ("release_lock_on_cudamalloc", _boolean, (2, 1)),
    "graph_capture_record_stream_reuse": ("graph_capture_record_stream_reuse", _boolean, (2, 9)),
    "per_process_memory_fraction": ("per_process_memory_fraction", _fraction, (2, 10)),
    "throw_on_cudamalloc_oom": ("throw_on_cudamalloc_oom", _boolean, (2, 12)),
    "pinned_use_cuda_host_register": ("pinned_use_cuda_host_register", _boolean, (2, 1)),
    "pinned_use_hip_host_register": ("pinned_use_cuda_host_register", _boolean, (2, 1)),
    "pinned_num_register_threads": ("pinned_num_register_threads", _threads, (2, 1)),
    "pinned_use_background_threads": ("pinned_use_background_threads", _boolean, (2, 6)),
    "pinned_reserve_segment_size_mb": ("pinned_reserve_segment_size", _reserve, (2, 9)),
    "pinned_max_round_threshold_mb": ("pinned_max_round_threshold", _any_megabytes, (2, 12)),
    "pinned_max_cached_size_mb": ("pinned_max_cached_size", _any_megabytes, (2, 12)),
    "pinned_free_catch_all": ("pinned_free_catch_all", _boolean, (2, 11)),
}


def parse(text: str, torch_version: tuple[int, int], large_segment: int, running: bool) -> dict[str, Value]:
    """``name:value,...`` as fields of :class:`Settings`; raises :class:`BadSetting` in torch's words."""
    tokens = Tokens(text, torch_version, large_segment)
    found: dict[str, Value] = {}
    while tokens.peek() is not None:
        key = tokens.value("option")
        field, read, since = OPTIONS.get(key, ("", _boolean, (99, 0)))
        if torch_version < since:
            if tokens.tokenised:
                where = "Accelerator" if running else "CUDA"
                raise BadSetting(f"Unrecognized key '{key}' in {where} allocator config.")
            raise BadSetting(f"Unrecognized CachingAllocator option: {key}")
        tokens.expect(":")
        found[field] = read(tokens, key)
        if tokens.peek() is not None:
            tokens.expect(",")
    return found
