"""What the figures of one message mean: small pure functions, each answering one question."""

from __future__ import annotations

from dataclasses import dataclass

from oomdoctor.diagnosis.families import Numbers
from oomdoctor.units import GIB, MIB
from oomdoctor.values import DeviceFamily

LARGE_SHARE = 0.25
"""A request above this share of the card is one tensor too large, not the last straw."""
FULL_SHARE = 0.75
"""Live tensors above this share: what fills the card is what is already there."""
CACHED_SHARE = 0.10
"""Cached memory below this share of the card is normal, whatever the hint says."""
FOREIGN_SHARE = 0.15
"""Memory that neither PyTorch nor the free list accounts for, above this share: somebody else holds it."""
FREE_SLACK = 32 * MIB
"""Free memory this little above the request is no contradiction: the driver works in pages and keeps some itself."""
OWN_SLACK = 3 * GIB // 2
"""Context and libraries: how far a process lies above what PyTorch reserved."""
UNKNOWN_CARD_LARGE = 8 * GIB
"""A request that is one tensor too large on any card, when the card is not known."""


@dataclass(frozen=True)
class Owners:
    """Who holds the card. ``other`` is None when the message does not tell, 0 when it says nobody."""

    own: int | None
    other: int | None
    listed: bool
    """The message names the other processes (else ``other`` was worked out from the rest)."""
    renamed: bool = False
    """A container: the script itself is listed as ``Process N``."""


def limit(n: Numbers) -> int | None:
    """What the process may fill: the user's cap where there is one, else the card."""
    if n.allowed is not None and n.capacity is not None:
        return min(n.allowed, n.capacity)
    return n.allowed if n.allowed is not None else n.capacity


def reserved(n: Numbers) -> int | None:
    """Everything PyTorch's allocator holds."""
    return None if n.allocated is None else n.allocated + (n.cached or 0)


def owners(n: Numbers, device: DeviceFamily | None) -> Owners:
    """Own and foreign memory on the card, the container's renaming undone."""
    mine = reserved(n)
    if n.this_process is not None:
        others = sum(size for _, size in n.processes)
        return Owners(n.this_process, others, listed=bool(n.processes))
    if n.processes and mine is not None:
        # In a container NVML lists the script under the host's number: it is the one just above what we reserved.
        own = min(n.processes, key=lambda p: (p[1] + 64 * MIB < mine, abs(p[1] - mine)))
        explained = own[1] + (n.free or 0)
        close = mine - 64 * MIB <= own[1] <= mine + OWN_SLACK
        alone = len(n.processes) == 1 and n.capacity is not None and explained > 0.95 * n.capacity
        if close or alone:
            others = sum(size for _, size in n.processes) - own[1]
            return Owners(own[1], others, listed=len(n.processes) > 1, renamed=True)
        return Owners(None, sum(size for _, size in n.processes), listed=True)
    if device == "mps" or n.capacity is None or n.free is None or mine is None:
        return Owners(None, None, listed=False)
    if n.cached is None:
        return Owners(None, None, listed=False)  # the rest may be PyTorch's own cache
    rest = n.capacity - n.free - mine
    return Owners(None, max(0, rest), listed=False)


def refused_though_free(n: Numbers, device: DeviceFamily | None) -> bool:
    """The request was clearly smaller than what was free: the card is not what ran out.

    A user's cap explains a refusal too, and then the card's free memory says nothing.
    """
    if n.requested is None or n.allowed is not None:
        return False
    room = n.free
    mine = reserved(n)
    if room is None and device == "xpu" and n.capacity is not None and mine is not None:
        room = round(0.9 * n.capacity) - mine  # the older message prints no free memory
    return room is not None and room >= n.requested + FREE_SLACK


def oversubscribed(n: Numbers) -> bool:
    """More live tensors than the card has: the driver is using system memory (Windows, WSL), or another allocator."""
    return n.allocated is not None and n.capacity is not None and n.allocated > n.capacity


def one_tensor(n: Numbers, device: DeviceFamily | None) -> bool:
    """One request too large for the card, however little else were on it."""
    if n.requested is None:
        return False
    size = limit(n)
    if size is None:
        return n.requested >= UNKNOWN_CARD_LARGE
    if n.requested > size / 2:
        return True
    full = n.allocated is not None and n.allocated > FULL_SHARE * size
    return n.requested > LARGE_SHARE * size and not full


def fragmented(n: Numbers) -> bool:
    """Enough cached memory for the request and much of the card cached: it is there, in pieces."""
    size = limit(n)
    if n.cached is None or n.requested is None or not size or n.cached <= CACHED_SHARE * size:
        return False
    if n.cached >= n.requested:
        return True
    return not one_tensor(n, None) and n.cached + (n.free or 0) >= n.requested


def held_by_others(n: Numbers, who: Owners, device: DeviceFamily | None) -> bool:
    """Somebody else's memory is what is missing."""
    size = n.capacity
    if not who.other or not size:
        return False
    if who.listed:
        return who.other > FOREIGN_SHARE * size and who.other > 2 * (n.requested or 0)
    # Worked out, not listed: context and libraries are in it too. Oversubscription makes it meaningless.
    return who.other > max(FOREIGN_SHARE * size, OWN_SLACK) and not oversubscribed(n)


def over_cap(n: Numbers) -> bool:
    """The user's own memory fraction refused it, the card itself had room."""
    mine = reserved(n)
    if n.allowed is None or mine is None or n.requested is None:
        return False
    return mine + n.requested > n.allowed and (n.free is None or n.free >= n.requested or n.allowed < (n.capacity or 0))
