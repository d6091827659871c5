"""Errors that are no shortage of memory but follow attempts to save it, each with its cure.

Calls and conditions were checked against diffusers 0.42, transformers 5, accelerate 1.15.
"""

from __future__ import annotations

from oomdoctor.diagnosis.families.base import Cure, Example, Family, squeezed
from oomdoctor.values import DeviceFamily, Stage


def _family(
    name: str,
    pattern: str,
    needles: tuple[str, ...],
    example: str,
    cure: Cure,
    rank: int = 40,
    device: DeviceFamily | None = None,
) -> Family:
    return Family(
        name=name,
        anchor=squeezed(pattern),
        needles=needles,
        examples=(Example(example),),
        memory=False,
        device=device,
        rank=rank,
        cure=cure,
    )


PLACEMENT = (
    _family(
        "device_mismatch_weights",
        r"Input type \( (?:torch\.)? cuda\.?\w{0,20}Tensor \) and weight type \( torch\.\w{0,20}Tensor \)",
        ("andweighttype",),
        "RuntimeError: Input type (torch.cuda.HalfTensor) and weight type (torch.HalfTensor) should be the same",
        Cure(
            "The input is on the GPU but the layer's weights are still on the CPU: an offloading hook never brought "
            "them over. Block-level group offloading of a VAE does this, because its hook sits on forward() and "
            "pipelines call encode() and decode().",
            "Use offload_type='leaf_level' for the VAE, or exclude it (exclude_modules=['vae']) and move it with "
            ".to('cuda').",
            ("group_offload", "offload"),
            component="vae",
            confidence="medium",
        ),
    ),
    _family(
        "device_mismatch",
        r"Expected all tensors to be on the same device|expected all tensors to be on the same device",
        ("tensorstobeonthesamedevice",),
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        Cure(
            "One part of the pipeline is on the GPU and another on the CPU: offloading was set up for some components "
            "only, or a component was replaced or moved after it was set up.",
            "Give every component the same treatment: pipe.enable_group_offload(...) for the whole pipeline, or "
            ".to('cuda') for each component that is not group-offloaded.",
            ("group_offload", "offload"),
        ),
    ),
    _family(
        "meta_tensor",
        r"Cannot copy out of meta tensor|is on the meta device|Tensor on device meta|tensors on meta device"
        r"|not on the expected device meta",
        ("metatensor", "themetadevice", "devicemeta", "onmetadevice", "expecteddevicemeta"),
        "NotImplementedError: Cannot copy out of meta tensor; no data!",
        Cure(
            "A weight has a shape but no data (a meta tensor): sequential offloading keeps weights outside the module "
            "between uses, and something tried to move or read them there; or a checkpoint lacked that weight.",
            "Do everything that touches weights (LoRA loading and fusing, .to(), embeddings computed by hand) before "
            "enable_sequential_cpu_offload(), or use enable_model_cpu_offload() or group offloading instead.",
            ("offload", "group_offload", "loading"),
        ),
    ),
    _family(
        "moved_after_offload",
        r"activated sequential model offloading|device mapping strategy on the pipeline"
        r"|alternative offloading strategy|with group offloading enabled\. This is not supported"
        r"|is group offloaded and moving it",
        ("sequentialmodeloffloading", "devicemappingstrategy", "loadingstrategy", "groupoffloadingenabled",
         "isgroupoffloaded"),
        "ValueError: It seems like you have activated sequential model offloading by calling "
        "`enable_sequential_cpu_offload`, but are now attempting to move the pipeline to GPU.",
        Cure(
            "Two ways of placing the pipeline exclude each other: an offloading method or device map is active, and "
            "the script adds another one or moves the pipeline by hand.",
            "Keep one: remove .to('cuda') after an enable_*_offload() call, call reset_device_map() before another "
            "method, and do not mix group offloading with model or sequential offloading.",
            ("offload", "group_offload"),
        ),
    ),
    _family(
        "cannot_pin",
        r"cannot pin '? \w{0,10}\.?\w{0,40} '?|only dense CPU tensors can be pinned",
        ("cannotpin", "tensorscanbepinned"),
        "RuntimeError: cannot pin 'torch.cuda.HalfTensor' only dense CPU tensors can be pinned",
        Cure(
            "Group offloading with a stream page-locks the weights, and these weights cannot be: they are already on "
            "the GPU, or are a quantiser's own tensor type.",
            "Load and quantise on the CPU and do not move the model before group offloading; with such weights use "
            "use_stream=False, or low_cpu_mem_usage=False where that was the difference.",
            ("group_offload", "quantization"),
        ),
    ),
)  # fmt: skip

QUANTISED = (
    _family(
        "quantised_to",
        r"`?\.to`? is not supported for `?[48]-?bit|bitsandbytes ` [48]bit and (?:moving|conversion)"
        r"|Calling `(?:cuda|to) \( \) ` is not supported for `[48]-bit`|`\.(?:half|float) \( \) ` is not supported for quan"
        r"|has been loaded in `bitsandbytes` [48] ?bit",
        ("isnotsupportedfor", "hasbeenloadedin", "bitandmoving"),
        "ValueError: `.to` is not supported for `4-bit` or `8-bit` bitsandbytes models. Please use the model as it is",
        Cure(
            "A bitsandbytes model was moved or converted with .to(), .cuda() or .half(): it is already on its device "
            "in its own format, and older versions refuse to move 8-bit weights, which model offloading would do.",
            "Remove that .to() for the quantised component and let only the others be offloaded; moving 8-bit weights "
            "needs bitsandbytes 0.48, transformers 4.58 and accelerate 1.13 or newer. 4-bit (nf4) can be moved.",
            ("quantization", "offload"),
        ),
    ),
    _family(
        "dtype_mismatch",
        r"must have the same dtype|should have the same dtype|expected (?:m1 and m2|scalar type)"
        r"|Input type \( \S{1,60}? \) and bias type|expected mat1 and mat2 to have the same dtype"
        r"|Input type \( [\w.]{1,40} \) and weight type \( [\w.]{1,40} \) should be the same",
        ("samedtype", "expectedm1andm2", "expectedscalartype", "andbiastype", "andweighttype"),
        "RuntimeError: mat1 and mat2 must have the same dtype, but got BFloat16 and Float8_e4m3fn",
        Cure(
            "Weights and inputs have different dtypes: weights were cast (to fp8 or half precision) without the hooks "
            "that cast them back for computing, or one component was loaded in another dtype than the rest.",
            "For fp8 storage use enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, "
            "compute_dtype=torch.bfloat16) on the transformer, not .to(torch.float8_e4m3fn), and quantise T5 instead "
            "of casting it; otherwise load every component with the same dtype.",
            ("layerwise_casting", "dtype", "quantization"),
        ),
    ),
    _family(
        "fp8_unsupported",
        r"Trying to convert Float8_\w{1,20} to the MPS backend|not implemented for 'Float8",
        ("ryingtoconvertFloat8", "notimplementedfor'Float8"),
        "TypeError: Trying to convert Float8_e4m3fn to the MPS backend but it does not have support for that dtype.",
        Cure(
            "This device or operation has no fp8: layerwise casting to fp8 cannot work here.",
            "Leave the weights in bf16 or fp16; save memory with GGUF or another quantiser that this device supports, "
            "or with offloading.",
            ("quantization", "dtype", "offload"),
        ),
    ),
)

NUMERICS = (
    _family(
        "nan",
        r"invalid value encountered in cast|NaN latents|nan in latent|produced in Unet|all NaNs|output is NaN"
        r"|NansException|contains NaN",
        ("encounteredincast", "latent", "inUnet", "NaN", "Nans"),
        'RuntimeWarning: invalid value encountered in cast\n  images = (images * 255).round().astype("uint8")',
        Cure(
            "The picture is NaN (black), not out of memory: a model overflowed in float16, or several memory savers "
            "were stacked on the same weights (a quantiser, layerwise casting and group offloading together).",
            "Use bfloat16 where the card has it, keep an fp16-unsafe VAE or text encoder in float32 (for SDXL: the "
            "fp16-fix VAE), and put at most one of quantisation and layerwise casting on a component.",
            ("dtype", "quantization", "layerwise_casting"),
            confidence="medium",
        ),
        rank=16,
    ),
)

KERNELS = (
    _family(
        "illegal_access",
        r"an illegal memory access was encountered|CUDA_ERROR_ILLEGAL_ADDRESS|cudaErrorIllegalAddress",
        ("illegalmemoryaccess", "ILLEGAL_ADDRESS", "IllegalAddress"),
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        Cure(
            "A kernel read outside its tensor. That is a defect, not a shortage, but very large tensors bring it on: "
            "some convolution, normalisation and attention kernels count elements in 32 bits.",
            "If it happens at large sizes, split the tensor: vae.enable_tiling() for VAE steps, fewer frames or a "
            "lower resolution elsewhere; and try a newer torch.",
            ("vae_memory", "smaller_job", "environment"),
            confidence="medium",
        ),
        device="cuda",
    ),
    _family(
        "device_assert",
        r"device-side assert triggered|cudaErrorAssert",
        ("device-sideassert", "cudaErrorAssert"),
        "RuntimeError: CUDA error: device-side assert triggered",
        Cure(
            "An index was out of range on the GPU (a token id, a timestep, a label). Memory has nothing to do with it; "
            "the process must be restarted before the GPU can be used again.",
            "Run once on the CPU or with CUDA_LAUNCH_BLOCKING=1 to see the line, and check prompt length and sizes "
            "there.",
            ("environment",),
        ),
        device="cuda",
    ),
    _family(
        "invalid_configuration",
        r"CUDA error : invalid configuration argument|cudaErrorInvalidConfiguration",
        ("invalidconfigurationargument", "InvalidConfiguration"),
        "RuntimeError: CUDA error: invalid configuration argument",
        Cure(
            "A kernel was launched with a grid larger than the GPU allows: it depends on batch, frames and resolution, "
            "which makes it look like a shortage. xFormers' attention does this with very many short sequences.",
            "Use PyTorch's own attention instead of xFormers for this model, or lower batch times frames.",
            ("attention", "batch", "smaller_job"),
        ),
        device="cuda",
    ),
    _family(
        "compile_hooks",
        r"torch\._dynamo\.exc\.Unsupported|Hook with name \w{1,60} already exists in the registry",
        ("_dynamo.exc.Unsupported", "alreadyexistsintheregistry"),
        "torch._dynamo.exc.Unsupported: Attempt to trace forbidden callable",
        Cure(
            "torch.compile met code that it cannot take into one graph: offloading and casting hooks are such code.",
            "Drop fullgraph=True, or compile the repeated blocks before the hooks are set up "
            "(pipe.transformer.compile_repeated_blocks()), and enable offloading once only.",
            ("compile", "offload", "group_offload"),
            stage=Stage.COMPILE,
            confidence="medium",
        ),
    ),
    _family(
        "async_backend_graphs",
        r"cudaMallocAsync does not yet support",
        ("cudaMallocAsyncdoesnotyetsupport",),
        "RuntimeError: cudaMallocAsync does not yet support checkPoolLiveAllocations",
        Cure(
            "The cudaMallocAsync allocator cannot serve CUDA graphs, which torch.compile's reduce-overhead and "
            "max-autotune modes use.",
            "Use the default allocator (remove backend:cudaMallocAsync), or compile with a mode without CUDA graphs.",
            ("allocator", "compile"),
            stage=Stage.COMPILE,
        ),
        device="cuda",
    ),
    _family(
        "no_gpu",
        r"no kernel image is available|Torch not compiled with CUDA enabled|Found no NVIDIA driver|No CUDA GPUs are avail",
        ("nokernelimage", "notcompiledwithCUDA", "noNVIDIAdriver", "NoCUDAGPUs"),
        "AssertionError: Torch not compiled with CUDA enabled",
        Cure(
            "PyTorch cannot use this GPU: a CPU-only build, a missing driver, or a build without kernels for this "
            "card.",
            "Install the torch build that matches the card and driver (pytorch.org, 'Get Started').",
            ("environment",),
        ),
    ),
    _family(
        "removed_call",
        r"object has no attribute '(?:enable|disable)_vae_(?:tiling|slicing)'",
        ("hasnoattribute",),
        "AttributeError: 'FluxPipeline' object has no attribute 'enable_vae_tiling'",
        Cure(
            "The pipeline has no such call any more: tiling and slicing are methods of the VAE.",
            "Write pipe.vae.enable_tiling() and pipe.vae.enable_slicing().",
            ("vae_memory",),
        ),
    ),
)

FAMILIES = PLACEMENT + QUANTISED + NUMERICS + KERNELS
