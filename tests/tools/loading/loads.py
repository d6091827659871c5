"""Run in a process of its own by test_loads.py: real loaders over no weights, results as JSON on stdout."""

from __future__ import annotations

import collections
import json
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")


def describe(module: Any) -> dict[str, Any]:
    """Elements by dtype, and where they are."""
    count: collections.Counter[str] = collections.Counter()
    for parameter in module.parameters():
        count[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return {"class": type(module).__name__, "elements": dict(count), "device": str(next(module.parameters()).device)}


def write_vae(folder: Path) -> Path:
    """A folder with a config and a real safetensors file whose data is a hole: only its header may be read."""
    from oomdoctor.loading import tables

    folder.mkdir()
    config = {"_class_name": "AutoencoderKL", "block_out_channels": [32], "norm_num_groups": 8}
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tables.build("diffusers", "AutoencoderKL", config).state_dict().items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + tensor.numel() * 4]}
        end += tensor.numel() * 4
    raw = json.dumps(header).encode()
    with open(folder / "diffusion_pytorch_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return folder


def main(catalogue: str, scratch: str) -> None:
    import torch
    from oomdoctor.loading.install import install
    from oomdoctor.vgpu import VirtualCard, virtual_gpu

    notes: list[str] = []
    results: dict[str, Any] = {}

    def case(run: Callable[[], Any]) -> None:
        notes.clear()
        world.host.peak = world.host.in_use
        try:
            result = run()
        except BaseException as error:
            result = {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
        results[run.__name__] = {"result": result, "notes": list(notes), "anonymous": world.host.by_kind["anonymous"]}

    with virtual_gpu(VirtualCard("big", "Big", total_bytes=200 << 30)) as world:
        bundle = {"catalogue": catalogue, "configs": [], "like": {"me/tuned": "black-forest-labs/FLUX.1-schnell"}}
        install({**bundle, "hf_cache": None, "scratch": scratch, "image_size": [512, 768]}, notes)
        import diffusers
        import transformers
        from diffusers.utils import load_image

        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()

        def models(pipeline: Any) -> dict[str, Any]:
            parts = pipeline.components.items()
            return {name: describe(part) for name, part in parts if isinstance(part, torch.nn.Module)}

        def flux() -> Any:
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                "black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16
            )
            tokens = pipeline.tokenizer_2(["a cat"], padding="max_length", max_length=512, return_tensors="pt")
            return {
                **models(pipeline),
                "pipeline": type(pipeline).__name__,
                "tokens": list(tokens.input_ids.shape),
                "is_clip": isinstance(pipeline.tokenizer, transformers.CLIPTokenizer),
                "clip_length": pipeline.tokenizer.model_max_length,
                "shift": pipeline.scheduler.config.shift,
            }

        def sdxl_variant() -> Any:
            return models(
                diffusers.StableDiffusionXLPipeline.from_pretrained(
                    "stabilityai/stable-diffusion-xl-base-1.0", torch_dtype=torch.float16, variant="fp16"
                )
            )

        def wan() -> Any:
            model = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            return models(diffusers.WanPipeline.from_pretrained(model, torch_dtype=torch.bfloat16))

        def no_dtype() -> Any:
            model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
            return describe(diffusers.UNet2DConditionModel.from_pretrained(model, subfolder="unet"))

        def like() -> Any:
            transformer = diffusers.FluxTransformer2DModel
            return describe(transformer.from_pretrained("me/tuned", subfolder="transformer", dtype=torch.bfloat16))

        def unknown_model() -> Any:
            return models(diffusers.DiffusionPipeline.from_pretrained("no/such-model"))

        def unknown_variant() -> Any:
            return models(diffusers.DiffusionPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", variant="ema"))

        def folder_with_a_real_file() -> Any:
            folder = write_vae(Path(scratch) / "vae")
            model = diffusers.AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float16)
            return describe(model)

        def lora() -> Any:
            pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
                "stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16, safety_checker=None
            )
            pipeline.load_lora_weights("me/some-lora", weight_name="style.safetensors", adapter_name="style")
            names = [n for n, _ in pipeline.unet.named_parameters() if "lora_A" in n]
            return {"adapters": pipeline.get_list_adapters(), "layers": len(names)}

        def single_file() -> Any:
            transformer = diffusers.FluxTransformer2DModel
            return describe(transformer.from_single_file("./flux1-schnell.safetensors", torch_dtype=torch.bfloat16))

        def picture() -> Any:
            return list(load_image("https://example.com/cat.png").size)

        cases = (flux, sdxl_variant, wan, no_dtype, like, unknown_model, unknown_variant)
        for run in (*cases, folder_with_a_real_file, lora, single_file, picture):
            case(run)
    print("RESULT " + json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
