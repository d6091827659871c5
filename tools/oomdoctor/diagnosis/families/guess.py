"""Wordings never seen before: what can be said from the words alone, and no more."""

from __future__ import annotations

import re

from oomdoctor.diagnosis.families.base import Example, Family, squeezed

FAMILIES = (
    Family(
        name="unknown_wording",
        anchor=squeezed(
            r"out ?of ?(?:[a-z]{1,12} )?memory|OutOfMemory|out_of_memory|RESOURCE_EXHAUSTED|\bOOM ?(?:detected|error)"
            r"|O?OM detected , reducing|not enough (?:gpu|video|device|graphics|free)[a-z]{0,12} memory"
            r"|fail(?:ed|ure) to allocate|insufficient (?:gpu |video |device )?memory|ran out of (?:gpu |video )?memory"
            r"|insufficient resources|memory overflow|exceeds? available memory",
            re.IGNORECASE,
        ),
        needles=(),
        rank=10,
        examples=(
            Example("RuntimeError: NPU out of memory. NPUWorkspaceAllocator"),
            Example("jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating"),
            Example(
                "RuntimeError: Could not allocate tensor with 4096 bytes. There is not enough GPU video memory available!"
            ),
            Example("OOM Detected, reducing batch/grad size to 0/2."),
        ),
    ),
)
