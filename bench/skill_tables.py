"""The tables of the skill and of the README, made from the code: techniques, options, parameters, support, tools.

    python bench/skill_tables.py            # lists what differs; exit status 1 when something does
    python bench/skill_tables.py --write    # puts it right

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Figures that take virtual runs stand in other
programs: ``compatibility.py`` and ``skill_figures.py``.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "server")]

from oomdoctor.models import catalogue as model_catalogue
from oomdoctor.techniques.catalogue import catalogue
from oomdoctor.techniques.facts import model_facts, pipeline_facts, recorded_version
from oomdoctor.units import gib
from recorded_tables import accuracy

SKILL = ROOT / "skill" / "diffusers-oom-doctor"
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
INSTALLED = ("attention-backends", "quant-backends", "group-offload-parameters", "casting-parameters", "compile-modes")
"""Tables that are read from the installed libraries, and so hold for the recorded version only."""


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; empty cells stay empty."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _unless(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{n}`" for n in names) or "nothing"


def techniques() -> str:
    """One row per technique."""
    rows = [
        [f"`{e.name}`", e.summary, e.quality, ", ".join(e.packages) or "", _unless(e.conflicts)]
        for e in catalogue()
        if e.name != "modern_api"
    ]
    return markdown(["technique", "what it does, what it costs", "picture", "needs", "not together with"], rows)


def technique_options() -> str:
    """What may stand in a technique's brackets."""
    rows = [
        [f"`{e.name}`", f"`{o.name}`" + ("" if o.kind in ("word", "component") else f" = {o.kind}"), o.summary]
        for e in catalogue()
        for o in e.options
    ]
    return markdown(["technique", "word or option", "meaning"], rows)


def clashes() -> str:
    """Which techniques exclude each other, one row per pair."""
    seen: dict[frozenset[str], None] = {}
    for e in catalogue():
        for other in e.conflicts:
            seen[frozenset((e.name, other))] = None
    grouped: dict[str, list[str]] = {}
    for pair in seen:
        one, other = sorted(pair)
        grouped.setdefault(one, []).append(other)
    return markdown(["technique", "never beside"], [[f"`{k}`", ", ".join(f"`{n}`" for n in sorted(v))]
                                                   for k, v in sorted(grouped.items())])  # fmt: skip


def vaes() -> str:
    """How each VAE class cuts its work."""
    import json

    names = json.loads((ROOT / "tools/oomdoctor/techniques/facts/diffusers.json").read_text("utf-8"))["models"]
    rows = []
    for name in sorted(names):
        facts = model_facts(name)
        vae = facts.vae if facts else None
        if facts is None or vae is None:
            continue
        if not vae.tiling:
            how = "raises or absent"
        elif vae.tiling_arguments:
            how = "arguments " + ", ".join(f"`{a}`" for a in vae.tiling_arguments)
        else:
            how = "no arguments" + (
                "; set `tile_sample_min_size`, `tile_latent_min_size`" if vae.tile_attributes else ""
            )
        tile = f"{vae.tile} px" if vae.tile else ("from the config" if vae.tiling else "")
        framewise = {None: "", True: "on", False: "off"}[vae.framewise]
        block = _yes(vae.block_decode) if facts.group_offload else "no group offload at all"
        rows.append([f"`{name}`", how, tile, _yes(vae.slicing), framewise, block])
    head = [
        "VAE class",
        "`enable_tiling`",
        "tile",
        "slicing",
        "`use_framewise_decoding`",
        "block level reaches `decode`",
    ]
    return markdown(head, rows)


def _denoisers() -> list[str]:
    """Classes that run the steps in the pipelines of the model catalogue."""
    found = set()
    for entry in model_catalogue().values():
        facts = pipeline_facts(entry["pipeline"]) if entry.get("pipeline") else None
        for name in facts.denoisers if facts else ():
            part = entry["components"].get(name)
            if part:
                found.add(part["class"].rpartition(".")[2])
    return sorted(found)


def denoisers() -> str:
    """What each denoiser supports."""
    rows = []
    for name in _denoisers():
        facts = model_facts(name)
        if facts is None:
            continue
        marks = (facts.repeated_blocks, facts.cache, facts.context_parallel, facts.fuse_qkv, facts.single_file)
        blocks = ", ".join(f"`{b}`" for b in facts.blocks) or "none"
        rows.append([f"`{name}`", *map(_yes, marks), blocks if facts.group_offload else "no group offload"])
    head = ["denoiser", "`compile_repeated_blocks`", "`enable_cache`", "context parallel", "`fuse_qkv_projections`",
            "single file / GGUF", "lists of blocks"]  # fmt: skip
    return markdown(head, rows)


def models() -> str:
    """What the pipelines of the catalogue weigh, component by component, at two bytes per weight."""
    rows = []
    for name, entry in sorted(model_catalogue().items(), key=lambda item: item[0].lower()):
        if not entry.get("pipeline"):
            continue
        halves = {k: facts["params"] * 2 for k, facts in entry["components"].items() if facts and "params" in facts}
        largest = max(halves, key=lambda k: halves[k])
        rows.append([f"`{name}`", gib(sum(halves.values())), f"{gib(halves[largest])} `{largest}`",
                     ", ".join(f"`{k}` {gib(v)}" for k, v in sorted(halves.items(), key=lambda i: -i[1])
                               if k != largest and v > 100 << 20)])  # fmt: skip
    return markdown(["model", "all", "largest component", "others over 0.1"], rows)


def attention_backends() -> str:
    """The names that ``set_attention_backend`` takes."""
    from diffusers.models.attention_dispatch import AttentionBackendName
    from oomdoctor.techniques import all_techniques

    explained = all_techniques()["attention_backend"].explains
    rows = []
    for member in AttentionBackendName:
        name = member.value
        rows.append([f"`{name}`", _backend_source(name), explained.get(name, "")])
    return markdown(["name", "comes from", "note"], rows)


def _backend_source(name: str) -> str:
    bare = name.lstrip("_")
    if name.endswith("_hub"):
        return "the Hub at run time, through package `kernels`"
    for start, source in (("native_npu", "torch_npu"), ("native_xla", "torch_xla"), ("native", "PyTorch itself"),
                          ("flex", "PyTorch itself (compiled)"), ("sage", "package `sageattention`"),
                          ("xformers", "package `xformers`"), ("flash_3", "package `flash_attn_3`"),
                          ("flash_varlen_3", "package `flash_attn_3`"), ("flash", "package `flash-attn`")):  # fmt: skip
        if bare.startswith(start):
            return source
    return ""


def quant_backends() -> str:
    """Which names ``PipelineQuantizationConfig(quant_backend=...)`` accepts: each one is tried."""
    from diffusers import PipelineQuantizationConfig
    from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    rows = []
    for name in AUTO_QUANTIZATION_CONFIG_MAPPING:
        kwargs = {"bitsandbytes_4bit": {"load_in_4bit": True}, "bitsandbytes_8bit": {"load_in_8bit": True}}
        try:
            PipelineQuantizationConfig(quant_backend=name, quant_kwargs=kwargs.get(name, {"bits": 4}))
        except ValueError as error:
            why = "signatures differ between the two libraries" if "signatures" in str(error) else "not in transformers"
            instead = "single files only" if name in ("gguf", "bfl") else "use `quant_mapping`"
            rows.append([f"`{name}`", "no", f"ValueError: {why}; {instead}"])
        else:
            rows.append([f"`{name}`", "yes", f"with `quant_kwargs={kwargs[name]}`" if name in kwargs else ""])
    return markdown(["name", "accepted as `quant_backend`", "note"], rows)


GROUP_PARAMETERS = {
    "onload_device": "where layers run",
    "offload_device": "where they wait",
    "offload_type": "`leaf_level` (single layers) or `block_level` (runs of blocks)",
    "num_blocks_per_group": "blocks brought together; needed for `block_level`, forced to 1 with a stream",
    "non_blocking": "copies do not wait for the host; only useful from page-locked memory",
    "use_stream": "the next group is copied beside the running one; keeps the weights page-locked in RAM",
    "record_stream": "the allocator, not the host, waits for the copy: a little faster, a little more VRAM; needs `use_stream`",
    "low_cpu_mem_usage": "page-locks each group when it is needed instead of all at once: less RAM, slower",
    "offload_to_disk_path": "groups wait in files; one fresh folder per component",
    "exclude_modules": "components left out; they are put on `onload_device`. A misspelt name is ignored without a word",
    "block_modules": "names of the lists that count as blocks",
    "exclude_kwargs": "call arguments that must not be moved (state that a forward changes)",
}


def _signature(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    return {k: p for k, p in inspect.signature(function).parameters.items() if k not in ("self", "module")}


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "required"
    return f"`{getattr(value, 'type', None) or value!r}`" if "device" in parameter.name else f"`{value!r}`"


def group_offload_parameters() -> str:
    """The three ways to switch group offloading on, from their signatures."""
    from diffusers import DiffusionPipeline, ModelMixin
    from diffusers.hooks import apply_group_offloading

    doors = [_signature(f) for f in (DiffusionPipeline.enable_group_offload, ModelMixin.enable_group_offload,
                                     apply_group_offloading)]  # fmt: skip
    names = list(dict.fromkeys(name for door in doors for name in door))
    rows = []
    for name in names:
        first = next(door[name] for door in doors if name in door)
        rows.append([f"`{name}`", *(_yes(name in door) for door in doors), _default(first), GROUP_PARAMETERS[name]])
    head = ["parameter", "pipeline", "model", "function", "default", "meaning"]
    return markdown(head, rows)


CASTING_PARAMETERS = {
    "storage_dtype": "how weights are kept",
    "compute_dtype": "what they are cast to for each layer's forward; for the method the model's dtype when not given",
    "skip_modules_pattern": "names (regular expressions) that keep their dtype; the function's `auto` is the built-in list, "
    "for the method that list and the model's own",
    "skip_modules_classes": "classes that keep their dtype, as types, never as strings",
    "non_blocking": "casts do not wait",
}


def casting_parameters() -> str:
    """Layerwise casting as a method and as a function, from their signatures."""
    from diffusers import ModelMixin
    from diffusers.hooks import apply_layerwise_casting

    doors = [_signature(ModelMixin.enable_layerwise_casting), _signature(apply_layerwise_casting)]
    rows = [
        [f"`{name}`", *(_default(door[name]) for door in doors), CASTING_PARAMETERS[name]]
        for name in dict.fromkeys(n for door in doors for n in door)
    ]
    return markdown(["parameter", "method's default", "function's default", "meaning"], rows)


COMPILE_MODES = {
    "default": "a good start; nothing special needed",
    "lite": "fewest optimisations, shortest compile",
    "reduce-overhead": "CUDA graphs: less launch overhead, and a private memory pool that stays",
    "max-autotune": "tries many kernels and uses CUDA graphs: the longest compile, the private pool too",
    "max-autotune-no-cudagraphs": "tries many kernels without CUDA graphs: no private pool; goes with offloading",
}


def compile_modes() -> str:
    """The modes that the installed torch.compile knows."""
    import torch._inductor

    return markdown(
        ["mode", "note"], [[f"`{m}`", COMPILE_MODES.get(m, "")] for m in torch._inductor.list_mode_options()]
    )


def tools() -> str:
    """The server's tools."""
    from oomdoctor_mcp.docs import tool_table

    return tool_table()


TABLES: dict[str, Callable[[], str]] = {
    "techniques": techniques, "technique-options": technique_options, "clashes": clashes, "vaes": vaes,
    "denoisers": denoisers, "models": models, "attention-backends": attention_backends,
    "quant-backends": quant_backends, "group-offload-parameters": group_offload_parameters,
    "casting-parameters": casting_parameters, "compile-modes": compile_modes, "tools": tools,
    "accuracy": accuracy,
}  # fmt: skip


def files() -> list[Path]:
    """Everything that may hold a generated table."""
    return [ROOT / "README.md", SKILL / "SKILL.md", *sorted((SKILL / "references").glob("*.md"))]


def renewed(text: str, *, installed: bool = True) -> str:
    """``text`` with every table made afresh; ``installed=False`` leaves those of the installed libraries alone."""

    def again(found: re.Match[str]) -> str:
        name = found[2]
        if name not in TABLES or (not installed and name in INSTALLED):
            return found[0]
        return f"{found[1]}{TABLES[name]()}\n{found[3]}"

    return MARKED.sub(again, text)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    import diffusers

    installed = diffusers.__version__ == recorded_version()
    differ = 0
    for path in files():
        text = path.read_text("utf-8")
        new = renewed(text, installed=installed)
        if new != text:
            differ += 1
            print(f"{'written' if options.write else 'differs'}: {path.relative_to(ROOT)}")
            if options.write:
                path.write_text(new, "utf-8")
    return 1 if differ and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
