"""Arrays that nobody will look at: one element seen through zero strides, and arithmetic that keeps them so.

A finished video of 129 frames is 1.4 GB of float32; scaling, rounding and stacking zeros of that size for real would
cost more time and memory than the whole virtual run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

LARGE = 1 << 20
"""Blank arrays from this many bytes on become virtual tensors; smaller ones are made for real."""


class Blank(np.ndarray):
    """An array of one value. Whatever is not listed here treats it as the ordinary array it is."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Blank) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) if isinstance(x, Blank) else x for x in out)
        elif method == "__call__" and ufunc.signature is None and "where" not in options and all(map(_one, inputs)):
            shape = np.broadcast_shapes(*map(np.shape, inputs))
            result = ufunc(*map(_element, plain), **options)
            if isinstance(result, tuple):
                return tuple(blank(r, shape) for r in result)
            return blank(result, shape)
        result = getattr(ufunc, method)(*plain, **options)
        return out[0] if out is not None and len(out) == 1 else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in (np.stack, np.concatenate) and args and isinstance(args[0], (list, tuple)):
            axis = args[1] if len(args) > 1 else kwargs.get("axis", 0)
            parts = args[0]
            joined = axis is not None and len(args) <= 2 and kwargs.keys() <= {"axis"}
            if joined and parts and all(isinstance(p, Blank) and is_blank(p) for p in parts):
                shape = _shape_of(func, [p.shape for p in parts], axis)
                if shape is not None:
                    return blank(np.zeros((), np.result_type(*(p.dtype for p in parts))), shape)
        return super().__array_function__(func, types, args, kwargs)

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """The same value in another type; always a new array, as far as anybody can tell."""
        if not is_blank(self):
            return self.view(np.ndarray).astype(dtype, *args, **options)
        return blank(_element(self.view(np.ndarray)).astype(dtype), self.shape)

    def round(self, decimals: Any = 0, out: Any = None) -> Any:
        if out is not None or not is_blank(self):
            return self.view(np.ndarray).round(decimals, out)
        return blank(_element(self.view(np.ndarray)).round(decimals), self.shape)


def blank(element: Any, shape: tuple[int, ...]) -> Any:
    """An array of ``shape`` that shows ``element`` everywhere."""
    base = np.array(element).reshape(())
    return np.lib.stride_tricks.as_strided(base, shape, (0,) * len(shape)).view(Blank)


def is_blank(array: Any) -> bool:
    """Whether it is one element in memory. A reshaped or indexed one may have become ordinary."""
    return all(stride == 0 or n <= 1 for n, stride in zip(array.shape, array.strides, strict=True)) and array.size > 0


def as_tensor(array: Any) -> Any:
    """The virtual tensor of a large blank array; None for any other."""
    if not isinstance(array, Blank) or array.nbytes < LARGE or not is_blank(array):
        return None
    from oomdoctor.vgpu.tensor import empty_virtual

    dtype = torch.tensor(np.zeros(1, array.dtype)).dtype
    return empty_virtual(array.shape, dtype)


def wrap_from_numpy(original: Any) -> Any:
    """``torch.from_numpy`` that does not make a blank array real. C++ reads arrays without asking any mode."""

    def from_numpy(array: Any) -> Any:
        virtual = as_tensor(array)
        return original(array) if virtual is None else virtual

    return from_numpy


def _one(x: Any) -> bool:
    return is_blank(x) if isinstance(x, Blank) else np.size(x) == 1


def _element(x: Any) -> Any:
    return x[(0,) * x.ndim] if isinstance(x, np.ndarray) else x


def _shape_of(func: Any, shapes: Sequence[tuple[int, ...]], axis: int) -> tuple[int, ...] | None:
    """The shape of parts joined along ``axis``; None when they do not fit (numpy shall say so)."""
    first = list(shapes[0])
    ndim = len(first) + (func is np.stack)
    if not -ndim <= axis < ndim:
        return None
    axis %= ndim
    if func is np.stack:
        if any(s != shapes[0] for s in shapes):
            return None
        return (*first[:axis], len(shapes), *first[axis:])
    if any(len(s) != ndim or (*s[:axis], *s[axis + 1 :]) != (*first[:axis], *first[axis + 1 :]) for s in shapes):
        return None
    return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])
