"""Components, adapters, quantisers, settings: what a script does to what it loads, and what other code runs it."""

from __future__ import annotations

from textwrap import dedent

from oomdoctor.script import read_script
from oomdoctor.values import PipelineUse, Script

HEAD = "import os, sys, torch\nfrom diffusers import FluxPipeline, DiffusionPipeline, AutoPipelineForText2Image\n"


def read(text: str) -> Script:
    return read_script(HEAD + dedent(text))


def main(text: str) -> PipelineUse:
    use = read(text).main
    assert use is not None
    return use


def test_components_and_what_is_done_to_them() -> None:
    use = main("""
        from diffusers import FluxTransformer2DModel, ControlNetModel
        from diffusers.hooks import apply_group_offloading
        tr = FluxTransformer2DModel.from_pretrained("t", subfolder="transformer", torch_dtype=torch.bfloat16)
        tr.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn)
        tr = torch.compile(tr)
        nets = [ControlNetModel.from_pretrained("c1"), ControlNetModel.from_pretrained("c2")]
        p = FluxPipeline.from_pretrained("a", transformer=tr, controlnet=nets, text_encoder=None)
        apply_group_offloading(p.text_encoder_2, onload_device=torch.device("cuda"), offload_type="leaf_level")
        p.vae.tile_sample_min_size = 512
        p.text_encoder_2 = None
    """)
    assert [(c.name, c.class_name, c.model.value) for c in use.components] == [
        ("transformer", "FluxTransformer2DModel", "t"),
        ("controlnet", "ControlNetModel", "c1"),
        ("controlnet", "ControlNetModel", "c2"),
    ]
    assert [(o.method, o.target) for o in use.optimisations] == [
        ("transformer.enable_layerwise_casting", "tr"),
        ("torch.compile", "tr"),
        ("apply_group_offloading", "p.text_encoder_2"),
        ("vae.tile_sample_min_size", "p.vae"),
        ("text_encoder_2", "p"),
    ]
    assert use.optimisations[3].arguments["value"].value == 512
    assert use.load_arguments["text_encoder"].value is None


def test_quantisation_configs_are_values() -> None:
    use = main("""
        from diffusers import PipelineQuantizationConfig as Q
        q = Q(quant_backend="bitsandbytes_4bit", quant_kwargs={"bnb_4bit_compute_dtype": torch.bfloat16})
        p = FluxPipeline.from_pretrained("a", quantization_config=q, device_map="balanced")
    """)
    assert use.load_arguments["quantization_config"].value == {
        "class": "PipelineQuantizationConfig",
        "module": "diffusers",
        "positional": [],
        "arguments": {
            "quant_backend": "bitsandbytes_4bit",
            "quant_kwargs": {"bnb_4bit_compute_dtype": "bfloat16"},
        },
    }
    (placement,) = use.placements
    assert (placement.kind, placement.device.value) == ("device_map", "balanced")


def test_adapters() -> None:
    use = main("""
        p = FluxPipeline.from_pretrained("a")
        p.load_lora_weights("l", weight_name="x.safetensors", adapter_name="s")
        p.load_ip_adapter("h94/IP-Adapter", subfolder="models", weight_name="ip.bin")
        p.load_textual_inversion("sd-concepts/cat")
        p.fuse_lora(lora_scale=0.5)
    """)
    assert [(a.kind, a.model.value) for a in use.adapters] == [
        ("lora", "l"), ("ip_adapter", "h94/IP-Adapter"), ("textual_inversion", "sd-concepts/cat"),
    ]  # fmt: skip
    assert use.adapters[1].arguments["subfolder"].value == "models"
    assert [o.method for o in use.optimisations] == ["fuse_lora"]


def test_bare_models_and_missing_no_grad() -> None:
    text = """
        from diffusers import AutoencoderKL
        vae = AutoencoderKL.from_pretrained("v").to("cuda")
        {}image = vae.decode(latents).sample
    """
    missing = read(text.format(""))
    assert missing.no_grad_missing and any("no_grad" in w for w in missing.warnings)
    assert missing.main is not None and missing.main.kind == "model"
    assert not read(text.format("with torch.no_grad(): ")).no_grad_missing
    assert not read(text.format("torch.set_grad_enabled(False); ")).no_grad_missing


def test_training_is_out_of_scope_but() -> None:
    script = read("""
        from diffusers import UNet2DConditionModel
        unet = UNet2DConditionModel.from_pretrained("a", subfolder="unet")
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)
        for batch in loader:
            loss = unet(batch).sample.mean()
            loss.backward()
            optimizer.step()
    """)
    assert script.training and not script.no_grad_missing
    assert any("out of scope" in w and "checkpointing" in w for w in script.warnings)


def test_settings_environment_and_remote_code() -> None:
    script = read("""
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
        os.environ.setdefault("HF_HOME", "/x")
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.cuda.empty_cache()
        p = FluxPipeline.from_pretrained("a", trust_remote_code=True, custom_pipeline="b")
    """)
    assert script.allocator_settings == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert script.environment["HF_HOME"].value == "/x"
    assert [s.method for s in script.settings] == ["torch.backends.cuda.matmul.allow_tf32", "torch.cuda.empty_cache"]
    assert script.pipelines[0].trust_remote_code
    assert any("trust_remote_code" in w for w in script.warnings)
    assert any("custom_pipeline" in d for d in script.pipelines[0].uncertain)


def test_executors_partials_and_lambdas() -> None:
    use = main("""
        import functools
        from concurrent.futures import ThreadPoolExecutor
        p = FluxPipeline.from_pretrained("a")
        with ThreadPoolExecutor() as pool:
            pool.submit(p, "x", height=512)
        go = lambda text: p(text, height=768)
        go("y")
        p.__call__("z", height=1024)
    """)
    assert [(c.pipeline, c.arguments["height"].value) for c in use.calls] == [
        ("p", 512),
        ("p", 768),
        ("p.__call__", 1024),
    ]


def test_what_is_loaded_item_by_item() -> None:
    use = main("""
        from diffusers import WanPipeline, WanTransformer3DModel as T
        one, two = (T.from_pretrained("a", subfolder=s) for s in ("transformer", "transformer_2"))
        p = WanPipeline.from_pretrained("a", transformer=one, transformer_2=two)
    """)
    assert [(c.name, c.variable, c.subfolder.value) for c in use.components] == [
        ("transformer", "one", "transformer"),
        ("transformer_2", "two", "transformer_2"),
    ]


def test_parts_are_named_as_in_the_pipeline() -> None:
    use = main("""
        from diffusers import FluxTransformer2DModel as T
        t = T.from_pretrained("t").to("cuda")
        t.enable_layerwise_casting()
        def speed_up(q):
            q.vae.enable_tiling()
            for part in (q.vae, q.text_encoder):
                part.to("cuda")
            q.to("cuda")
        p = FluxPipeline.from_pretrained("a", transformer=t)
        speed_up(p)
    """)
    assert [(x.target, x.part) for x in use.placements] == [
        ("t", "transformer"), ("part", "vae"), ("part", "text_encoder"), ("q", ""),
    ]  # fmt: skip
    assert [(o.method, o.part) for o in use.optimisations] == [
        ("transformer.enable_layerwise_casting", "transformer"),
        ("vae.enable_tiling", "vae"),
    ]


def test_functions_that_nothing_calls_find_what_others_load() -> None:
    use = main("""
        def infer(prompt, steps=9):
            return pipe(prompt, num_inference_steps=steps)
        def load(name):
            global pipe
            pipe = FluxPipeline.from_pretrained(name)
    """)
    assert (use.variable, use.model.certainty) == ("pipe", "unknown")
    assert use.calls[0].arguments["num_inference_steps"].value == 9
    lazy = read("""
        pipes = {}
        def get(name):
            if name not in pipes:
                pipes[name] = FluxPipeline.from_pretrained(name)
            return pipes[name]
        def endpoint(request):
            p = get("a/b")
            return p(request["prompt"])
    """)
    assert [(u.model.value, u.variable) for u in lazy.pipelines] == [("a/b", "p")]


def test_defaults_of_web_frameworks() -> None:
    for wrapped in ("cog.Input(default=640)", "fastapi.Query(640)", "pydantic.Field(default=640, ge=1)"):
        use = main(f"""
        import cog, fastapi, pydantic
        p = FluxPipeline.from_pretrained("a")
        def run(prompt: str, size: int = {wrapped}):
            return p(prompt, height=size)
        """)
        assert use.calls[0].arguments["height"].value == 640
