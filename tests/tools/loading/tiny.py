"""Run in processes of their own by test_components.py: tiny random pipelines, saved, and loaded for real or virtually.

``tiny.py save FOLDER``: write one pipeline of each family. ``tiny.py real FOLDER``: load them with their weights and
print the bytes of each component. ``tiny.py virtual FOLDER SCRATCH CATALOGUE``: load them on the virtual card, and print
the modules that a measurement would see.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

warnings.filterwarnings("ignore")

DTYPES = ("float32", "float16", "bfloat16")
QUANTISED = ("int8", "fp8")


def clip(name: str = "CLIPTextModel") -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
        projection_dim=16,
    )
    return getattr(transformers, name)(config)


def t5(name: str = "T5") -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        d_model=32, d_ff=48, d_kv=8, num_heads=4, num_layers=2, vocab_size=100, feed_forward_proj="gated-gelu"
    )
    return getattr(transformers, f"{name}EncoderModel")(config)


def language_model(name: str) -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=100, head_dim=8,
    )  # fmt: skip
    return getattr(transformers, f"{name}Model")(config)


def vae(**changes: Any) -> Any:
    import diffusers

    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [32, 64], "layers_per_block": 1,
    }  # fmt: skip
    return diffusers.AutoencoderKL(**{**blocks, **changes})


def unet(**changes: Any) -> Any:
    import diffusers

    blocks = {
        "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "sample_size": 32,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**{**blocks, **changes})


def heads(**more: Any) -> dict[str, Any]:
    return {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, **more}


def families() -> dict[str, tuple[str, dict[str, Callable[[], Any]]]]:
    """Name -> (pipeline class, component -> how it is made)."""
    import diffusers as d

    flow = d.FlowMatchEulerDiscreteScheduler
    ddim = d.DDIMScheduler
    return {
        "sd": ("StableDiffusionPipeline", {"text_encoder": clip, "unet": unet, "vae": vae, "scheduler": ddim}),
        "sdxl": (
            "StableDiffusionXLPipeline",
            {
                "text_encoder": clip, "text_encoder_2": lambda: clip("CLIPTextModelWithProjection"), "vae": vae,
                "scheduler": ddim,
                "unet": lambda: unet(
                    addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
                    projection_class_embeddings_input_dim=80, use_linear_projection=True,
                ),
            },
        ),
        "sd3": (
            "StableDiffusion3Pipeline",
            {
                "text_encoder": lambda: clip("CLIPTextModelWithProjection"), "text_encoder_3": t5, "scheduler": flow,
                "text_encoder_2": lambda: clip("CLIPTextModelWithProjection"), "vae": vae,
                "transformer": lambda: d.SD3Transformer2DModel(
                    sample_size=32, patch_size=1, joint_attention_dim=32, caption_projection_dim=32,
                    pooled_projection_dim=32, pos_embed_max_size=96, **heads(),
                ),
            },
        ),
        "flux": (
            "FluxPipeline",
            {
                "text_encoder": clip, "text_encoder_2": t5, "vae": vae, "scheduler": flow,
                "transformer": lambda: d.FluxTransformer2DModel(
                    in_channels=4, joint_attention_dim=32, pooled_projection_dim=32, num_single_layers=1,
                    axes_dims_rope=(4, 4, 8), guidance_embeds=True, **heads(),
                ),
            },
        ),
        "wan": (
            "WanPipeline",
            {
                "text_encoder": lambda: t5("UMT5"), "scheduler": flow,
                "vae": lambda: d.AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
                "transformer": lambda: d.WanTransformer3DModel(
                    in_channels=16, out_channels=16, text_dim=32, freq_dim=64, ffn_dim=32, **heads()
                ),
            },
        ),
        "ltx": (
            "LTXPipeline",
            {
                "text_encoder": t5, "scheduler": flow,
                "vae": lambda: d.AutoencoderKLLTXVideo(
                    latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
                    layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
                ),
                "transformer": lambda: d.LTXVideoTransformer3DModel(
                    in_channels=8, out_channels=8, caption_channels=32, cross_attention_dim=32, **heads()
                ),
            },
        ),
        "cogvideox": (
            "CogVideoXPipeline",
            {
                "text_encoder": t5, "scheduler": ddim,
                "vae": lambda: d.AutoencoderKLCogVideoX(block_out_channels=(32, 32, 32, 32), layers_per_block=1),
                "transformer": lambda: d.CogVideoXTransformer3DModel(
                    text_embed_dim=32, time_embed_dim=2, sample_width=2, sample_height=2, sample_frames=9, **heads()
                ),
            },
        ),
        "sana": (
            "SanaPipeline",
            {
                "text_encoder": lambda: language_model("Gemma2"), "scheduler": flow,
                "vae": lambda: d.AutoencoderDC(
                    latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
                    decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
                    decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)),
                    decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1),
                    decoder_layers_per_block=(1, 1), downsample_block_type="conv", upsample_block_type="interpolate",
                ),
                "transformer": lambda: d.SanaTransformer2DModel(
                    in_channels=4, out_channels=4, num_cross_attention_heads=2, cross_attention_head_dim=16,
                    cross_attention_dim=32, caption_channels=32, sample_size=32, **heads(),
                ),
            },
        ),
        "qwen": (
            "QwenImagePipeline",
            {
                "vae": lambda: d.AutoencoderKLQwenImage(base_dim=4, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1,
                                                        temperal_downsample=[False, True]),
                "scheduler": flow,
                "transformer": lambda: d.QwenImageTransformer2DModel(
                    in_channels=16, out_channels=4, joint_attention_dim=32, axes_dims_rope=(4, 4, 8), **heads()
                ),
            },
        ),
        "lumina2": (
            "Lumina2Pipeline",
            {
                "text_encoder": lambda: language_model("Gemma2"), "vae": vae, "scheduler": flow,
                "transformer": lambda: d.Lumina2Transformer2DModel(
                    in_channels=4, hidden_size=32, num_layers=1, num_refiner_layers=1, num_attention_heads=2,
                    num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 4, 8), axes_lens=(16, 16, 16), cap_feat_dim=32,
                ),
            },
        ),
    }  # fmt: skip


def save(root: Path) -> None:
    """Write every family below ``root``; the weights are random and float32."""
    import diffusers

    torch.manual_seed(0)
    for family, (pipeline, parts) in families().items():
        index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
        for name, make in parts.items():
            part = make()
            part.save_pretrained(root / family / name)
            index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
        for name in getattr(diffusers, pipeline)._get_signature_keys(getattr(diffusers, pipeline))[0]:
            index.setdefault(name, [None, None])
        (root / family / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "self"}))


def loads(root: Path) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """(family, form, how to get its models by name)."""
    import diffusers

    def models(folder: Path, dtype: str) -> dict[str, Any]:
        index = json.loads((folder / "model_index.json").read_text())
        absent = {name: None for name, value in index.items() if value == [None, None]}
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype), **absent)
        return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}

    def quantised(folder: Path, form: str) -> dict[str, Any]:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        kind = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[form]
        name = "unet" if (folder / "unet").is_dir() else "transformer"
        cls = getattr(diffusers, json.loads((folder / "model_index.json").read_text())[name][1])
        config = diffusers.TorchAoConfig(kind())
        return {name: cls.from_pretrained(folder / name, torch_dtype=torch.bfloat16, quantization_config=config)}

    for folder in sorted(root.iterdir()):
        for dtype in DTYPES:
            yield folder.name, dtype, lambda folder=folder, dtype=dtype: models(folder, dtype)  # type: ignore[misc]
        for form in QUANTISED:
            yield folder.name, form, lambda folder=folder, form=form: quantised(folder, form)  # type: ignore[misc]


def inside(tensor: Any) -> Iterator[Any]:
    """The plain tensors of a parameter: a quantised one holds several."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from inside(getattr(tensor, name))
    else:
        yield tensor


def real(root: Path) -> dict[str, Any]:
    """Bytes of each component as it lies in memory: every tensor once, parameters and buffers."""
    results = {}
    for family, form, load in loads(root):
        for name, module in load().items():
            tensors = [t for p in (*module.parameters(), *module.buffers()) for t in inside(p)]
            results[f"{family}/{form}/{name}"] = sum(t.numel() * t.element_size() for t in tensors)
    return results


def virtual(root: Path, scratch: str, catalogue: str) -> dict[str, Any]:
    """What the tracker of a virtual run knows of each component."""
    from oomdoctor.loading.install import install
    from oomdoctor.vgpu import VirtualCard, renew, virtual_gpu

    results = {}
    card = VirtualCard("big", "Big", total_bytes=200 << 30, compute_capability=(9, 0))
    with virtual_gpu(card):
        install({"catalogue": catalogue, "configs": [], "like": {}, "hf_cache": None, "scratch": scratch}, [])
        for family, form, load in loads(root):
            world = renew(card)
            for name, module in load().items():
                world.tracker.name(name, module)
            results[f"{family}/{form}"] = [dataclasses.asdict(node) for node in world.tracker.nodes]
    return results


def main(mode: str, root: str, *rest: str) -> None:
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    result: Any = None
    if mode == "save":
        save(Path(root))
    else:
        result = real(Path(root)) if mode == "real" else virtual(Path(root), *rest)
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
