/* cuBLAS and cuBLASLt that compute nothing: what PyTorch allocates around a matrix product becomes visible. */
#include <stdint.h>
#include <string.h>

int cublasCreate_v2(void **handle) { *handle = (void *)0xb1a5; return 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
size_t cublasLtGetVersion(void) { return 120000; }

struct heuristic { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, struct heuristic *found, int *count) {
    memset(found, 0, sizeof *found);
    *count = 1;
    return 0;
}

#define DOES_NOTHING(name) int name(void) { return 0; }
#define ALL(name) DOES_NOTHING(cublasS##name) DOES_NOTHING(cublasD##name) DOES_NOTHING(cublasC##name) DOES_NOTHING(cublasZ##name)
ALL(gemm_v2) ALL(gemv_v2) ALL(gemmStridedBatched) ALL(trsm_v2) ALL(trsmBatched)
DOES_NOTHING(cublasDestroy_v2) DOES_NOTHING(cublasSetStream_v2) DOES_NOTHING(cublasSetWorkspace_v2)
DOES_NOTHING(cublasSetMathMode) DOES_NOTHING(cublasSetPointerMode_v2) DOES_NOTHING(cublasSetSmCountTarget)
DOES_NOTHING(cublasGemmEx) DOES_NOTHING(cublasGemmStridedBatchedEx) DOES_NOTHING(cublasSgemmEx)
DOES_NOTHING(cublasSdot_v2) DOES_NOTHING(cublasDdot_v2) DOES_NOTHING(cublasDotEx)
DOES_NOTHING(cublasLtCreate) DOES_NOTHING(cublasLtMatmul)
DOES_NOTHING(cublasLtMatmulDescDestroy) DOES_NOTHING(cublasLtMatmulDescSetAttribute)
DOES_NOTHING(cublasLtMatmulPreferenceDestroy) DOES_NOTHING(cublasLtMatmulPreferenceSetAttribute)
DOES_NOTHING(cublasLtMatrixLayoutDestroy) DOES_NOTHING(cublasLtMatrixLayoutSetAttribute)
int cublasLtMatmulDescCreate(void **out, int compute, int scale) { *out = (void *)1; return 0; }
int cublasLtMatmulPreferenceCreate(void **out) { *out = (void *)1; return 0; }
int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t cols, int64_t ld) { *out = (void *)1; return 0; }
