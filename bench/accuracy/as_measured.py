"""What libraries did when a row was measured and do no longer: lines that make today's do it again, for that row.

Published rows are years old, the libraries of a virtual run are today's. Where a change of theirs moves the peak and its
source is known, the row's script carries the old behaviour, so that the virtual card is judged and not the versions.
Each entry says what changed and where that can be read; ``python bench/accuracy`` prints how many rows carry which.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_COG = """
from diffusers.models.autoencoders import autoencoder_kl_cogvideox as _cog
def _with_past(self, inputs):
    past = self.__dict__.get('_past')
    before = [past] if past is not None else [inputs[:, :, :1]] * (self.time_kernel_size - 1)
    return torch.cat(before + [inputs], dim=2)
def _causal(self, inputs, conv_cache=None):
    if self.time_kernel_size > 1:
        inputs = _with_past(self, inputs)
    self._past = None
    self._past = inputs[:, :, 1 - self.time_kernel_size:].clone()
    inputs = torch.nn.functional.pad(inputs, (self.width_pad, self.width_pad, self.height_pad, self.height_pad))
    self.conv.padding = (0, 0, 0)
    return self.conv(inputs), None
_cog.CogVideoXCausalConv3d.forward = _causal
def _dropping(original):
    def run(self, *args, **kwargs):
        out = original(self, *args, **kwargs)
        for module in self.modules():
            module.__dict__.pop('_past', None)
        return out
    return run
for _name in ('_decode', '_encode'):
    setattr(_cog.AutoencoderKLCogVideoX, _name, _dropping(getattr(_cog.AutoencoderKLCogVideoX, _name)))
"""

_COG_TILES = """
def _starting(original):
    def run(self, *args, conv_cache=None, **kwargs):
        if conv_cache is None:
            for module in self.modules():
                module.__dict__.pop('_past', None)
        return original(self, *args, conv_cache=conv_cache, **kwargs)
    return run
for _part in (_cog.CogVideoXEncoder3D, _cog.CogVideoXDecoder3D):
    _part.forward = _starting(_part.forward)
"""

_INT8_STAYS = """
import diffusers.pipelines.pipeline_utils as _pipelines
from packaging import version as _version
_pipelines.is_bitsandbytes_version = lambda operation, version: (
    operation[0] == '<' and _version.parse('0.45.0') < _version.parse(version))
"""

_T5_WO = """
import transformers as _transformers
_transformers.T5EncoderModel._keep_in_fp32_modules_strict = {'wo'}
"""


@dataclass(frozen=True)
class Change:
    """One change of a library. ``lines`` go before the row's script, ``then`` after its pipeline is loaded."""

    name: str
    source: str
    applies: Callable[[dict[str, Any]], bool]
    lines: str = ""
    then: str = ""


def _cogvideo(row: dict[str, Any]) -> bool:
    return "CogVideoX" in row["model"]


def _bitsandbytes(row: dict[str, Any], kind: str = "") -> bool:
    return bool(re.search(r"\bbnb\b|bitsandbytes", row["technique"].lower())) and kind in row["technique"].lower()


CHANGES = (
    Change(
        "CogVideoX convolution caches",
        "diffusers 0.30.3, autoencoder_kl_cogvideox.py: each causal convolution kept its own past frames, dropped the old "
        "ones before making the new, and padded by a copy; since 0.32 caches are handed from chunk to chunk, so two "
        "generations are alive",
        _cogvideo, _COG,
    ),
    Change(
        "CogVideoX convolution caches, tile by tile",
        "the same: the past frames of a tile were dropped when it was done",
        lambda row: _cogvideo(row) and "tiling" in row["technique"].lower(), _COG_TILES,
    ),
    Change(
        "bitsandbytes int8 stays on the card",
        "diffusers pipeline_utils.py: with bitsandbytes before 0.48 enable_model_cpu_offload sets no hook on a model that "
        "is loaded in 8 bit; the rows are of 2025-01 to 2025-05 (bitsandbytes 0.45)",
        lambda row: _bitsandbytes(row, "int8") and "offload" in row["technique"].lower(), _INT8_STAYS,
    ),
    Change(
        "T5 keeps `wo` in float32 when it is quantised",
        "transformers 4, quantizer_bnb_4bit.py and _8bit.py: use_keep_in_fp32_modules; transformers 5 keeps it for fp16 only",
        lambda row: _bitsandbytes(row) and ("t5" in row["technique"].lower() or row["id"].startswith("battaglia")), _T5_WO,
    ),
    Change(
        "T5 wholly in half precision",
        "torchao's CogVideoX benchmark: weights of the fp16 runs take what those of the bf16 runs take (value_load), so `wo`"
        " was not kept in float32",
        lambda row: row["id"].startswith("torchao-cogx") and row["dtype"] == "fp16",
        then="pipe.text_encoder.to(torch.float16)",
    ),
    Change(
        "no safety checker",
        "onediff benchmarks/text_to_image.py: pipe.safety_checker = None",
        lambda row: row["id"].startswith("onediff") and row["model"] == "SD1.5", then="pipe.safety_checker = None",
    ),
)  # fmt: skip


def changes_of(row: dict[str, Any]) -> list[Change]:
    """The changes that a row's script takes back."""
    return [change for change in CHANGES if change.applies(row)]
