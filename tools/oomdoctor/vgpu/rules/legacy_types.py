"""``torch.cuda.FloatTensor`` and ``x.type("torch.cuda.HalfTensor")``: the names from before dtypes and devices."""

from __future__ import annotations

from typing import Any

import torch

from oomdoctor.vgpu.rules import function
from oomdoctor.vgpu.tensor import VirtualTensor

NAMES = {
    "FloatTensor": torch.float32, "DoubleTensor": torch.float64, "HalfTensor": torch.float16,
    "BFloat16Tensor": torch.bfloat16, "ByteTensor": torch.uint8, "CharTensor": torch.int8, "ShortTensor": torch.int16,
    "IntTensor": torch.int32, "LongTensor": torch.int64, "BoolTensor": torch.bool,
}  # fmt: skip
_OF = {dtype: name for name, dtype in NAMES.items()}


class _Kind(type):
    dtype: torch.dtype

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, torch.Tensor) and x.device.type == "cuda" and x.dtype == cls.dtype

    def __call__(cls, *args: Any) -> Any:
        """Sizes give memory, a sequence or a tensor gives its values."""
        if args and not isinstance(args[0], int):
            return torch.as_tensor(args[0]).to("cuda", cls.dtype)
        return torch.empty(*(args or (0,)), dtype=cls.dtype, device="cuda")


def kinds() -> dict[str, type]:
    """Name in ``torch.cuda`` -> what stands there."""
    return {name: _Kind(name, (), {"dtype": dtype, "__module__": "torch.cuda"}) for name, dtype in NAMES.items()}


@function(torch.Tensor.type)
def as_type(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``x.type()`` names, ``x.type(t)`` converts; a type of the CPU moves the tensor there."""
    from oomdoctor.vgpu.modes import FunctionMode

    source = args[0]
    wanted = args[1] if len(args) > 1 else kwargs.get("dtype")
    place, name = _read(wanted)
    if not isinstance(source, VirtualTensor) and place != "cuda":
        return NotImplemented
    if wanted is None:
        home = "torch.cuda" if source.device.type == "cuda" else "torch"
        return f"{home}.{_OF.get(source.dtype, 'Tensor')}"
    if not isinstance(wanted, torch.dtype) and name not in NAMES:
        raise ValueError(f"invalid type: '{wanted}'")
    with FunctionMode():  # within a handler no mode is on
        return source.to(wanted) if isinstance(wanted, torch.dtype) else source.to(place, NAMES[name])


def _read(wanted: Any) -> tuple[str, str]:
    """(``cuda`` or ``cpu``, name) of a type given as a string or class."""
    if isinstance(wanted, _Kind):
        return "cuda", wanted.__name__
    text = (
        wanted if isinstance(wanted, str) else f"{getattr(wanted, '__module__', '')}.{getattr(wanted, '__name__', '')}"
    )
    return ("cuda" if text.startswith("torch.cuda.") else "cpu"), text.rsplit(".", 1)[-1]
