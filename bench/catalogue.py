"""Write, refresh and check the entries of the model catalogue (tools/oomdoctor/models/catalogue).

``python bench/catalogue.py add FOLDER --id ORG/NAME [--gated] [--variant fp16] [--dtype bfloat16]``
    reads the JSON files of a repository (``model_index.json``, ``*/config.json``, ...; no weights needed) and writes
    its compact entry: the values that the classes need and that differ from the classes' own defaults.
``python bench/catalogue.py check [ID ...]``
    builds every component of the entries on the meta device and compares its parameter count with the stored one.

What the JSON files do not tell is kept from the entry that exists already, unless an option says otherwise: ``gated``,
``variants``, ``dtype``, ``published`` counts, ``note``, ``aliases`` (other names of the same repository) and ``versions``
(repositories with the same components and shapes). Needs torch, diffusers and transformers.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import warnings
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).resolve().parents[1] / "tools" / "oomdoctor" / "models" / "catalogue"
KEPT_BY_HAND = ("gated", "aliases", "versions", "variants", "published", "connected", "note")
# Values of transformers configs that shape neither a tensor nor a forward pass of a pipeline.
# fmt: off
BOILERPLATE = {
    "architectures", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "return_dict",
    "output_hidden_states", "output_attentions", "torchscript", "use_bfloat16", "pruned_heads",
    "chunk_size_feed_forward", "is_decoder", "cross_attention_hidden_size", "add_cross_attention",
    "tie_encoder_decoder", "max_length", "min_length", "do_sample", "early_stopping", "num_beams",
    "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "finetuning_task", "id2label", "label2id", "tokenizer_class", "prefix",
    "task_specific_params", "problem_type", "tf_legacy_loss", "use_cache", "output_past", "n_positions",
    "initializer_range", "initializer_factor", "auto_map", "decoder_start_token_id",
}
# fmt: on
TOKENIZER_WORDS = ("Tokenizer", "Processor", "FeatureExtractor")


def find_class(library: str, name: str) -> Any:
    """The class of a component, where ``library`` is what ``model_index.json`` calls it."""
    if library in ("diffusers", "transformers"):
        return getattr(importlib.import_module(library), name)
    for place in (f"diffusers.pipelines.{library}", f"diffusers.pipelines.deprecated.{library}"):
        try:
            return getattr(importlib.import_module(place), name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"no class {name} in diffusers.pipelines.{library} of the installed diffusers")


def plain(value: Any) -> Any:
    """``value`` as JSON would give it back (tuples become lists)."""
    return json.loads(json.dumps(value, default=str))


def prune(config: dict[str, Any], defaults: dict[str, Any], keep: frozenset[str]) -> dict[str, Any]:
    """The items of ``config`` that are not boilerplate and are not the default; integers stay (they are shapes)."""
    kept: dict[str, Any] = {}
    for key, value in sorted(config.items()):
        if key in BOILERPLATE or key.startswith("_"):
            continue
        default = defaults.get(key, ...)
        if isinstance(value, dict) and isinstance(default, dict):
            inner = prune(value, default, keep)
            if inner or key.endswith("_config"):
                kept[key] = inner
        elif key in keep or value != default or (isinstance(value, int) and not isinstance(value, bool)):
            kept[key] = value
    return kept


def diffusers_config(cls: Any, config: dict[str, Any], known_only: bool) -> dict[str, Any]:
    """The part of a diffusers config that the class would not assume by itself."""
    parameters = inspect.signature(cls.__init__).parameters
    defaults = {k: plain(p.default) for k, p in parameters.items() if p.default is not inspect.Parameter.empty}
    items = {k: v for k, v in config.items() if k in parameters or not known_only}
    return {k: v for k, v in sorted(items.items()) if not k.startswith("_") and v != defaults.get(k, ...)}


def transformers_config(cls: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The part of a transformers config that its config class would not assume by itself."""
    defaults = plain(cls.config_class().to_dict())
    return prune(config, defaults, frozenset({"model_type", "tie_word_embeddings"}))


def build(library: str, name: str, config: dict[str, Any]) -> Any:
    """The component as an ``nn.Module`` on the meta device."""
    import torch
    import transformers

    cls = find_class(library, name)
    with torch.device("meta"):
        if issubclass(cls, transformers.PreTrainedModel):
            return cls(cls.config_class.from_dict(dict(config)))
        return cls.from_config(dict(config))


def count(module: Any) -> tuple[int, int]:
    """(elements of parameters, elements of persistent buffers) of a module; a tied tensor counts once."""
    saved = set(module.state_dict())
    buffers = sum(b.numel() for n, b in module.named_buffers() if n in saved)
    return sum(p.numel() for p in module.parameters()), buffers


def component(folder: Path, library: str, name: str, old: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """The catalogue entry of one component; ``folder`` may lack files (a tokenizer whose files are not at hand)."""
    entry: dict[str, Any] = {"class": f"{library}.{name}"}
    if any(word in name for word in TOKENIZER_WORDS):
        for file in ("tokenizer_config.json", "preprocessor_config.json"):
            if (folder / file).is_file():
                raw = json.loads((folder / file).read_text())
                limit = raw.get("model_max_length")
                if isinstance(limit, int) and 0 < limit < 10**6:
                    entry["max_length"] = limit
                if file.startswith("pre"):
                    entry["config"] = {k: v for k, v in sorted(raw.items()) if not k.endswith("_type")}
        return {**{k: v for k, v in old.items() if k == "max_length"}, **entry}
    if (folder / "scheduler_config.json").is_file():
        raw = json.loads((folder / "scheduler_config.json").read_text())
        return {**entry, "config": diffusers_config(find_class(library, name), raw, known_only=False)}
    if not (folder / "config.json").is_file():
        return {**old, **entry}
    raw = json.loads((folder / "config.json").read_text())
    cls = find_class(library, name)
    if isinstance(raw.get("text_config"), dict) and "tie_word_embeddings" not in raw and hasattr(cls, "config_class"):
        # The outer config's default is not what the weights were saved with: the language model decides.
        inner = type(cls.config_class.from_dict(dict(raw)).get_text_config())()
        if hasattr(inner, "tie_word_embeddings"):
            raw["tie_word_embeddings"] = raw["text_config"].get("tie_word_embeddings", inner.tie_word_embeddings)
    compact = transformers_config(cls, raw) if hasattr(cls, "config_class") else diffusers_config(cls, raw, True)
    if hasattr(cls, "forward"):
        full, small = count(build(library, name, raw)), count(build(library, name, compact))
        if full != small:
            raise SystemExit(f"{folder}: the compact config builds {small} elements, the published one {full}")
        stored = dtype or raw.get("torch_dtype") or raw.get("dtype") or old.get("dtype")
        entry |= {"dtype": stored, "params": full[0], **({"buffers": full[1]} if full[1] else {})}
    return {**entry, "config": compact}


def add(folder: Path, model_id: str, options: argparse.Namespace) -> Path:
    """Write the entry of one repository and return its path."""
    target = CATALOGUE / (model_id.replace("/", "--") + ".json")
    old = json.loads(target.read_text()) if target.is_file() else {}
    entry: dict[str, Any] = {"id": model_id, "pipeline": None}
    entry |= {key: old[key] for key in KEPT_BY_HAND if key in old}
    if options.gated:
        entry["gated"] = True
    if options.variant:
        entry["variants"] = sorted({*entry.get("variants", ()), *options.variant})
    settings: dict[str, Any] = {}
    components: dict[str, Any] = {}
    before = old.get("components", {})
    index = folder / "model_index.json"
    if index.is_file():
        listed = json.loads(index.read_text())
        entry["pipeline"] = listed.pop("_class_name")
        for key, value in listed.items():
            if key.startswith("_"):
                continue
            if isinstance(value, list) and len(value) == 2 and (value[0] is None or isinstance(value[0], str)):
                known = (
                    None if value[0] is None else component(folder / key, *value, before.get(key, {}), options.dtype)
                )
                components[key] = known
            else:
                settings[key] = value
    else:
        for file in sorted(folder.rglob("config.json")):
            raw = json.loads(file.read_text())
            key = str(file.parent.relative_to(folder))
            name = raw.get("_class_name") or raw["architectures"][0]
            library = "diffusers" if "_class_name" in raw else "transformers"
            components[key] = component(file.parent, library, name, before.get(key, {}), options.dtype)
    if settings:
        entry["settings"] = settings
    entry["components"] = components
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n")
    return target


def check(ids: list[str]) -> int:
    """Compare stored and computed counts; prints each mismatch and returns how many there are."""
    wrong = 0
    for file in sorted(CATALOGUE.glob("*.json")):
        entry = json.loads(file.read_text())
        if ids and entry["id"] not in ids:
            continue
        for name, part in entry["components"].items():
            if part and "params" in part:
                found = count(build(*part["class"].rsplit(".", 1), part["config"]))
                if found != (part["params"], part.get("buffers", 0)):
                    wrong += 1
                    print(f"{entry['id']} {name}: stored {part['params']}, built {found}")
    return wrong


def main() -> int:
    """The command line."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="write an entry from a folder of JSON files")
    adding.add_argument("folder", type=Path)
    adding.add_argument("--id", required=True)
    adding.add_argument("--gated", action="store_true")
    adding.add_argument("--variant", action="append", default=[])
    adding.add_argument("--dtype", help="dtype of the weights on the Hub where the config does not say (bfloat16 ...)")
    checking = commands.add_parser("check", help="compare the stored counts with what the classes build")
    checking.add_argument("ids", nargs="*")
    options = parser.parse_args()
    if options.command == "add":
        print(add(options.folder, options.id, options))
        return 0
    return 1 if check(options.ids) else 0


if __name__ == "__main__":
    sys.exit(main())
