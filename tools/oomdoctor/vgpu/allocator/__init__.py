"""PyTorch's memory allocators, without PyTorch: the caching allocator of a card and the one of pinned host memory.

Nothing here imports torch. ``bench/oracle`` holds both against PyTorch's own.
"""

from __future__ import annotations

from .blocks import Block
from .caching import CachingAllocator
from .messages import Failure, OutOfCardMemory, text_of
from .pinned import OutOfPinnedMemory, PinnedAllocator, PinnedBlock
from .settings import BadSetting, Settings
from .streams import StreamClock
from .uncached import UncachedAllocator

__all__ = [
    "BadSetting",
    "Block",
    "CachingAllocator",
    "Failure",
    "OutOfCardMemory",
    "OutOfPinnedMemory",
    "PinnedAllocator",
    "PinnedBlock",
    "Settings",
    "StreamClock",
    "UncachedAllocator",
    "text_of",
]
