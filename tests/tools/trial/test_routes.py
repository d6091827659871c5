"""The ways that scripts load and combine models, as people write them; each script checks itself."""

from __future__ import annotations

import textwrap

import pytest
from oomdoctor.hardware import custom_card
from oomdoctor.trial import Zygote, run_virtual

START = """
import torch
from PIL import Image
from diffusers import *
SD, FLUX = "stable-diffusion-v1-5/stable-diffusion-v1-5", "black-forest-labs/FLUX.1-dev"
half = {"torch_dtype": torch.float16, "safety_checker": None}
picture = Image.new("RGB", (256, 256))
small = {"height": 256, "width": 256, "num_inference_steps": 1}
"""

SCRIPTS = {
    "from_pipe and AutoPipeline": """
        pipe = StableDiffusionPipeline.from_pretrained(SD, **half).to("cuda")
        before = torch.cuda.memory_allocated()
        other = StableDiffusionImg2ImgPipeline.from_pipe(pipe, torch_dtype=torch.float16)
        inpaint = AutoPipelineForInpainting.from_pipe(pipe, torch_dtype=torch.float16)
        assert other.unet is pipe.unet and type(inpaint) is StableDiffusionInpaintPipeline
        assert torch.cuda.memory_allocated() == before and other.device.type == "cuda"
        assert other("a cat", image=picture, strength=1.0, num_inference_steps=1).images[0].size == (256, 256)
    """,
    "several ControlNets": """
        nets = [ControlNetModel.from_pretrained("lllyasviel/control_v11p_sd15_canny", torch_dtype=torch.float16) for _ in "ab"]
        pipe = StableDiffusionControlNetPipeline.from_pretrained(SD, controlnet=nets, **half).to("cuda")
        pipe("a cat", image=[picture] * 2, num_inference_steps=1, controlnet_conditioning_scale=[1.0, 0.8])
        assert torch.cuda.memory_allocated() > 3 << 30
    """,
    "an IP-Adapter and a textual inversion": """
        pipe = StableDiffusionPipeline.from_pretrained(SD, **half)
        pipe.load_ip_adapter("h94/IP-Adapter", subfolder="models", weight_name="ip-adapter_sd15.bin")
        pipe.load_textual_inversion("sd-concepts-library/cat-toy")
        pipe.set_ip_adapter_scale(0.6)
        pipe.to("cuda")
        assert pipe.image_encoder.dtype == torch.float16
        pipe("a <cat-toy>", ip_adapter_image=picture, **small)
        pipe.unload_ip_adapter()
    """,
    "a LoRA, fused and dropped": """
        pipe = StableDiffusionPipeline.from_pretrained(SD, **half).to("cuda")
        before = torch.cuda.memory_allocated()
        pipe.load_lora_weights("me/style", weight_name="style.safetensors", adapter_name="style")
        assert torch.cuda.memory_allocated() > before
        pipe.set_adapters(["style"], adapter_weights=[0.8])
        pipe("a cat", **small)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        pipe("a cat", **small)
    """,
    "models loaded by themselves": """
        from transformers import AutoModel as TransformersModel, AutoTokenizer, T5EncoderModel
        transformer = AutoModel.from_pretrained(FLUX, subfolder="transformer", torch_dtype=torch.bfloat16)
        assert type(transformer) is FluxTransformer2DModel
        large = T5EncoderModel.from_pretrained(FLUX, subfolder="text_encoder_2", torch_dtype=torch.bfloat16)
        little = TransformersModel.from_pretrained(FLUX, subfolder="text_encoder", torch_dtype=torch.bfloat16)
        tokens = AutoTokenizer.from_pretrained(FLUX, subfolder="tokenizer_2")("a cat", return_tensors="pt")
        assert tokens.input_ids.dim() == 2 and {large.dtype, little.dtype} == {torch.bfloat16}
    """,
    "single files": """
        vae = AutoencoderKL.from_single_file("https://huggingface.co/stabilityai/sd-vae-ft-mse-original/blob/main/vae-ft-mse-840000-ema-pruned.safetensors")
        assert vae.dtype == torch.float32
        pipe = StableDiffusionPipeline.from_single_file("./realistic.safetensors", torch_dtype=torch.float16)
        assert pipe.unet.num_parameters() == 859_520_964
        made = FluxTransformer2DModel.from_single_file("https://huggingface.co/Kijai/flux-fp8/blob/main/flux1-dev-fp8.safetensors", torch_dtype=torch.bfloat16)
        assert made.num_parameters() == 11_901_408_320
    """,
    "embeddings made first and saved": """
        pipe = StableDiffusionPipeline.from_pretrained(SD, unet=None, vae=None, **half).to("cuda")
        with torch.no_grad():
            made, _ = pipe.encode_prompt("a cat", "cuda", 1, False)
        torch.save({"embeds": made.cpu()}, "embeds.pt")
        del pipe, made
        torch.cuda.empty_cache()
        embeds = torch.load("embeds.pt")["embeds"]
        assert embeds.shape == (1, 77, 768) and not embeds.is_cuda and torch.cuda.memory_allocated() < 64 << 20
        pipe = StableDiffusionPipeline.from_pretrained(SD, text_encoder=None, tokenizer=None, **half).to("cuda")
        pipe(prompt_embeds=embeds.to("cuda"), guidance_scale=1.0, **small)
    """,
    "what was saved is loaded again": """
        vae = AutoencoderKL.from_pretrained(SD, subfolder="vae", torch_dtype=torch.float16)
        vae.save_pretrained("out/vae")
        again = AutoencoderKL.from_pretrained("out/vae", torch_dtype=torch.float16)
        assert again.num_parameters() == vae.num_parameters() and again.dtype == torch.float16
    """,
    "autocast, callbacks, own attention": """
        pipe = StableDiffusionPipeline.from_pretrained(SD, **half).to("cuda")
        with torch.autocast("cuda"):
            pipe("a cat", **small)
        def stop_guiding(pipe, step, time, given):
            if step == 0:
                pipe._guidance_scale = 0.0
                given["prompt_embeds"] = given["prompt_embeds"].chunk(2)[-1]
            return given
        pipe("a cat", height=256, width=256, num_inference_steps=2, callback_on_step_end=stop_guiding,
             callback_on_step_end_tensor_inputs=["prompt_embeds"])
        class Own:
            def __call__(self, attn, x, encoder_hidden_states=None, attention_mask=None, **more):
                e = x if encoder_hidden_states is None else encoder_hidden_states
                q, k, v = (attn.head_to_batch_dim(t) for t in (attn.to_q(x), attn.to_k(e), attn.to_v(e)))
                scores = attn.get_attention_scores(q, k, attention_mask)
                return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(scores, v)))
        pipe.unet.set_attn_processor(Own())
        pipe("a cat", **small)
    """,
}

CARDS = {
    "device maps": """
        model = FluxTransformer2DModel
        place = {"subfolder": "transformer", "torch_dtype": torch.bfloat16}
        both = model.from_pretrained(FLUX, device_map="auto", max_memory={0: "14GB", 1: "14GB"}, **place)
        assert set(map(str, both.hf_device_map.values())) == {"0", "1"}
        assert all(torch.cuda.memory_allocated(i) > 1 << 30 for i in (0, 1))
        del both
        second = model.from_pretrained(FLUX, device_map="cuda:1", **place)
        assert second.device.index == 1 and torch.cuda.memory_allocated(1) > 20 << 30
        del second
        part = model.from_pretrained(FLUX, device_map="auto", max_memory={0: "10GB", "cpu": "60GB"}, **place)
        assert set(map(str, part.hf_device_map.values())) == {"0", "cpu"}
    """,
    "a balanced pipeline": """
        pipe = StableDiffusionPipeline.from_pretrained(SD, device_map="balanced", max_memory={0: "2GB", 1: "2GB"}, **half)
        assert {str(d) for d in pipe.hf_device_map.values()} == {"0", "1"}, pipe.hf_device_map
        pipe("a cat", **small)
        pipe.reset_device_map()
        pipe.to("cuda:1")
        assert torch.cuda.memory_allocated(0) < 64 << 20 and pipe("a cat", **small).images
    """,
}


@pytest.mark.parametrize("name", [*SCRIPTS, *CARDS])
def test_scripts_run(zygote: Zygote, name: str) -> None:
    source = START + textwrap.dedent(SCRIPTS.get(name) or CARDS[name])
    count = 2 if name in CARDS else 1
    card = custom_card(40 << 30)
    trial = run_virtual(zygote, source, card=card, ran="script", path="script.py", timeout=300.0, count=count)
    assert trial.outcome == "ok", trial.error
