"""One growing range: blocks never overlap, holes are used best-fit, and what is alive moves together when asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.vgpu.allocator.arena import Arena

REQUESTS = st.lists(
    st.one_of(st.integers(0, 50).map(lambda n: ("take", n)), st.integers(0, 30).map(lambda n: ("give", n)))
)


def play(requests: list[tuple[str, int]]) -> tuple[Arena, dict[int, int], int]:
    """The arena, what is alive in it, and the most that ever was."""
    arena, alive, most = Arena(), {}, 0
    for key, (what, number) in enumerate(requests):
        if what == "take":
            arena.take(key, number)
            alive[key] = number
        elif alive:
            gone = list(alive)[number % len(alive)]
            arena.give(gone)
            del alive[gone]
        most = max(most, sum(alive.values()))
        places = sorted(arena._blocks.values())
        assert all(a + n <= b for (a, n), (b, _) in zip(places, places[1:], strict=False)), "blocks overlap"
        assert all(a + n <= arena.top for a, n in places)
        holes = {start: size for size, start in arena._free}
        assert sum(holes.values()) + sum(alive.values()) == arena.top
        assert all(start + size not in holes for start, size in holes.items()), "holes that touch are one"
    return arena, alive, most


@given(REQUESTS)
def test_blocks_do_not_overlap_and_holes_are_joined(requests: list[tuple[str, int]]) -> None:
    arena, alive, most = play(requests)
    assert arena.top >= most
    arena.settle()
    assert arena.top == sum(alive.values()) and not arena._free


def test_the_smallest_hole_that_fits_is_used_and_the_end_is_extended() -> None:
    arena = Arena()
    for key, size in enumerate((10, 1, 4, 1, 6)):
        arena.take(key, size)
    arena.give(0)
    arena.give(2)
    arena.take(10, 4)
    assert arena._blocks[10] == (11, 4) and arena.top == 22
    arena.give(4)
    arena.take(11, 12)
    assert arena._blocks[11] == (16, 12) and arena.top == 28, "the free end grows instead of being left behind"


def test_what_is_not_here_is_passed_over() -> None:
    arena = Arena()
    arena.give(7)
    assert arena.top == 0
