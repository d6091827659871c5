"""Memory that kernels take beyond inputs and outputs, by operation. Sizes in bytes, sources beside each rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from oomdoctor.vgpu import convolution
from oomdoctor.vgpu.card import VirtualCard

aten = torch.ops.aten

WorkspaceRule = Callable[[list[torch.Tensor], list[Any], VirtualCard], tuple[int, ...]]
_rules: dict[Any, WorkspaceRule] = {}


def workspace(*targets: Any) -> Callable[[WorkspaceRule], WorkspaceRule]:
    """Register ``fn(inputs, output_specs, card) -> requests in bytes, held together`` for operator overloads."""

    def register(fn: WorkspaceRule) -> WorkspaceRule:
        for target in targets:
            if target in _rules:
                raise ValueError(f"{target} has a workspace rule already")
            _rules[target] = fn
        return fn

    return register


def workspace_requests(func: Any, inputs: list[torch.Tensor], outputs: list[Any], card: VirtualCard) -> tuple[int, ...]:
    """Requests in bytes, in their order; none for operations without a rule."""
    fn = _rules.get(func)
    return fn(inputs, outputs, card) if fn is not None else ()


@workspace(aten.convolution.default, aten.cudnn_convolution.default, aten._convolution.default)
def convolution_workspace(inputs: list[torch.Tensor], outputs: list[Any], card: VirtualCard) -> tuple[int, ...]:
    """What cuDNN holds while a convolution runs; the table and its sources are in :mod:`~oomdoctor.vgpu.convolution`."""
    found = convolution.describe(inputs, outputs, card)
    return convolution.held(found, card, str(inputs[0].dtype).removeprefix("torch."))
