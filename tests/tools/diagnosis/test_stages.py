"""Stage and component: by frames, by progress bars, by log words, by the size of the request."""

from __future__ import annotations

import pytest
from oomdoctor.diagnosis import diagnose
from oomdoctor.values import Kind, Stage

_OOM = "torch.OutOfMemoryError: CUDA out of memory."
_P = "/venv/lib/python3.11/site-packages"


def _at(*frames: tuple[str, str, str]) -> str:
    lines = ["Traceback (most recent call last):"]
    for file, function, code in frames:
        lines += [f'  File "{file}", line 12, in {function}', f"    {code}"]
    return "\n".join([*lines, _OOM])


_USER = ("/home/bo/run.py", "<module>", "image = pipe(prompt)")
_CASES = {
    "wan text": ((_USER, (f"{_P}/diffusers/pipelines/wan/pipeline_wan.py", "_get_t5_prompt_embeds", "prompt_embeds = self.text_encoder(ids, mask)")), Stage.TEXT_ENCODE, "text_encoder"),
    "sd3 t5": ((_USER, (f"{_P}/diffusers/pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py", "_get_t5_prompt_embeds", "x")), Stage.TEXT_ENCODE, "text_encoder_3"),
    "ip adapter": ((_USER, (f"{_P}/diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py", "encode_image", "image_embeds = self.image_encoder(image).image_embeds")), Stage.IMAGE_ENCODE, "image_encoder"),
    "img2img": ((_USER, (f"{_P}/diffusers/pipelines/flux/pipeline_flux_img2img.py", "_encode_vae_image", "image_latents = retrieve_latents(self.vae.encode(image), generator=generator)")), Stage.VAE_ENCODE, "vae"),
    "unet": ((_USER, (f"{_P}/diffusers/pipelines/x/pipeline_x.py", "__call__", "noise_pred = self.unet("), (f"{_P}/accelerate/hooks.py", "new_forward", "output = module._old_forward(*args, **kwargs)")), Stage.DENOISE, "unet"),
    "second expert": ((_USER, (f"{_P}/diffusers/pipelines/wan/pipeline_wan.py", "__call__", "noise_pred = self.transformer_2(")), Stage.DENOISE, "transformer_2"),
    "offload hook moves it": ((_USER, (f"{_P}/diffusers/pipelines/flux/pipeline_flux.py", "__call__", "noise_pred = self.transformer("), (f"{_P}/accelerate/hooks.py", "pre_forward", "self.hook.init_hook(module)"), (f"{_P}/torch/nn/modules/module.py", "_apply", "module._apply(fn)")), Stage.DENOISE, "transformer"),
    "tiled decode": ((_USER, (f"{_P}/diffusers/models/autoencoders/autoencoder_kl_wan.py", "tiled_decode", "decoded = self.decoder(tile)")), Stage.VAE_DECODE, "vae"),
    "vae down": ((("/home/bo/run.py", "<module>", "z = vae.encode(x)"), (f"{_P}/diffusers/models/autoencoders/autoencoder_kl.py", "_encode", "h = self.encoder(x)")), Stage.VAE_ENCODE, "vae"),
    "load": ((("/home/bo/run.py", "<module>", 'pipe = FluxPipeline.from_pretrained("x")'), (f"{_P}/diffusers/pipelines/pipeline_loading_utils.py", "load_sub_model", "loaded = load_method(")), Stage.LOAD, None),
    "load one model": ((("/home/bo/run.py", "<module>", 't = FluxTransformer2DModel.from_pretrained("x")'), (f"{_P}/diffusers/models/modeling_utils.py", "from_pretrained", "cls._load_pretrained_model(")), Stage.LOAD, "transformer"),
    "quantise": ((("/home/bo/run.py", "<module>", "pipe = P.from_pretrained(x)"), (f"{_P}/diffusers/quantizers/bitsandbytes/bnb_quantizer.py", "create_quantized_param", "new_value = bnb.nn.Params4bit(new_value)"), (f"{_P}/bitsandbytes/nn/modules.py", "_quantize", "w_4bit, state = quantize_4bit(w)")), Stage.QUANTIZE, None),
    "torchao": ((("/home/bo/run.py", "<module>", "quantize_(pipe.transformer, int8_weight_only())"), (f"{_P}/torchao/quantization/quant_api.py", "quantize_", "x")), Stage.QUANTIZE, "transformer"),
    "to": ((("/home/bo/run.py", "<module>", 'pipe.to("cuda")'), (f"{_P}/torch/nn/modules/module.py", "convert", "return t.to(device)")), Stage.PLACE, None),
    "prepare": ((("/w/train_x.py", "main", "unet, opt = accelerator.prepare(unet, opt)"), (f"{_P}/accelerate/accelerator.py", "prepare_model", "model = model.to(self.device)")), Stage.PLACE, None),
    "compile": ((_USER, (f"{_P}/torch/_inductor/compile_fx.py", "compile_fx", "x")), Stage.COMPILE, None),
    "compiled call is no compiling": ((_USER, (f"{_P}/diffusers/pipelines/flux/pipeline_flux.py", "__call__", "noise_pred = self.transformer("), (f"{_P}/torch/_dynamo/eval_frame.py", "_fn", "return fn(*args, **kwargs)")), Stage.DENOISE, "transformer"),
    "backward": ((("/w/fit.py", "loop", "loss.backward()"), (f"{_P}/torch/_tensor.py", "backward", "torch.autograd.backward(")), Stage.TRAINING, None),
    "train script": ((("/w/train_text_to_image_lora.py", "main", "model_pred = unet(noisy, t, h).sample"),), Stage.TRAINING, "unet"),
    "safety": ((_USER, (f"{_P}/diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py", "run_safety_checker", "image, nsfw = self.safety_checker(")), Stage.POST, None),
    "only the user's call": ((_USER,), Stage.DENOISE, None),
    "nothing known": ((("/w/a.py", "f", "y = g(x)"),), Stage.UNKNOWN, None),
}  # fmt: skip


@pytest.mark.parametrize("name", _CASES)
def test_frames_tell_stage_and_component(name: str) -> None:
    frames, stage, component = _CASES[name]
    d = diagnose(_at(*frames))
    assert d.is_oom
    assert d.stage is stage
    if component is not None:
        assert d.component == component


def test_windows_paths_are_read_like_others() -> None:
    text = _at(("C:\\venv\\Lib\\site-packages\\diffusers\\models\\unets\\unet_2d_condition.py", "forward", "x = y"))
    assert diagnose(text).stage is Stage.DENOISE


@pytest.mark.parametrize(
    ("bar", "stage"),
    [
        ("Loading pipeline components...:  57%|█████▋    | 4/7 [00:03<00:02,  1.2it/s]", Stage.LOAD),
        ("Loading checkpoint shards:  33%|###3      | 1/3 [00:12<00:24, 12.1s/it]", Stage.LOAD),
        ("  0%|          | 0/28 [00:00<?, ?it/s]", Stage.DENOISE),
        (" 43%|████▎     | 12/28 [00:31<00:40,  2.5s/it]", Stage.DENOISE),
        ("100%|██████████| 28/28 [01:10<00:00,  2.5s/it]", Stage.VAE_DECODE),
    ],
)
def test_progress_bars_tell_the_stage(bar: str, stage: Stage) -> None:
    assert diagnose(f"{bar}\n{_OOM}").stage is stage


def test_the_kernel_ends_a_load() -> None:
    d = diagnose("Loading checkpoint shards:  66%|######6   | 2/3 [00:40<00:20, 20.0s/it]Killed")
    assert (d.kind, d.stage) == (Kind.HOST_RAM, Stage.LOAD)
    d = diagnose("Loading checkpoint shards:  66%|######6   | 2/3 [00:40<00:20, 20.0s/it]\nKilled\n")
    assert (d.kind, d.stage) == (Kind.HOST_RAM, Stage.LOAD)


@pytest.mark.parametrize(
    ("words", "stage"),
    [
        ("!!! Exception in node VAEDecodeTiled", Stage.VAE_DECODE),
        ("Error occurred when executing KSampler:", Stage.DENOISE),
        ("Error occurred when executing CLIPTextEncode:", Stage.TEXT_ENCODE),
        ("Error occurred when executing CheckpointLoaderSimple:", Stage.LOAD),
    ],
)
def test_node_names_tell_the_stage(words: str, stage: Stage) -> None:
    assert diagnose(f"{words}\n{_OOM}").stage is stage


def test_the_size_of_the_request_is_the_last_resort() -> None:
    d = diagnose(
        f"{_OOM} Tried to allocate 80.00 MiB. GPU 0 has a total capacity of 11.76 GiB of which 6.00 MiB is free."
    )
    assert (d.stage, d.component) == (Stage.TEXT_ENCODE, "text_encoder")
    assert any("T5" in line for line in d.evidence)
    d = diagnose("DefaultCPUAllocator: not enough memory: you tried to allocate 151781376 bytes.")
    assert d.stage is Stage.TEXT_ENCODE
    d = diagnose(
        f"{_OOM} Tried to allocate 54.00 MiB. GPU 0 has a total capacity of 11.76 GiB of which 6.00 MiB is free."
    )
    assert d.stage is Stage.UNKNOWN
