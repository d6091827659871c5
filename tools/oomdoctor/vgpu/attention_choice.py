"""Which attention kernel PyTorch takes: flash, memory-efficient, cuDNN or math.

The conditions are those of ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp``, and ``bench/oracle/kernels.py``
asks PyTorch's own selection (2.6 and 2.13) for cards of compute capability 7.0 to 12.0; the answers are recorded.
Not measured: the versions between, for which the source text decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

FLASH, EFFICIENT, MATH, CUDNN = "flash", "efficient", "math", "cudnn"
HALF = (torch.float16, torch.bfloat16)
BLACKWELL_SINCE = (2, 7)
"""Before, the fused kernels refuse cards above compute capability 9.0."""
CUDNN_FIRST_SINCE = (2, 8)
"""From here on cuDNN is asked first on data-centre Hopper and Blackwell. Recorded for 2.13, and that 2.6 does not; the
version between is from the source text (built with cuDNN 9.9 or newer)."""


class NoKernel(RuntimeError):
    """Every backend that is enabled refuses the inputs; PyTorch says no more than this."""

    def __init__(self) -> None:
        super().__init__("No available kernel. Aborting execution.")


@dataclass(frozen=True, slots=True)
class Backends:
    """What ``torch.backends.cuda`` (or ``torch.nn.attention.sdpa_kernel``) leaves enabled."""

    flash: bool = True
    efficient: bool = True
    math: bool = True
    cudnn: bool = True


ALL = Backends()


@dataclass(frozen=True, slots=True)
class Attention:
    """One call, by what the choice depends on. Shapes are (batch, heads, tokens, head size)."""

    query: Sequence[int]
    key: Sequence[int]
    value: Sequence[int]
    dtype: torch.dtype
    mask: Sequence[int] | None = None
    causal: bool = False
    grouped: bool = False
    unit_stride: bool = True
    """Whether the last dimension of all three is contiguous."""


def choose(
    call: Attention, capability: tuple[int, int], torch_version: tuple[int, int] = (2, 13), enabled: Backends = ALL
) -> str:
    """The kernel for ``call``. Raises :class:`NoKernel` when math is disabled and nothing else fits."""
    order = [(FLASH, enabled.flash and _flash(call, capability, torch_version))]
    order.append((EFFICIENT, enabled.efficient and _efficient(call, capability, torch_version)))
    cudnn = (CUDNN, enabled.cudnn and _cudnn(call, capability, torch_version))
    if torch_version >= CUDNN_FIRST_SINCE and capability in ((9, 0), (10, 0), (10, 3)):
        order.insert(0, cudnn)
        order.append((MATH, enabled.math))
    else:
        order += [(MATH, enabled.math), cudnn]
    for kernel, fits in order:
        if fits:
            return kernel
    raise NoKernel


def _known_card(capability: tuple[int, int], lowest: tuple[int, int], torch_version: tuple[int, int]) -> bool:
    return lowest <= capability <= ((12, 1) if torch_version >= BLACKWELL_SINCE else (9, 0))


def _plain(call: Attention) -> bool:
    """What every fused kernel asks: four dimensions, nothing empty, one batch size, unit strides."""
    q, k, v = call.query, call.key, call.value
    return len(q) == len(k) == len(v) == 4 and q[0] == k[0] == v[0] and min(*q[:3], *k[:3]) > 0 and call.unit_stride


def _heads(call: Attention, grouped_ok: bool, same_kv: bool = True) -> bool:
    q, k, v = call.query[1], call.key[1], call.value[1]
    if call.grouped and grouped_ok:
        return q % k == 0 and q % v == 0 and (k == v or not same_kv)
    return bool(q == k == v)


def _flash(call: Attention, capability: tuple[int, int], torch_version: tuple[int, int]) -> bool:
    return (
        _known_card(capability, (8, 0), torch_version)
        and call.dtype in HALF
        and call.mask is None
        and _plain(call)
        and call.query[3] == call.key[3] == call.value[3] <= 256
        and not (call.causal and call.query[2] != call.key[2])
        and _heads(call, grouped_ok=True)
    )


def _efficient(call: Attention, capability: tuple[int, int], torch_version: tuple[int, int]) -> bool:
    if not (_known_card(capability, (5, 0), torch_version) and _plain(call) and _heads(call, grouped_ok=False)):
        return False
    if call.dtype == torch.bfloat16 and capability < (8, 0):
        return False
    if call.dtype not in (*HALF, torch.float32):
        return False
    # The alignment that the card's matrix units want: 16 bytes where there are some, else none.
    if capability >= (8, 0):
        step = 4 if call.dtype == torch.float32 else 8
    else:
        step = 8 if capability >= (7, 0) and call.dtype != torch.float32 else 1
    return call.query[3] == call.key[3] and call.query[3] % step == 0 and call.value[3] % step == 0


def _cudnn(call: Attention, capability: tuple[int, int], torch_version: tuple[int, int]) -> bool:
    if not (_known_card(capability, (8, 0), torch_version) and call.dtype in HALF and _plain(call)):
        return False
    q, k, v = call.query, call.key, call.value
    limit = 256 if capability == (9, 0) and torch_version >= CUDNN_FIRST_SINCE else 128
    if capability[0] == 10 and (q[3], v[3]) == (192, 128):
        limit = 192
    return (
        max(q[3], v[3]) <= limit
        and q[3] % 8 == 0
        and v[3] % 8 == 0
        and k[2] > 1
        and _heads(call, grouped_ok=True, same_kv=False)
        and _mask_broadcasts(call)
    )


def _mask_broadcasts(call: Attention) -> bool:
    mask, q, k = call.mask, call.query, call.key
    if mask is None:
        return True
    if mask[-2] not in (1, q[2]) or mask[-1] not in (1, k[2]):
        return False
    return len(mask) == 2 or (len(mask) == 4 and mask[0] in (1, q[0]) and mask[1] in (1, q[1]))
