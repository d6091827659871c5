"""CUDA libraries that run out of memory under another name, without figures."""

from __future__ import annotations

from oomdoctor.diagnosis.families.base import Example, Family, squeezed
from oomdoctor.values import Kind

FAMILIES = (
    Family(
        name="cuda_driver",
        device="cuda",
        # "CUDA driver error: out of memory" comes from mapping expandable segments: same cause.
        anchor=squeezed(
            r"CUDA (?:driver )?[Ee]rror : out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
        ),
        needles=("rror:outofmemory", "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"),
        rank=32,
        kind=Kind.MASKED,
        examples=(
            Example(
                "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some "
                "other API call, so the stacktrace below might be incorrect.\nFor debugging consider passing "
                "CUDA_LAUNCH_BLOCKING=1"
            ),
            Example(
                "torch.AcceleratorError: CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in "
                "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information."
            ),
            Example("RuntimeError: CUDA driver error: out of memory"),
        ),
    ),
    Family(
        name="hip_driver",
        device="hip",
        anchor=squeezed(r"HIP error : out of memory|hipErrorOutOfMemory"),
        needles=("HIPerror:outofmemory", "hipErrorOutOfMemory"),
        rank=32,
        kind=Kind.MASKED,
        examples=(Example("RuntimeError: HIP error: out of memory"),),
    ),
    Family(
        name="xpu_driver",
        device="xpu",
        anchor=squeezed(r"UR_RESULT_ERROR_OUT_OF_(?:DEVICE_MEMORY|RESOURCES)|PI_ERROR_OUT_OF_RESOURCES"),
        needles=("_ERROR_OUT_OF_",),
        rank=32,
        kind=Kind.MASKED,
        examples=(
            Example("RuntimeError: level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
        ),
    ),
    Family(
        name="cublas",
        device="cuda",
        anchor=squeezed(r"CUBLAS_STATUS_ALLOC_FAILED"),
        needles=("CUBLAS_STATUS_ALLOC_FAILED",),
        rank=33,
        kind=Kind.MASKED,
        examples=(Example("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),),
    ),
    Family(
        name="cublas_init",
        device="cuda",
        anchor=squeezed(r"CUBLAS_STATUS_NOT_INITIALIZED"),
        needles=("CUBLAS_STATUS_NOT_INITIALIZED",),
        rank=28,
        kind=Kind.MASKED,
        examples=(
            Example("RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        ),
    ),
    Family(
        name="cudnn",
        device="cuda",
        anchor=squeezed(
            r"CUDNN_STATUS_ALLOC_FAILED|Unable to find a valid cuDNN algorithm|GET was unable to find an engine"
            r"|FIND was unable to find an engine"
        ),
        needles=("CUDNN_STATUS_ALLOC_FAILED", "avalidcuDNNalgorithm", "unabletofindanengine"),
        rank=31,
        kind=Kind.MASKED,
        examples=(
            Example("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            Example("RuntimeError: Unable to find a valid cuDNN algorithm to run convolution"),
            Example("RuntimeError: GET was unable to find an engine to execute this computation"),
        ),
    ),
    Family(
        name="cudnn_init",
        device="cuda",
        anchor=squeezed(r"CUDNN_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR)"),
        needles=("CUDNN_STATUS_",),
        rank=28,
        kind=Kind.MASKED,
        examples=(Example("RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),),
    ),
    Family(
        name="nvml_assert",
        device="cuda",
        # The allocator failed while composing its out-of-memory message: MIG, Jetson, a driver of another version.
        anchor=squeezed(r"NVML_SUCCESS == .{1,120}? INTERNAL ASSERT FAILED|NVML_SUCCESS==rINTERNALASSERT"),
        needles=("NVML_SUCCESS==",),
        rank=34,
        kind=Kind.MASKED,
        examples=(
            Example(
                'RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":995, '
                "please report a bug to PyTorch."
            ),
            Example(
                "RuntimeError: NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() INTERNAL ASSERT FAILED at "
                '"/build/c10/cuda/CUDACachingAllocator.cpp":1123, please report a bug to PyTorch.'
            ),
        ),
    ),
    Family(
        name="cuda_headless",
        device="cuda",
        # What every asynchronous CUDA error ends with. Alone, the line that names the error was cut off.
        anchor=squeezed(r"CUDA kernel errors might be asynchronously reported"),
        needles=("CUDAkernelerrorsmightbeasynchronously",),
        rank=3,
        kind=Kind.MASKED,
        examples=(
            Example(
                "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
                "might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
            ),
        ),
    ),
)
