"""The table that says what a frame means: patterns over file, function and source line, and how much each weighs.

Of all rules that match any frame of a traceback the heaviest decides, among equals the innermost. Weights say how
specific a frame is: a pipeline's own line ``self.vae.decode(`` (90) says more than ``Module._apply`` (35), and that
more than a function called ``create_...`` (20). Names are those of diffusers, transformers, accelerate, torch, and of
the front ends whose logs people paste (ComfyUI, the web UIs, InvokeAI, kohya's trainers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oomdoctor.values import Stage

_VAE = r"(?:vae|movq|vqvae|vqgan|audio_vae|sound_tokenizer|diffusion_decoder|first_stage_model)"
_DENOISER = r"(?:unconditional_)?(?:transformer(?:_\d|_2)?|unet|prior|controlnet|dit|model_fn|diffusion_model)"


@dataclass(frozen=True)
class Rule:
    """All patterns given must match: ``file`` (forward slashes), ``function``, ``code`` (the source line)."""

    stage: Stage
    weight: int
    file: re.Pattern[str] | None = None
    function: re.Pattern[str] | None = None
    code: re.Pattern[str] | None = None


def _rule(stage: Stage, weight: int, file: str = "", function: str = "", code: str = "") -> Rule:
    return Rule(
        stage,
        weight,
        re.compile(file) if file else None,
        re.compile(rf"(?:^|\.)(?:{function})$") if function else None,
        re.compile(code) if code else None,
    )


_PIPELINE = r"(?:^|/)pipeline\w*\.py$|/(?:pipelines|modular_pipelines)/"
_AUTOENCODER = r"(?:^|[/_])(?:autoencoders?|vae|vq_model|vae_\w+|\w+_vae|autoencoder\w*)(?:/|\.py$|_\w+\.py$)"

RULES: tuple[Rule, ...] = (
    # Training: gradients and optimisers are unmistakable, a file's name is a hint.
    _rule(Stage.TRAINING, 95, code=r"\.backward\(|optimizer\.step\(|lr_scheduler\.step\(|scaler\.step\("),
    _rule(Stage.TRAINING, 95, file=r"torch/(?:autograd|optim)/|/optim/\w+\.py", function=r"backward|_engine_run_backward|step|_single_tensor_adamw?|adamw?"),
    _rule(Stage.TRAINING, 70, file=r"transformers/trainer\w*\.py|(?:pytorch_)?lightning/|deepspeed/runtime/(?:engine|zero)"),
    _rule(Stage.TRAINING, 62, function=r"training_function|training_step|train_step|train_one_epoch|compute_loss|train_loop|forward_pass"),
    _rule(Stage.TRAINING, 60, file=r"(?:^|/)(?:train|training|dreambooth|finetune|sd-scripts|musubi\w*)/|(?:^|[/_])(?:train|finetune|dreambooth)\w*\.py$"),
    _rule(Stage.TRAINING, 58, file=r"(?:^|/)\w+_train\w*\.py$", function=r"(?:main|train\w*|<module>)"),
    # Compiling. eval_frame.py stands in every compiled call and means nothing.
    _rule(Stage.COMPILE, 93, file=r"torch/_inductor/|torch/_functorch/_aot"),
    _rule(Stage.COMPILE, 88, file=r"torch/_dynamo/(?!eval_frame)|triton/compiler/|triton/runtime/(?:autotuner|jit)"),
    # A pipeline's own lines.
    _rule(Stage.VAE_DECODE, 90, file=_PIPELINE, code=rf"self\.{_VAE}\.decode\("),
    _rule(Stage.VAE_ENCODE, 90, file=_PIPELINE, code=rf"self\.{_VAE}\.(?:encode|tiled_encode)\("),
    _rule(Stage.TEXT_ENCODE, 91, file=_PIPELINE, code=r"self\.(?:text_encoder\w*|prompt_enhancer\w*|pe|text_model|vision_language_encoder|language_model)\("),
    _rule(Stage.IMAGE_ENCODE, 91, file=_PIPELINE, code=r"self\.(?:image_encoder\w*|feature_extractor|vision_model)\("),
    _rule(Stage.DENOISE, 90, file=_PIPELINE, code=rf"self\.{_DENOISER}\(|self\.scheduler\.step\("),
    _rule(Stage.POST, 90, file=_PIPELINE, code=r"self\.(?:safety_checker|run_safety_checker|watermark\w*|vocoder)\(|\.postprocess\w*\("),
    # Function names, wherever they are.
    _rule(Stage.VAE_ENCODE, 89, function=r"_?encode_vae_image\w*|encode_first_stage|encode_vae\w*|vae_encode\w*|get_first_stage_encoding|_?encode_video\w*|prepare_image_latents|prepare_mask_latents|prepare_masked_image_latents|encode_image_vae_latents|new_cache_latents|_?\w*cache_batch_latents|encode_images_to_latents|prepare_video_latents|_encode_first_frame|_encode_reference_conditions"),
    _rule(Stage.TEXT_ENCODE, 88, function=r"_?encode_prompt\w*|_?get_\w*prompt_embeds|_get_\w+_(?:embeds|hidden_states)|_?encode_text\w*|encode_from_tokens\w*|get_learned_conditioning|compute_text_embeddings|encode_token_weights|cache_text_encoder_outputs\w*|_encode_prior_prompt|enhance_prompt"),
    _rule(Stage.VAE_DECODE, 88, function=r"_?decode_latents\w*|decode_first_stage\w*|decode_latent_batch|vae_decode\w*|decode_vae\w*|decode_prediction|decode_to_image|latents_to_image|latents_to_video|decode_tiled\w*|decode_sound"),
    _rule(Stage.IMAGE_ENCODE, 87, function=r"_?encode_image|encode_image_clip_latents|prepare_ip_adapter_image_embeds|encode_input_images|clip_vision_encode"),
    _rule(Stage.POST, 86, function=r"run_safety_checker|postprocess\w*|numpy_to_pil|export_to_video|apply_watermark"),
    # Model files.
    _rule(Stage.VAE_DECODE, 84, file=_AUTOENCODER, function=r"_?(?:tiled_|temporal_tiled_|spatial_tiled_)?decode\w*"),
    _rule(Stage.VAE_ENCODE, 84, file=_AUTOENCODER, function=r"_?(?:tiled_|temporal_tiled_|spatial_tiled_)?encode\w*"),
    _rule(Stage.VAE_ENCODE, 84, file=_AUTOENCODER, code=r"self\.(?:encoder|quant_conv)\("),
    _rule(Stage.VAE_DECODE, 84, file=_AUTOENCODER, code=r"self\.(?:decoder|post_quant_conv)\("),
    _rule(Stage.VAE_ENCODE, 72, file=_AUTOENCODER, code=r"down_block|downsample|self\.down\b|self\.down\["),
    _rule(Stage.VAE_DECODE, 70, file=_AUTOENCODER),
    _rule(Stage.DENOISE, 80, file=r"/models/(?:transformers|unets|controlnets)/|(?:^|/)(?:transformer_\w+|\w*_transformer_\dd|unet_\w+|controlnet\w*|openaimodel)\.py$"),
    _rule(Stage.DENOISE, 78, file=r"diffusers/schedulers/|k_diffusion/|(?:^|/)samplers?\.py$"),
    _rule(Stage.IMAGE_ENCODE, 68, file=r"transformers/models/(?:siglip\w*|dinov2\w*|vit\w*|clip_vision\w*)/"),
    _rule(Stage.TEXT_ENCODE, 66, file=r"transformers/models/(?!auto)\w+/modeling_"),
    _rule(Stage.DENOISE, 40, file=r"diffusers/models/(?:attention\w*|embeddings|normalization|activations|transformers?)\b|tomesd"),
    # Loading and quantising.
    _rule(Stage.QUANTIZE, 85, file=r"/quantizers/|bitsandbytes/nn/|torchao/quantization/quant_api|peft/utils/other|optimum/quanto", function=r"create_quantized_param\w*|check_quantized_param\w*|_?quantize\w*|quantize_|to|cuda|_process_model\w*|convert\w*|prepare_model_for_kbit_training"),
    _rule(Stage.QUANTIZE, 83, function=r"quantize_|set_module_quantized_tensor_to_device|prepare_model_for_kbit_training|quantize_blockwise|quantize_4bit|_quantize|int8_vectorwise_quant"),
    _rule(Stage.QUANTIZE, 83, file=r"peft/utils/other|bitsandbytes/functional", code=r"\.to\(torch\.float32\)|quantize"),
    _rule(Stage.LOAD, 82, function=r"from_pretrained|from_single_file|from_config|from_pipe|_from_pretrained|load_sub_model|load_state_dict|load_model\w*|load_checkpoint\w*|load_pipeline\w*|_?load_pretrained_model\w*|_load_state_dict\w*|load_torch_file|load_diffusion_model\w*|load_unet|load_lora_weights|load_ip_adapter|load_file|load_component\w*|load_text_encoder\w*|load_t5|load_clip|load_ae|load_flow_model\w*|torch_load|load_weights"),
    _rule(Stage.LOAD, 81, code=r"\.from_pretrained\b|\.from_single_file\b|\bload_file\(|torch\.load\(|safe_open\("),
    _rule(Stage.LOAD, 81, file=r"safetensors/|model_loading_utils|pipeline_loading_utils|core_model_loading|single_file_utils|(?:^|/)\w*_?loader\.py$"),
    # Placing.
    _rule(Stage.PLACE, 80, file=r"accelerate/accelerator", function=r"prepare\w*|_prepare\w*"),
    _rule(Stage.PLACE, 80, code=r"accelerator\.prepare\("),
    _rule(Stage.TEXT_ENCODE, 75, code=r"text_encoder\w*(?:\[\d\])?(?:\.to|\.cuda)?\(|\bencode_prompt\(|clip\.encode\w*|\bt5\("),
    _rule(Stage.VAE_DECODE, 76, code=rf"\b{_VAE}\.decode\("),
    _rule(Stage.VAE_ENCODE, 76, code=rf"\b{_VAE}\.encode\("),
    _rule(Stage.VAE_ENCODE, 50, code=r"\bvae\("),
    _rule(Stage.PLACE, 74, function=r"enable_model_cpu_offload|enable_sequential_cpu_offload|enable_group_offload|apply_group_offloading|dispatch_model|cpu_offload\w*|pin_memory"),
    _rule(Stage.PLACE, 73, file=r"hooks/group_offloading", function=r"__init__|_init_cpu_param_dict|_to_cpu|initialize_hook|_apply_\w+|_offload_to_memory"),
    _rule(Stage.PLACE, 73, code=r"\.pin_memory\("),
    _rule(Stage.PLACE, 72, code=r"(?:pipe|pipeline|model|transformer|unet|vae)\w*(?:\.\w+)?\.(?:to|cuda)\("),
    _rule(Stage.PLACE, 71, file=r"pipelines/pipeline_utils|models/modeling_utils|transformers/modeling_utils", function=r"to|cuda"),
    _rule(Stage.PLACE, 35, file=r"torch/nn/modules/module", function=r"_apply|convert|to|cuda|half|float"),
    _rule(Stage.PLACE, 35, file=r"torch/nn/modules/module", code=r"\.to\(device"),
    # Hints.
    _rule(Stage.DENOISE, 60, function=r"denoise\w*|p_sample\w*|do_unet_step|latents_from_embeddings|generate_latents\w*|sample_(?:euler|dpm|heun|lms)\w*|apply_model|apply_rotary_emb|get_attention_scores"),
    _rule(Stage.DENOISE, 50, code=rf"\b{_DENOISER}\("),
    _rule(Stage.DENOISE, 45, code=r"\b(?:pipe|pipeline|self\.pipe)\w*\((?!.*from_pretrained)"),
    _rule(Stage.DENOISE, 30, function=r"generate|predict|infer\w*|run_inference|sample|inference|_?run_model\w*|__call__"),
    _rule(Stage.VAE_DECODE, 25, file=r"^(?!.*torch/)", code=r"self\.conv\(hidden_states"),
    _rule(Stage.LOAD, 20, function=r"create_\w+|build_\w+|init_\w+|setup\w*|initialize\w*|load\w*|get_model\w*"),
)  # fmt: skip


@dataclass(frozen=True)
class Phrase:
    """What the text around a traceback says: log lines, node names, a report's title.

    ``needles`` are lower-case literals of which one is in every match: a cheap test before the pattern.
    """

    stage: Stage
    weight: int
    needles: tuple[str, ...]
    pattern: re.Pattern[str]


def _phrase(stage: Stage, weight: int, needles: str, pattern: str) -> Phrase:
    return Phrase(stage, weight, tuple(needles.split("|")), re.compile(pattern, re.IGNORECASE))


PHRASES: tuple[Phrase, ...] = (
    _phrase(Stage.TRAINING, 59, ".backward(", r"(?:autograd|loss|accelerator)\.backward\("),
    _phrase(Stage.VAE_DECODE, 58, "vaedecode|to image|l2i|vae decoding", r"\bVAEDecode\w{0,20}|latents? to image|\bl2i\b|regular VAE decoding"),
    _phrase(Stage.VAE_ENCODE, 58, "vaeencode|to latent|i2l|vae encoding", r"\bVAEEncode\w{0,20}|image to latents?|\bi2l\b|regular VAE encoding"),
    _phrase(Stage.TEXT_ENCODE, 58, "textencode", r"\b(?:CLIP)?TextEncode\w{0,20}"),
    _phrase(Stage.DENOISE, 58, "ksampler|samplercustom|tomesd", r"\b(?:KSampler|SamplerCustom)\w{0,20}|tomesd"),
    _phrase(Stage.LOAD, 57, "loader", r"\b(?:Checkpoint|UNET|DualCLIP|CLIP|VAE|DiffusionModel)Loader\w{0,20}"),
    _phrase(Stage.PLACE, 57, ".pin_memory(", r"\.pin_memory\("),
    _phrase(Stage.TRAINING, 38, "training|fine-tun|finetun|dreambooth", r"\b(?:lora )?(?:training|fine-?tun\w{1,6}|dreambooth)\b"),
    _phrase(Stage.VAE_DECODE, 36, "decod", r"\bvae[- ]decod\w{1,5}|decod\w{1,5} (?:stage|step|the (?:video|image|latents))"),
    _phrase(Stage.VAE_ENCODE, 36, "encod", r"\bvae[- ]encod\w{1,5}"),
    _phrase(Stage.PLACE, 30, ".to(|.cuda(|_offload", r"\.to\(['\"](?:cuda|mps|xpu)|\.cuda\(\)|enable_\w{1,20}_offload"),
    _phrase(Stage.PLACE, 28, "offload|use_stream", r"\bcpu[- ]?offload\w{0,5}|use_stream=True"),
)  # fmt: skip
"""Weaker than most frames on purpose: words can be about anything."""

LOADING_BARS = re.compile(r"(?i)loading|fetching|checkpoint shards|download")
