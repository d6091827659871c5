"""The registries of rules, and rules that no recording of PyTorch's kernels covers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oomdoctor.vgpu import VirtualCard, rules, virtual_gpu
from oomdoctor.vgpu.dispatch import UnknownOperation
from oomdoctor.vgpu.workspace import workspace, workspace_requests

MIB = 1 << 20
ADA = VirtualCard("rtx-4090", "NVIDIA GeForce RTX 4090", 24 << 30, compute_capability=(8, 9))
PASCAL = VirtualCard("p100", "Tesla P100", 16 << 30, compute_capability=(6, 0))


def rise(card: VirtualCard, run: Callable[[], torch.Tensor]) -> int:
    """Bytes that ``run`` holds at most beyond its inputs and its result."""
    with virtual_gpu(card, replay=False), torch.no_grad():
        inputs = run()  # what stays after the first time (workspaces) is no part of it
        del inputs
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = run()
        peak = torch.cuda.max_memory_allocated() - before
        return peak - result.nbytes


def convolved(dtype: torch.dtype, kernel: int, dims: int = 2) -> Callable[[], torch.Tensor]:
    made: list[torch.Tensor] = []

    def run() -> torch.Tensor:
        if not made:
            made.append(torch.empty(1, 64, *[64] * dims, dtype=dtype, device="cuda"))
            made.append(torch.empty(32, 64, *[kernel] * dims, dtype=dtype, device="cuda"))
        convolve = F.conv2d if dims == 2 else F.conv3d
        return convolve(made[0], made[1], padding=kernel // 2)

    return run


@pytest.mark.parametrize(
    ("card", "dtype", "kernel", "dims", "extra"),
    [
        (ADA, torch.float16, 3, 2, (64 + 32) * 64 * 64 * 2),
        (ADA, torch.bfloat16, 3, 3, (64 + 32) * 64**3 * 2),
        (ADA, torch.float32, 3, 2, (64 + 32) * 64 * 64 * 4),
        (ADA, torch.float16, 1, 2, 0),
        (PASCAL, torch.float16, 3, 2, (64 + 32) * 64 * 64 * 4 + 64 * 32 * 9 * 4),
        (PASCAL, torch.float32, 3, 2, 0),
    ],
)
def test_convolutions_hold_their_transposed_copies(
    card: VirtualCard, dtype: torch.dtype, kernel: int, dims: int, extra: int
) -> None:
    assert rise(card, convolved(dtype, kernel, dims)) == extra


def test_nothing_is_held_for_other_operations() -> None:
    assert workspace_requests(torch.ops.aten.relu.default, [torch.empty(4)], [], ADA) == ()


def test_a_second_rule_for_the_same_operator_is_refused() -> None:
    rules.load_all()
    with pytest.raises(ValueError, match="has a rule already"):
        rules.rule(torch.ops.aten.sort.default)(lambda call: None)
    with pytest.raises(ValueError, match="has a workspace rule already"):
        workspace(torch.ops.aten.convolution.default)(lambda inputs, outputs, card: ())
    with pytest.raises(ValueError, match="has a handler already"):
        rules.function(torch.softmax)(lambda func, args, kwargs: None)
    with pytest.raises(TypeError, match="operator overload"):
        rules.rule(torch.sort)(lambda call: None)


def test_rms_norm_that_must_be_differentiated_is_not_fused() -> None:
    with virtual_gpu(ADA, replay=False):
        x = torch.empty(1, 4096, 3072, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        out = F.rms_norm(x, (3072,), eps=1e-6)
        assert out.requires_grad
        with torch.no_grad():
            assert not F.rms_norm(x, (3072,), eps=1e-6).requires_grad


def test_small_values_stay_true() -> None:
    with virtual_gpu(ADA, replay=False), torch.no_grad():
        x = torch.tensor([[3.0, 1.0, 2.0]], device="cuda")
        values, order = torch.sort(x)
        assert values.tolist() == [[1.0, 2.0, 3.0]]
        assert order.tolist() == [[1, 2, 0]]
        assert torch.cumsum(x > 1.5, -1).tolist() == [[1, 1, 2]]
        half = x.half().softmax(-1, dtype=torch.float32)
        assert half.dtype == torch.float32
        assert abs(half.sum().item() - 1.0) < 1e-6
        assert F.rms_norm(x, (3,)).shape == (1, 3)


def test_an_operation_without_any_rule_is_named() -> None:
    library = torch.library.Library("oomdoctor_tests", "FRAGMENT")
    library.define("mystery(Tensor x) -> Tensor")
    with virtual_gpu(ADA, replay=False):
        x = torch.empty(4096, 4096, device="cuda")
        with pytest.raises((UnknownOperation, NotImplementedError), match="mystery"):
            torch.ops.oomdoctor_tests.mystery(x)


@pytest.mark.parametrize(
    ("backend", "kernel_bytes"),
    [("FLASH_ATTENTION", 24 * 4096 * 4 + 1024), ("EFFICIENT_ATTENTION", 0), ("CUDNN_ATTENTION", 0)],
)
def test_attention_as_the_script_asks_for_it(backend: str, kernel_bytes: int) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    made: list[torch.Tensor] = []

    def run() -> torch.Tensor:
        if not made:
            made.append(torch.empty(1, 24, 4096, 128, dtype=torch.bfloat16, device="cuda"))
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return F.scaled_dot_product_attention(made[0], made[0], made[0])

    assert rise(ADA, run) == kernel_bytes


def test_attention_without_a_kernel_fails_as_in_pytorch() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with virtual_gpu(PASCAL, replay=False), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        q = torch.empty(1, 24, 1024, 128, dtype=torch.float16, device="cuda")
        with pytest.raises(RuntimeError, match="No available kernel. Aborting execution."):
            F.scaled_dot_product_attention(q, q, q)
