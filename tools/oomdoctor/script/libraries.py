"""What the names of the libraries mean: which classes are pipelines, which methods are techniques."""

from __future__ import annotations

import re

UNRESOLVED = "?"
"""First segment of the qualified name of something that is used without being imported or assigned."""

DTYPES = {
    "float32": "float32", "float": "float32", "float16": "float16", "half": "float16", "bfloat16": "bfloat16",
    "float64": "float64", "double": "float64", "float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2",
    "int8": "int8", "uint8": "uint8", "int16": "int16", "int32": "int32", "int64": "int64", "long": "int64",
    "complex64": "complex64", "bool": "bool",
}  # fmt: skip

_PIPELINE = re.compile(r"[A-Z]\w*Pipeline(?!Quantization)\w*\Z")
_NOT_PIPELINE = re.compile(r"(Output|Config|Blocks|Mixin|Tests?|Dataset|Args|Parameters)\Z")
_MODEL = re.compile(
    r"(Model|Model(With|For)\w+|\w*Transformer\w*|Autoencoder\w*|\w+For[A-Z]\w+|\w*ControlNet\w*|\w*UNet\w*|\w*Adapter\w*"
    r"|VQ\w*|\w+Model\w*|\w*SafetyChecker|\w+Upsampler\w*|\w*Vocoder\w*|\w*VAE|\w*(Encoder|Decoder)|\w+Prior)\Z"
)
_PART = re.compile(r"\w*(Tokenizer|TokenizerFast|Processor|ProcessorFast|Scheduler|FeatureExtractor|Extractor)\w*\Z")
_FOREIGN = {
    "sklearn", "imblearn", "keras", "tensorflow", "spacy", "torchaudio", "pandas", "torch", "torchvision", "numpy",
    "haystack", "kfp", "azure", "apache_beam", "pyspark", "os", "typing", "dataclasses", "collections", "pydantic",
}  # fmt: skip
LOADERS = frozenset(
    {"from_pretrained", "from_single_file", "from_pipe", "from_config", "from_unet", "from_transformer"}
)
MODEL_KEYWORDS = (
    "pretrained_model_name_or_path", "pretrained_model_or_path", "pretrained_model_link_or_path_or_dict",
    "pretrained_model_link_or_path", "model_id", "repo_id",
)  # fmt: skip


def root(qualified: str) -> str:
    return qualified.split(".", 1)[0]


def last(qualified: str) -> str:
    return qualified.rsplit(".", 1)[-1]


def kind_of_class(qualified: str) -> str | None:
    """``pipeline``, ``model``, ``part`` (tokenizer, scheduler, processor) or None for anything else."""
    name = last(qualified)
    if root(qualified) in _FOREIGN or not name[:1].isupper():
        return None
    if root(qualified) != "transformers" and _PIPELINE.match(name) and not _NOT_PIPELINE.search(name):
        return "pipeline"
    if name.endswith(("Config", "Output", "Args")):
        return None
    if _PART.match(name) and "Attn" not in name:
        return "part"
    return "model" if _MODEL.match(name) else None


def dtype_of(qualified: str) -> str | None:
    """``bfloat16`` for ``torch.bfloat16``; None when it is not a dtype."""
    head, _, name = qualified.rpartition(".")
    return DTYPES.get(name) if head in ("torch", "th", UNRESOLVED + ".torch") else None


COMPONENTS = re.compile(
    r"(unet|transformer|text_encoder|vae|image_encoder|tokenizer|scheduler|controlnet|safety_checker|vqmodel|movq"
    r"|prior\w*|decoder\w*|feature_extractor|image_processor|video_processor|vision_encoder|audio_vae|vocoder|connectors"
    r"|motion_adapter|adapter|t2i_adapter|text_model|vqvae|condition_encoder|language_encoder|image_projection|projection_model)(_\w+)?\Z"
)
"""Attribute names of pipelines that hold a component."""

_TECHNIQUE = re.compile(r"(enable|disable)_\w+\Z")
_TECHNIQUES = frozenset({
    "compile", "compile_repeated_blocks", "fuse_qkv_projections", "unfuse_qkv_projections", "set_attention_backend",
    "reset_attention_backend", "set_attn_processor", "set_default_attn_processor", "remove_all_hooks", "dequantize",
    "set_use_memory_efficient_attention_xformers", "reset_device_map", "maybe_free_model_hooks", "fuse_lora",
    "unfuse_lora", "unload_lora_weights", "set_adapters", "delete_adapters", "load_components", "upcast_vae",
    "gradient_checkpointing_enable", "set_ip_adapter_scale", "unload_ip_adapter",
})  # fmt: skip
ADAPTERS = {
    "load_lora_weights": "lora", "load_lora_adapter": "lora", "load_attn_procs": "lora",
    "load_ip_adapter": "ip_adapter", "load_textual_inversion": "textual_inversion",
}  # fmt: skip
PASS_THROUGH = frozenset({"eval", "train", "requires_grad_", "half", "float", "bfloat16", "double", "to", "cuda", "cpu",
                          "to_empty", "compile", "set_progress_bar_config", "share_memory"})  # fmt: skip
"""Methods that hand back the object they are called on (``None`` for some, which nobody chains)."""
PART_CALLS = frozenset({"encode", "decode", "forward", "generate", "encode_prompt", "encode_image", "__call__",
                        "get_text_features", "get_image_features", "prepare_latents", "encode_text"})  # fmt: skip
WHOLE_CALLS = re.compile(
    r"(invert|generate_\w+|image_variation|text_to_\w+|dual_guided|interpolate|img2img|text2img|inpaint)\Z"
)
"""Methods of some pipelines that do what a call does."""

FUNCTIONS = frozenset({
    "apply_group_offloading", "apply_layerwise_casting", "apply_first_block_cache", "apply_faster_cache",
    "apply_pyramid_attention_broadcast", "apply_taylorseer_cache", "apply_mag_cache", "cpu_offload", "disk_offload",
    "cpu_offload_with_hook", "dispatch_model", "compile_regions", "quantize_", "quantize", "freeze", "autoquant",
    "swap_conv2d_1x1_to_linear", "apply_dynamic_quant", "apply_cache_on_pipe", "parallelize_pipe", "apply_patch",
    "DeepCacheSDHelper", "compile", "trace", "script", "optimize", "compile_unet", "apply_cache_on_transformer",
    "load_checkpoint_and_dispatch", "register_free_upblock2d", "register_free_crossattn_upblock2d",
})  # fmt: skip
"""Functions that take a pipeline or component and change how it runs."""


def is_technique(method: str) -> bool:
    return bool(_TECHNIQUE.match(method)) or method in _TECHNIQUES


SETTINGS = re.compile(
    r"torch\.(backends\.|_inductor\.config\.|_dynamo\.config\.|set_float32_matmul_precision|cuda\.empty_cache"
    r"|cuda\.set_per_process_memory_fraction|cuda\.memory\.set_per_process_memory_fraction|set_default_dtype"
    r"|set_default_device|set_grad_enabled|cuda\.set_device|inductor\.config\.|cuda\.memory\._set_allocator_settings"
    r"|_C\._set_|cuda\.ipc_collect|set_num_threads)|gc\.collect\Z"
)
"""Qualified names of process-wide switches, assigned or called."""
ALLOCATOR_VARIABLES = frozenset({"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF",
                                 "PYTORCH_NO_CUDA_MEMORY_CACHING"})  # fmt: skip
GRAD_OFF = frozenset({"torch.no_grad", "torch.inference_mode", "torch.autograd.no_grad"})
AUTOCAST = frozenset(
    {"torch.autocast", "torch.cuda.amp.autocast", "torch.amp.autocast", "torch.amp.autocast_mode.autocast"}
)
ATTENTION_CONTEXTS = frozenset({
    "torch.nn.attention.sdpa_kernel", "torch.backends.cuda.sdp_kernel", "diffusers.attention_backend",
    "diffusers.models.attention_backend", "diffusers.models.attention_dispatch.attention_backend",
})  # fmt: skip
"""Context managers that choose the attention kernel of the calls inside."""
OPTIMISERS = re.compile(r"(torch\.optim\.\w*[A-Z]\w*|bitsandbytes\.optim\.\w+|transformers\.\w*Trainer|prodigyopt\.\w+"
                        r"|transformers\.optimization\.\w+|diffusers\.optimization\.get_scheduler)\Z")  # fmt: skip
ACCELERATORS = frozenset({"Accelerator", "PartialState", "AcceleratorState"})
"""Classes of accelerate whose ``device`` is the card."""
PATHS = frozenset({"Path", "PurePath", "PosixPath"})
"""Classes of ``pathlib``."""
