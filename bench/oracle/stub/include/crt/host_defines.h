/* The CUDA headers in the wheels refer to this file of the compiler's package; for plain C these names mean nothing. */
#pragma once
#define __device_builtin__
#define __host__
#define __device__
#define __cudart_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define CUDART_DEVICE
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __CUDA_ARCH_HAS_FEATURE__(x) 0
