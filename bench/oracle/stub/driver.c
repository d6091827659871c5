/* libcuda.so.1 of a machine that has no GPU: it keeps the books of a card's memory and does nothing else.
 *
 * The card is described by the environment: ORACLE_VRAM (bytes), ORACLE_OUTSIDE (bytes taken by the context and others).
 * Addresses only grow, so that ties between equal blocks are the same in every run.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE (2ULL << 20)
#define RANGES (1 << 20)
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NOT_SUPPORTED = 801 };

static size_t total, outside, used;
static uintptr_t next_address = 0x700000000000ULL;
static struct { uintptr_t at; size_t size; } ranges[RANGES];
static int range_count;
static size_t handle_size[RANGES];
static uint64_t handles = 1;

__attribute__((constructor)) static void start(void) {
    const char *text = getenv("ORACLE_VRAM");
    total = text ? strtoull(text, 0, 10) : 24ULL << 30;
    text = getenv("ORACLE_OUTSIDE");
    outside = text ? strtoull(text, 0, 10) : 500ULL << 20;
}

/* --- what the runtime stub and the bench use */
size_t oracle_total(void) { return total; }
size_t oracle_used(void) { return outside + used; }
size_t oracle_free(void) { return total > outside + used ? total - outside - used : 0; }
void oracle_set_outside(size_t bytes) { outside = bytes; }
uintptr_t oracle_reserve(size_t size) {
    uintptr_t at = next_address;
    next_address += (size + PAGE - 1) & ~(PAGE - 1);
    return at;
}
int oracle_take(size_t size) {
    if (size > oracle_free()) return NO_MEMORY;
    used += size;
    return OK;
}
int oracle_malloc(void **out, size_t size) {
    *out = 0;
    if (oracle_take(size)) return NO_MEMORY;
    if (range_count == RANGES) return INVALID;
    ranges[range_count].at = oracle_reserve(size);
    ranges[range_count].size = size;
    *out = (void *)ranges[range_count++].at;
    return OK;
}
int oracle_release(void *at) {
    for (int i = range_count - 1; at && i >= 0; i--)
        if (ranges[i].at == (uintptr_t)at) {
            used -= ranges[i].size;
            ranges[i] = ranges[--range_count];
            return OK;
        }
    return at ? INVALID : OK;
}

/* --- the driver's own names */
int cuMemAddressReserve(uintptr_t *out, size_t size, size_t align, uintptr_t hint, unsigned long long flags) {
    *out = oracle_reserve(size);
    return OK;
}
int cuMemAddressFree(uintptr_t at, size_t size) { return OK; }
int cuMemCreate(uint64_t *out, size_t size, const void *prop, unsigned long long flags) {
    if (oracle_take(size)) return NO_MEMORY;
    handle_size[handles % RANGES] = size;
    *out = handles++;
    return OK;
}
int cuMemRelease(uint64_t handle) {
    used -= handle_size[handle % RANGES];
    return OK;
}
int cuMemMap(uintptr_t at, size_t size, size_t offset, uint64_t handle, unsigned long long flags) { return OK; }
int cuMemUnmap(uintptr_t at, size_t size) { return OK; }
int cuMemSetAccess(uintptr_t at, size_t size, const void *desc, size_t count) { return OK; }
int cuMemGetAllocationGranularity(size_t *out, const void *prop, int option) {
    *out = PAGE;
    return OK;
}
int cuDeviceGet(int *out, int ordinal) { *out = ordinal; return OK; }
int cuDeviceGetCount(int *out) { *out = 1; return OK; }
int cuDeviceGetAttribute(int *out, int attribute, int device) { *out = 0; return OK; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return OK; }
int cuCtxGetCurrent(void **out) { *out = (void *)0x1; return OK; }
int cuGetErrorString(int error, const char **out) { *out = "error of the stub driver"; return OK; }
int cuGetErrorName(int error, const char **out) { *out = "CUDA_ERROR_STUB"; return OK; }

#define DOES_NOTHING(name) int name(void) { return OK; }
#define REFUSES(name) int name(void) { return NOT_SUPPORTED; }
DOES_NOTHING(cuInit) DOES_NOTHING(cuCtxSetCurrent) DOES_NOTHING(cuCtxPopCurrent) DOES_NOTHING(cuCtxPushCurrent)
DOES_NOTHING(cuDevicePrimaryCtxRetain) DOES_NOTHING(cuDeviceGetUuid) DOES_NOTHING(cuFuncGetAttribute)
DOES_NOTHING(cuFuncSetAttribute) DOES_NOTHING(cuFuncSetCacheConfig) DOES_NOTHING(cuLaunchKernel)
DOES_NOTHING(cuLaunchCooperativeKernel) DOES_NOTHING(cuLinkCreate_v2) DOES_NOTHING(cuLinkAddData_v2)
DOES_NOTHING(cuLinkComplete) DOES_NOTHING(cuModuleLoad) DOES_NOTHING(cuModuleLoadData) DOES_NOTHING(cuModuleLoadDataEx)
DOES_NOTHING(cuModuleGetFunction) DOES_NOTHING(cuModuleUnload) DOES_NOTHING(cuMemsetD32Async)
DOES_NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor) DOES_NOTHING(cuPointerGetAttribute)
DOES_NOTHING(cuStreamWriteValue32) DOES_NOTHING(cuTensorMapEncodeTiled)
REFUSES(cuMemExportToShareableHandle) REFUSES(cuMemImportFromShareableHandle) REFUSES(cuMemGetAddressRange)
REFUSES(cuMemGetAddressRange_v2) REFUSES(cuMemRetainAllocationHandle) REFUSES(cuMemGetAllocationPropertiesFromHandle)
REFUSES(cuMulticastCreate) REFUSES(cuMulticastAddDevice) REFUSES(cuMulticastBindMem) REFUSES(cuMulticastUnbind)
REFUSES(cuCtxFromGreenCtx) REFUSES(cuDevResourceGenerateDesc) REFUSES(cuDevSmResourceSplitByCount)
REFUSES(cuDeviceGetDevResource) REFUSES(cuGreenCtxCreate) REFUSES(cuGreenCtxDestroy) REFUSES(cuGreenCtxStreamCreate)
