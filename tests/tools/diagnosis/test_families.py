"""Every family of messages is proven by its own examples."""

from __future__ import annotations

import pytest
from oomdoctor.diagnosis import diagnose
from oomdoctor.diagnosis.families import ALL, BY_LINE, Family, Numbers, find
from oomdoctor.diagnosis.families.base import to_bytes
from oomdoctor.diagnosis.normalise import normalise
from oomdoctor.values import Kind

_FAMILIES = (*ALL, *BY_LINE)
_EXAMPLES = [(family, i) for family in _FAMILIES for i in range(len(family.examples))]


def test_names_are_unique_and_every_family_has_an_example() -> None:
    names = [family.name for family in _FAMILIES]
    assert len(names) == len(set(names))
    assert all(family.examples for family in _FAMILIES)
    assert all(family.memory != (family.cure is not None) for family in _FAMILIES)


@pytest.mark.parametrize(("family", "index"), _EXAMPLES, ids=lambda v: v.name if isinstance(v, Family) else str(v))
def test_example_is_found_and_its_numbers_are_read(family: Family, index: int) -> None:
    example = family.examples[index]
    mine = [s for s in find(normalise(example.text)) if s.family is family]
    assert mine, [s.family.name for s in find(normalise(example.text))]
    assert mine[-1].numbers == example.numbers


@pytest.mark.parametrize(("family", "index"), _EXAMPLES, ids=lambda v: v.name if isinstance(v, Family) else str(v))
def test_example_makes_a_diagnosis(family: Family, index: int) -> None:
    d = diagnose(family.examples[index].text)
    assert d.is_oom is family.memory
    assert (d.kind is Kind.NOT_MEMORY) is not family.memory
    assert d.cause.endswith(".") and len(d.cause) < 600
    assert d.next_step and d.message and d.evidence


def test_needles_are_in_what_the_anchor_matches() -> None:
    for family in ALL:
        for example in family.examples:
            squeezed = normalise(example.text).squeezed
            if family.needles:
                assert any(needle in squeezed for needle in family.needles), family.name


def test_the_value_that_means_unknown_is_not_a_size() -> None:
    assert to_bytes("17179869184.00GiB") is None
    assert to_bytes("12.50GiB") == int(12.5 * (1 << 30))
    assert to_bytes("512bytes") == 512
    assert to_bytes("nonsense") is None
    assert to_bytes(None) is None


def test_zero_bytes_for_a_process_that_holds_memory_is_ignored() -> None:
    d = diagnose(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 40.00 MiB. GPU 0 has a total capacity of 15.70 "
        "GiB of which 6.00 MiB is free. Including non-PyTorch memory, this process has 0 bytes memory in use. Of the "
        "allocated memory 15.20 GiB is allocated by PyTorch, and 20.00 MiB is reserved by PyTorch but unallocated."
    )
    assert d.process_bytes is None
    assert d.kind is Kind.VRAM_CAPACITY


def test_figures_of_the_allocator_warning_complete_a_message_without_any() -> None:
    d = diagnose(
        "[W1] memory allocation failed with OOM on device 0 while trying to allocate 467664896 bytes (free: 104280064, "
        'total: 7913803776)\nRuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1154'
    )
    assert d.kind is Kind.MASKED
    assert (d.requested_bytes, d.free_bytes, d.capacity_bytes) == (467664896, 104280064, 7913803776)


def test_numbers_default_to_unknown() -> None:
    assert Numbers().requested is None and not Numbers().unlimited
