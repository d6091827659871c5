"""Tiny GGUF files, as converters write them: matrices in one of several types, everything else in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

TYPES = ("Q8_0", "Q4_0", "Q5_1", "Q6_K", "Q4_K", "BF16", "F16")
"""Taken in turn, so that a file is mixed, as real ones are."""


def write(file: Path, tensors: dict[str, Any]) -> None:
    """A GGUF file with the names and shapes of ``tensors``; the packed values are arbitrary bytes."""
    writer = gguf.GGUFWriter(str(file), "tiny")
    rng = np.random.default_rng(0)
    turn = 0
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType.F32
        if tensor.dim() == 2:
            block, size = 1, 4
            while True:
                kind = gguf.GGMLQuantizationType[TYPES[turn % len(TYPES)]]
                block, size = gguf.GGML_QUANT_SIZES[kind]
                turn += 1
                if tensor.shape[1] % block == 0:
                    break
            row = tensor.shape[1] // block * size
            raw = rng.integers(0, 255, (tensor.shape[0], row), dtype=np.uint8)
            writer.add_tensor(name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor.float().numpy(), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
