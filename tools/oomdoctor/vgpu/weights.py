"""What a module holds, and what diffusers' casting and the quantisers would do with it: the facts behind a measurement.

The rules are the libraries' own, by attributes that their models have: nothing of theirs is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

_CASTS = (
    torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d, torch.nn.Linear, torch.nn.Embedding,
)  # fmt: skip
"""diffusers ``hooks/_common.py``: the layers that layerwise casting converts, subclasses included."""
_NEVER_CAST = ("pos_embed", "patch_embed", "norm", r"^proj_in$", r"^proj_out$")
"""diffusers ``hooks/layerwise_casting.py``, DEFAULT_SKIP_MODULES_PATTERN."""


def held(tensor: Any) -> Iterator[Any]:
    """The plain tensors behind a parameter: itself, or what a quantised one keeps (elements, scales, zero points)."""
    if getattr(tensor, "_storage_handle", None) is None and hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from held(getattr(tensor, name))
        return
    yield tensor
    extras = getattr(tensor, "extras", None)
    if extras is not None:
        yield from extras()


def own_tensors(module: Any) -> list[Any]:
    """Weights and buffers that the module holds itself."""
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]


def nbytes(tensor: Any) -> int:
    """Bytes of a parameter or buffer with everything that it keeps."""
    return sum(t.numel() * t.element_size() for t in held(tensor))


def pinned_nbytes(tensor: Any) -> int:
    """Page-locked memory that a copy of it takes: each of its tensors by itself, rounded up to a power of two as
    PyTorch's host allocator does (bench/oracle holds ours against it)."""
    sizes = (t.numel() * t.element_size() for t in held(tensor))
    return sum(1 << (size - 1).bit_length() for size in sizes if size)


def is_packed(tensor: Any) -> bool:
    """Whether a parameter is quantised already."""
    if getattr(tensor, "extras", None) is not None:
        return True
    if hasattr(tensor, "__tensor_flatten__") and getattr(tensor, "_storage_handle", None) is None:
        return True
    return not tensor.is_floating_point()


def elements(module: Any, name: str) -> int:
    """Elements of a parameter: of a packed matrix those that are packed, of any other its own."""
    tensor = module._parameters[name]
    shape = getattr(tensor, "quant_shape", None)
    if shape is not None:  # GGUF packs what is no matrix of a linear layer, too
        return math.prod(shape)
    rows, columns = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if name == "weight" and is_packed(tensor) and isinstance(rows, int) and isinstance(columns, int):
        return rows * columns
    return int(tensor.numel())


def block_roles(root: Any) -> dict[str, str]:
    """Path -> what diffusers' block-level offloading makes of a module: ``list``, whose children move one by one, or
    ``part``, which moves when it runs, without the lists inside it.

    Lists are those right below the model, and right below the parts that the model names (VAEs: encoder, decoder).
    """
    named = frozenset(getattr(root, "_group_offload_block_modules", None) or ())
    roles: dict[str, str] = {}

    def look(module: Any, before: str) -> None:
        for name, child in module.named_children():
            if name in named:
                roles[before + name] = "part"
                look(child, f"{before}{name}.")
            elif isinstance(child, (torch.nn.ModuleList, torch.nn.Sequential)):
                roles[before + name] = "list"

    look(root, "")
    return roles


def casts(root: Any) -> Callable[[str, Any], bool]:
    """(path, module) -> whether layerwise casting converts it, for the modules of a model.

    ``enable_layerwise_casting`` of a diffusers model leaves out its default names, what the model keeps in fp32 and the
    model's own names; the function for other models the default names only. A name that matches any part of a path
    leaves out what lies below it too.
    """
    patterns = [*_NEVER_CAST]
    if hasattr(root, "enable_layerwise_casting"):
        patterns += getattr(root, "_keep_in_fp32_modules", None) or ()
        patterns += getattr(root, "_skip_layerwise_casting_patterns", None) or ()

    def casted(path: str, module: Any) -> bool:
        if not isinstance(module, _CASTS):
            return False
        parts = path.split(".")
        return not any(re.search(p, ".".join(parts[: i + 1])) for i in range(len(parts)) for p in patterns)

    return casted


def converts(root: Any) -> Callable[[str, Any], bool]:
    """(path, module) -> whether bitsandbytes' and torchao's quantisers of the model's library convert its weight.

    diffusers: every ``nn.Linear`` but those the model keeps in fp32. transformers leaves out besides what is tied, the
    output embeddings, the module of the last parameter, and subclasses (the projection inside ``MultiheadAttention``).
    """
    kept = list(getattr(root, "_keep_in_fp32_modules", None) or ())
    if not hasattr(root, "get_output_embeddings"):

        def of_diffusers(path: str, module: Any) -> bool:
            name = path.rpartition(".")[2]
            whole = name in kept or any(f"{key}." in path or key == path for key in kept)
            return isinstance(module, torch.nn.Linear) and not whole

        return of_diffusers
    kept += _heads(root)
    boundary = r"(?:(?<=\.)|(?=\.|$))"

    def of_transformers(path: str, module: Any) -> bool:
        left_out = any(re.match(rf"(?:{key}){boundary}", path) or path.endswith(key) for key in kept)
        return type(module) is torch.nn.Linear and not left_out

    return of_transformers


def _heads(root: Any) -> list[str]:
    """What transformers' ``get_keys_to_not_convert`` names."""
    tied = getattr(root, "all_tied_weights_keys", None) or {}
    names = {*tied, *tied.values()} if isinstance(tied, dict) else set()
    parameters = [name for name, _ in root.named_parameters()]
    names |= set(parameters[-1:])
    output = root.get_output_embeddings()
    names |= {path for path, module in root.named_modules() if output is not None and module is output}
    return sorted(name.removesuffix(".weight") for name in names)
