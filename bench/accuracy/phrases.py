"""How published rows word their techniques -> the lines of a script that do the same.

One row of :data:`PHRASES` per wording. A phrase that no row matches makes the published row unexpressed, with the
phrase as the reason; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass
class Recipe:
    """What a row's techniques come to."""

    placement: str = "resident"
    """``resident``, ``model``, ``sequential`` or ``group``; group offloading is in ``lines``."""
    lines: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    """Lines before the pipeline goes to the card."""
    options: list[str] = field(default_factory=list)
    """Arguments of ``from_pretrained``."""
    call: list[str] = field(default_factory=list)
    """Arguments of the call."""
    quantised: dict[str, str] = field(default_factory=dict)
    """Component -> expression of its quantisation config, for loading."""
    imports: list[str] = field(default_factory=list)
    families: set[str] = field(default_factory=set)


class Unexpressed(Exception):
    """Why a row cannot be run here."""


_TORCHAO = {
    "int8wo": "Int8WeightOnlyConfig()",
    "int8dq": "Int8DynamicActivationInt8WeightConfig()",
    "int4wo": "Int4WeightOnlyConfig()",
    "fp8wo": "Float8WeightOnlyConfig()",
    "fp8dq": "Float8DynamicActivationFloat8WeightConfig()",
    "fp8dqrow": "Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())",
}
_NF4 = 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)'
_INT8 = "BitsAndBytesConfig(load_in_8bit=True)"


def _resident(r: Recipe, m: re.Match[str]) -> None:
    r.families.add("resident")


def _offload(r: Recipe, m: re.Match[str]) -> None:
    r.placement = "sequential" if "sequential" in m[0] else "model"
    r.families.add(f"{r.placement} offload")


def _line(line: str, family: str) -> object:
    def apply(r: Recipe, m: re.Match[str]) -> None:
        r.lines.append(line)
        r.families.add(family)

    return apply


def _group(r: Recipe, m: re.Match[str]) -> None:
    words = m[0]
    if "transformer" in words:
        raise Unexpressed("group offload of one component, the others' place is not stated")
    options = ['onload_device=torch.device("cuda")', f'offload_type="{"leaf" if "leaf" in words else "block"}_level"']
    stream = "stream" in words and "no stream" not in words
    if "block" in words:
        blocks = re.search(r"num_blocks_per_group=(\d+)", words)
        options.append(f"num_blocks_per_group={blocks[1] if blocks else 1}")
    if stream:
        options.append("use_stream=True")
    if "record_stream" in words:
        options.append("record_stream=True")
    if "low_cpu_mem" in words:
        options.append("low_cpu_mem_usage=True")
    if "disk" in words:
        options.append('offload_to_disk_path="offload"')
    r.placement = "group"
    r.lines.append(f"pipe.enable_group_offload({', '.join(options)})")
    r.families.add("group offload")


def _torchao(r: Recipe, m: re.Match[str]) -> None:
    config = _TORCHAO.get(m["kind"])
    if config is None:
        raise Unexpressed(f"torchao no longer has {m['kind']}")
    name = config.split("(")[0]
    r.imports.append(f"from torchao.quantization import quantize_, {name}" + (", PerRow" if "PerRow" in config else ""))
    for part in ("text_encoder", "transformer", "vae"):
        asked = m["parts"].lower()
        if part == "text_encoder" and "text_encoder" not in asked or part == "vae" and not re.search(r"and vae", asked):
            continue
        r.lines.append(f"quantize_(pipe.{part}, {config})")
    r.families.add("torchao")


def _bnb(r: Recipe, m: re.Match[str]) -> None:
    config = _NF4 if "nf4" in m[0] or "4-bit" in m[0] or "4bit" in m[0] else _INT8
    r.quantised["transformer"] = config
    if "t5" in m[0]:
        r.quantised["text_encoder_2"] = config
    r.families.add("bitsandbytes")


def _te4(r: Recipe, m: re.Match[str]) -> None:
    r.quantised["text_encoder"] = _NF4
    r.families.add("bitsandbytes")


def _gguf(r: Recipe, m: re.Match[str]) -> None:
    r.quantised["transformer"] = f"gguf:{m['type'].upper()}"
    r.families.add("gguf")


def _casting(r: Recipe, m: re.Match[str]) -> None:
    kind = "float8_e5m2" if "e5m2" in m[0] else "float8_e4m3fn"
    r.early.append(f"pipe.transformer.enable_layerwise_casting(storage_dtype=torch.{kind}, compute_dtype=DTYPE)")
    r.families.add("layerwise casting")


def _fused(r: Recipe, m: re.Match[str]) -> None:
    """Before anything is quantised, as torchao's benchmark does it."""
    r.early.append("pipe.transformer.fuse_qkv_projections()")
    r.families.add("fused QKV")


def _no_t5(r: Recipe, m: re.Match[str]) -> None:
    r.options += ["text_encoder_3=None", "tokenizer_3=None"]
    r.families.add("text encoder left out")


def _latents(r: Recipe, m: re.Match[str]) -> None:
    r.call.append("output_type='latent'")
    r.families.add("latents out")


PHRASES = (
    (r"(plain )?\.to\(cuda\)( fp16| no quantisation| plain pytorch)?|none|sdpa|fp16|default attention( processor)?", _resident),
    (r"flux\.1-dev bf16 eager|no tiling|same|fp16, default attention|no slicing, default attnprocessor", _resident),
    (r"(bf16 )?(enable_)?(model|sequential)(_cpu_offload)?", _offload),
    (r"vae tiling", _line("pipe.vae.enable_tiling()", "vae tiling")),
    (r"vae slicing", _line("pipe.vae.enable_slicing()", "vae slicing")),
    (r"attention slicing", _line("pipe.enable_attention_slicing()", "attention slicing")),
    (r"fuse_qkv_projections|fused qkv", _fused),
    (r"no t5", _no_t5),
    (r"output latents \(no vae decode\)", _latents),
    (r"torch\.compile\(transformer,.*\)", _line('pipe.transformer.compile(mode="max-autotune", fullgraph=True)', "compile")),
    (r"compile_repeated_blocks", _line("pipe.transformer.compile_repeated_blocks(fullgraph=True)", "compile")),
    (r"torchao (?P<kind>\w+) on (?P<parts>.*)", _torchao),
    (r"(?P<kind>int8wo) (?P<parts>te\+transformer\+vae|all)", lambda r, m: _torchao(
        r, re.match(r"(?P<kind>\w+) (?P<parts>.*)", "int8wo text_encoder transformer and vae") or m)),
    (r"(pipe\.)?(enable_)?group[_ ]offload.*|leaf_level use_stream.*", _group),
    (r"bnb (nf4|int8)( transformer)?( ?\+ ?t5)?|bnb (nf4|int8) transformer\+t5", _bnb),
    (r"bnb 4bit te|4-bit te", _te4),
    (r"(transformer )?gguf (?P<type>q\d\w*)( transformer only \(t5 bf16\)| \(compute bf16\))?", _gguf),
    (r"(fp8 )?layerwise( upcasting| casting)?( fp8| fp8_e5m2| fp8_e4m3)?( transformer)?", _casting),
)  # fmt: skip


def recipe(technique: str) -> Recipe:
    """Read one row's techniques. Raises :class:`Unexpressed`."""
    out = Recipe()
    for phrase in _split(technique):
        for pattern, apply in PHRASES:
            found = re.fullmatch(pattern, phrase)
            if found:
                apply(out, found)  # type: ignore[operator]
                break
        else:
            raise Unexpressed(f"not expressed: {phrase}")
    return out


def _split(technique: str) -> list[str]:
    text = technique.lower().strip()
    kept = re.sub(r"transformer ?\+ ?t5", "transformer+t5", text)
    kept = re.sub(r", (no t5|output latents.*)$", r"; \1", kept)
    parts: list[str] = []
    depth = 0
    start = 0
    for i, c in enumerate(kept):
        depth += (c == "(") - (c == ")")
        joined = c == "+" and depth == 0 and kept[i - 1] == " " and kept[i + 1 : i + 2] == " "
        inside = joined and " on " in kept[start:i]
        if (c == ";" and depth == 0) or (joined and not inside):
            parts.append(kept[start:i])
            start = i + 1
    parts.append(kept[start:])
    return [p.strip() for p in parts if p.strip()]
