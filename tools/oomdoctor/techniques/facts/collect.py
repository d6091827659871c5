"""Reads from the installed diffusers what the techniques need to know about its classes; prints it as JSON.

``python -m oomdoctor.techniques.facts.collect > tools/oomdoctor/techniques/facts/diffusers.json``

Nothing is instantiated and nothing is downloaded: signatures, class attributes and the source of a few methods.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from typing import Any

_MODEL = re.compile(r"\b[A-Z]\w+\b")
_NOT_MODELS = re.compile(
    r"Tokenizer|Scheduler|Processor|FeatureExtractor|Guidance|\bUnion\b|\bOptional\b|\bList\b|\bNone\b"
)
_ARGUMENT = re.compile(
    r"embeds|mask|prompt|height|width|num_|output_type|generator|latents|image|video|decode_chunk|max_seq|length"
)
_UPCASTS_PICTURES = re.compile(
    r"if self\.vae\.config\.force_upcast:\n(?:.*\n){0,2}?\s+self\.vae\.to\(dtype=torch\.float32\)"
)
_NESTED = re.compile(r"\b(\w+) = nn\.ModuleList\((?:.*\n)+?.*self\.\w+\.append\(\1\)")
_WEIGHTS = re.compile(r"Linear|FeedForward|M(LP|lp)|Att(ention|n)")
_REFUSES_BOTH = "if negative_prompt is not None and negative_prompt_embeds is not None:"
_READS_DTYPE = re.compile(r"next\(self\.(\w+)\.parameters\(\)\)\.dtype")
_CHUNKING = ("UNet3DConditionModel", "UNetMotionModel", "UNetSpatioTemporalConditionModel", "SD3Transformer2DModel")


def collect() -> dict[str, Any]:
    """Facts of every pipeline, model and VAE class that the installed diffusers exports."""
    import diffusers
    from diffusers import DiffusionPipeline, ModelMixin

    pipelines, models = {}, {}
    for name in sorted(dir(diffusers)):
        try:
            found = getattr(diffusers, name)
        except (
            AttributeError,
            ImportError,
            RuntimeError,
        ) as why:  # an optional dependency is missing, or the class is gone: say so and go on
            print(f"{name}: {why}", file=sys.stderr)
            continue
        if not inspect.isclass(found) or not found.__module__.startswith("diffusers."):
            continue
        if issubclass(found, DiffusionPipeline) and found is not DiffusionPipeline:
            pipelines[name] = _pipeline(found)
        elif issubclass(found, ModelMixin):
            models[name] = _model(found)
    return {"diffusers": diffusers.__version__, "pipelines": pipelines, "models": models}


def _pipeline(cls: Any) -> dict[str, Any]:
    components = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        text = str(parameter.annotation)
        classes = [c for c in _MODEL.findall(text.replace("'", " ")) if not _NOT_MODELS.search(c)]
        if classes and not name.startswith("requires_"):
            components[name] = sorted(set(classes))
    for name, made in re.findall(r"\b(\w+) = ([A-Z]\w+)\.from_\w+2d\(\1\b", inspect.getsource(cls.__init__)):
        components[name] = [made]  # it is converted, whichever was handed in
    facts: dict[str, Any] = {
        "components": components,
        "offload_sequence": (cls.model_cpu_offload_seq or "").split("->") if cls.model_cpu_offload_seq else [],
        "call": [p for p in inspect.signature(cls.__call__).parameters if _ARGUMENT.search(p)],
    }
    first = next((name for name in _registered(cls) if name in components), None)
    if first is not None:
        facts["first"] = first
    optional = [name for name in getattr(cls, "_optional_components", []) if name in components]
    if optional:
        facts["optional"] = optional
    if hasattr(cls, "encode_prompt"):
        facts["encode_prompt"] = list(inspect.signature(cls.encode_prompt).parameters)[1:]
        facts["encode_prompt_required"] = [
            name
            for name, parameter in inspect.signature(cls.encode_prompt).parameters.items()
            if name != "self" and parameter.default is inspect.Parameter.empty
        ]
        facts["encode_prompt_returns"] = _returned_names(cls.encode_prompt)
        if again := _encodes_again(cls):
            facts["encodes_again"] = again
        if "not self.config.is_distilled" in inspect.getsource(cls):
            facts["distilled_unguided"] = True
    if hasattr(cls, "fuse_qkv_projections"):
        facts["fuse_qkv"] = True
    if not hasattr(cls, "load_lora_weights"):
        facts["lora"] = False
    source = inspect.getsource(sys.modules[cls.__module__])
    if "force_upcast" in source:
        facts["upcasts_vae"] = True
    if _UPCASTS_PICTURES.search(source):
        facts["upcasts_pictures"] = True
    default = inspect.signature(cls.__call__).parameters.get("negative_prompt")
    if default is not None and isinstance(default.default, str) and _REFUSES_BOTH in source:
        facts["negative_prompt_filled"] = True
    if reads := sorted(set(_READS_DTYPE.findall(source)) & set(components)):
        facts["reads_dtype"] = reads
    if "cache_context(" in source:
        facts["cache_context"] = True
    if hasattr(cls, "current_timestep"):
        facts["current_timestep"] = True
    return facts


def _registered(cls: Any) -> list[str]:
    """Components in the order in which ``__init__`` registers them."""
    try:
        tree = ast.parse("class _:\n" + inspect.getsource(cls.__init__))
    except (OSError, TypeError, SyntaxError):  # no `__init__` of its own in Python
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.register_modules":
            return [k.arg for k in node.keywords if k.arg is not None]
    return []


def _returned_names(method: Any) -> list[str]:
    """Names in the last ``return a, b`` of a method; empty when it returns something else."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            names = [e.id for e in node.value.elts if isinstance(e, ast.Name)]
            names = names if len(names) == len(node.value.elts) else []
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
            names = [node.value.id]
    return names


def _encodes_again(cls: Any) -> str | None:
    """When the call encodes a second prompt that it was not given: always, or with guidance."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__call__)))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "self.encode_prompt"]
    found = None
    for call in sorted(calls, key=lambda n: n.lineno)[1:]:
        tests, node = "", parents.get(call)
        while node is not None:
            tests += ast.unparse(node.test) if isinstance(node, ast.If) else ""
            node = parents.get(node)
        if "do_true_cfg" not in tests:  # which holds only where a negative prompt is given
            found = "guidance" if "guidance" in tests and found != "always" else "always"
    return found


def _model(cls: Any) -> dict[str, Any]:
    source = inspect.getsource(cls)
    facts: dict[str, Any] = {
        "repeated_blocks": bool(getattr(cls, "_repeated_blocks", None)),
        "group_offload": bool(getattr(cls, "_supports_group_offloading", True)),
        "blocks": sorted(set(re.findall(r"self\.(\w+) = nn\.ModuleList\(", source))),
    }
    if _NESTED.search(source):
        facts["nested"] = True
    if _repeats_layers(cls):
        facts["repeats_layers"] = True
    if any(base.__name__ == "CacheMixin" for base in cls.__mro__):
        facts["cache"] = True
        if _first_block(cls):
            facts["first_block"] = True
    if getattr(cls, "_cp_plan", None) is not None:
        facts["context_parallel"] = True
    if getattr(cls, "_no_split_modules", None) is not None:
        facts["spreads"] = True
    if hasattr(cls, "from_single_file"):
        facts["single_file"] = True
    if hasattr(cls, "fuse_qkv_projections"):
        facts["fuse_qkv"] = True
    if cls.__name__ in _CHUNKING and hasattr(cls, "enable_forward_chunking"):
        facts["forward_chunking"] = True
    if hasattr(cls, "decode") and hasattr(cls, "enable_tiling"):
        facts["vae"] = _vae(cls, source)
    return facts


def _repeats_layers(cls: Any) -> bool:
    """A block of its module sends two things, one after the other, through the same layers with weights."""
    for node in ast.parse(inspect.getsource(sys.modules[cls.__module__])).body:
        if not isinstance(node, ast.ClassDef) or "Block" not in node.name:
            continue
        weights = {
            f"self.{target.attr}"
            for made in ast.walk(node)
            if isinstance(made, ast.Assign) and isinstance(made.value, ast.Call)
            for target in made.targets
            if isinstance(target, ast.Attribute) and _WEIGHTS.search(ast.unparse(made.value.func))
        }
        forward = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "forward"), None)
        rows = [row.value for row in forward.body if isinstance(row, ast.Assign | ast.Return)] if forward else []
        calls = [ast.unparse(row.func) for row in rows if isinstance(row, ast.Call)]
        if any(calls.count(name) > 1 for name in weights):
            return True
    return False


def _first_block(cls: Any) -> bool:
    """FirstBlockCache knows the class of every block, and either all of them return text beside pictures or none."""
    from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS
    from diffusers.hooks._helpers import TransformerBlockRegistry

    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))
    texts = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        if node.targets[0].attr not in _ALL_TRANSFORMER_BLOCK_IDENTIFIERS or "ModuleList(" not in ast.unparse(node):
            continue
        for made in re.findall(r"\b[A-Z]\w+(?=\()", ast.unparse(node.value).removeprefix("nn.ModuleList")):
            try:
                known = TransformerBlockRegistry.get(getattr(sys.modules[cls.__module__], made, None))
            except ValueError:
                return False
            texts.add(known.return_encoder_hidden_states_index is None)
    return len(texts) == 1


def _vae(cls: Any, source: str) -> dict[str, Any]:
    """How the VAE tiles: the arguments of ``enable_tiling`` (empty: attributes), the side of a tile, and more."""
    tiles = "self.use_tiling" in source
    side = re.search(r"self\.tile_sample_min_height = (\d+)", source)
    facts: dict[str, Any] = {
        "tiling": tiles,
        "tiling_arguments": list(inspect.signature(cls.enable_tiling).parameters)[1:] if tiles else [],
        "tile": int(side.group(1)) if side and tiles else None,
        "tile_attributes": tiles and "tile_sample_min_size = self.config.sample_size" in source,
        "slicing": "self.use_slicing" in source,
        "block_decode": bool(getattr(cls, "_group_offload_block_modules", None)),
    }
    framewise = re.search(r"self\.use_framewise_decoding = (True|False)", source)
    if framewise:
        facts["framewise"] = framewise.group(1) == "True"
    return facts


def as_json(facts: dict[str, Any]) -> str:
    """One class per line, so that a new version of diffusers gives a diff that can be read."""
    parts = [f'"diffusers": {json.dumps(facts["diffusers"])}']
    for kind in ("models", "pipelines"):
        rows = ",\n".join(f" {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in sorted(facts[kind].items()))
        parts.append(f'"{kind}": {{\n{rows}\n}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(as_json(collect()))
