/* The CUDA runtime in front of the stub driver, preloaded before the real libcudart: launches do nothing, streams are
 * counters, and an event is over once the bench has advanced its stream past it.
 *
 * ORACLE_SM (e.g. 89), ORACLE_SMS and ORACLE_OPTIN (bytes) say which card the kernels are chosen for.
 * ORACLE_PINNED (bytes) limits pinned host memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <driver_types.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

extern size_t oracle_total(void), oracle_free(void);
extern int oracle_malloc(void **, size_t), oracle_release(void *);

#define STREAMS 4096
static long asked[STREAMS], passed[STREAMS]; /* events recorded on a stream, and how far it has come */
static int manual;                           /* 0: every stream is always done */
struct event { int stream; long number; };
static struct event pool[1 << 20];
static uint64_t events = 1;
static size_t pinned, pinned_limit;
static struct { void *at; size_t size; } pins[1 << 16];
static int pin_count;

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
static int slot(void *stream) { return (int)(((uintptr_t)stream >> 4) % STREAMS); }

/* --- for the bench */
void oracle_manual(int on) { manual = on; }
void oracle_advance(void *stream) { passed[slot(stream)] = asked[slot(stream)]; }
size_t oracle_pinned(void) { return pinned; }

/* --- devices */
cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return 0; }
cudaError_t cudaGetDevice(int *d) { *d = 0; return 0; }
cudaError_t cudaSetDevice(int d) { return d ? cudaErrorInvalidDevice : 0; }
cudaError_t cudaDriverGetVersion(int *v) { *v = number("ORACLE_CUDA", 12040); return 0; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = number("ORACLE_CUDA", 12040); return 0; }
static cudaError_t properties(struct cudaDeviceProp *p) {
    int sm = number("ORACLE_SM", 89);
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Stub GPU");
    p->totalGlobalMem = oracle_total();
    p->sharedMemPerBlock = 49152;
    p->sharedMemPerBlockOptin = number("ORACLE_OPTIN", 101376);
    p->sharedMemPerMultiprocessor = number("ORACLE_OPTIN", 101376) + 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->maxThreadsPerMultiProcessor = sm == 75 ? 1024 : sm == 80 || sm == 90 || sm == 100 ? 2048 : 1536;
    p->maxBlocksPerMultiProcessor = sm == 75 || sm == 86 ? 16 : sm == 89 ? 24 : 32;
    p->l2CacheSize = 64 << 20;
    p->memoryBusWidth = 384;
    p->major = sm / 10;
    p->minor = sm % 10;
    p->multiProcessorCount = number("ORACLE_SMS", 128);
    p->unifiedAddressing = p->concurrentKernels = p->canMapHostMemory = p->cooperativeLaunch = 1;
    return 0;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) { return properties(p); }
cudaError_t cudaGetDeviceProperties_v2(struct cudaDeviceProp *p, int d) { return properties(p); }
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
    int sm = number("ORACLE_SM", 89);
    switch ((int)a) {
    case 16: *v = number("ORACLE_SMS", 128); break;
    case 39: *v = sm == 75 ? 1024 : sm == 80 || sm >= 90 ? 2048 : 1536; break;
    case 75: *v = sm / 10; break;
    case 76: *v = sm % 10; break;
    case 97: *v = number("ORACLE_OPTIN", 101376); break;
    case 95: *v = 1; break;
    default: *v = 1024;
    }
    return 0;
}
cudaError_t cudaDeviceGetPCIBusId(char *out, int size, int d) { strncpy(out, "0000:00:00.0", size); return 0; }
cudaError_t cudaDeviceCanAccessPeer(int *c, int a, int b) { *c = 0; return 0; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *low, int *high) { *low = 0; *high = -5; return 0; }

/* --- memory */
cudaError_t cudaMemGetInfo(size_t *f, size_t *t) { *f = oracle_free(); *t = oracle_total(); return 0; }
cudaError_t cudaMalloc(void **p, size_t n) { return oracle_malloc(p, n); }
cudaError_t cudaFree(void *p) { return oracle_release(p); }
static int room_to_pin(size_t n) {
    const char *text = getenv("ORACLE_PINNED");
    pinned_limit = text ? strtoull(text, 0, 10) : SIZE_MAX;
    return pinned + n <= pinned_limit;
}
static void pin(void *at, size_t n) {
    pins[pin_count].at = at;
    pins[pin_count++].size = n;
    pinned += n;
}
static size_t unpin(void *p) { /* its size; 0: nothing is pinned there */
    for (int i = 0; i < pin_count; i++)
        if (pins[i].at == p) {
            size_t size = pins[i].size;
            pinned -= size;
            pins[i] = pins[--pin_count];
            return size;
        }
    return 0;
}
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags) {
    *p = 0;
    if (!room_to_pin(n)) return cudaErrorMemoryAllocation;
    void *at = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return cudaErrorMemoryAllocation;
    pin(*p = at, n);
    return 0;
}
cudaError_t cudaFreeHost(void *p) {
    size_t size = unpin(p);
    if (!size) return cudaErrorInvalidValue;
    munmap(p, size);
    return 0;
}
cudaError_t cudaHostRegister(void *p, size_t n, unsigned flags) {
    if (!room_to_pin(n)) return cudaErrorMemoryAllocation;
    pin(p, n);
    return 0;
}
cudaError_t cudaHostUnregister(void *p) { return unpin(p) ? 0 : cudaErrorInvalidValue; }
cudaError_t cudaHostGetDevicePointer(void **d, void *h, unsigned flags) { *d = h; return 0; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->type = cudaMemoryTypeUnregistered;
    if ((uintptr_t)p >= 0x700000000000ULL && (uintptr_t)p < 0x780000000000ULL) a->type = cudaMemoryTypeDevice;
    for (int i = 0; i < pin_count; i++)
        if ((char *)p >= (char *)pins[i].at && (char *)p < (char *)pins[i].at + pins[i].size) a->type = cudaMemoryTypeHost;
    return 0;
}
#define DOES_NOTHING(name) cudaError_t name(void) { return 0; }
DOES_NOTHING(cudaMemset) DOES_NOTHING(cudaMemsetAsync) DOES_NOTHING(cudaMemcpy) DOES_NOTHING(cudaMemcpyAsync)
DOES_NOTHING(cudaMemcpy2DAsync) DOES_NOTHING(cudaMemcpyToSymbol) DOES_NOTHING(cudaMemcpyPeerAsync)
DOES_NOTHING(cudaGetLastError) DOES_NOTHING(cudaPeekAtLastError) DOES_NOTHING(cudaDeviceSynchronize)
DOES_NOTHING(cudaLaunchHostFunc) DOES_NOTHING(cudaStreamAddCallback)

/* --- streams and events */
static uintptr_t next_stream = 0x1000;
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int p) { *s = (cudaStream_t)(next_stream += 16); return 0; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { *s = (cudaStream_t)(next_stream += 16); return 0; }
cudaError_t cudaStreamGetPriority(cudaStream_t s, int *p) { *p = 0; return 0; }
DOES_NOTHING(cudaStreamSynchronize) DOES_NOTHING(cudaStreamQuery) DOES_NOTHING(cudaStreamWaitEvent)
DOES_NOTHING(cudaStreamDestroy) DOES_NOTHING(cudaEventDestroy) DOES_NOTHING(cudaEventSynchronize)
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = 0; return 0; }
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = 0; return 0; }
cudaError_t cudaStreamGetCaptureInfo_v3(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = 0; return 0; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = 0; return 0; }
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *m) { return 0; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { *e = (cudaEvent_t)(events++); return 0; }
cudaError_t cudaEventCreate(cudaEvent_t *e) { *e = (cudaEvent_t)(events++); return 0; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    struct event *event = &pool[(uint64_t)e % (1 << 20)];
    event->stream = slot(s);
    event->number = ++asked[event->stream];
    return 0;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) { return cudaEventRecord(e, s); }
cudaError_t cudaEventQuery(cudaEvent_t e) {
    struct event *event = &pool[(uint64_t)e % (1 << 20)];
    return manual && event->number > passed[event->stream] ? cudaErrorNotReady : 0;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 0; return 0; }

/* --- kernels */
DOES_NOTHING(cudaLaunchKernel) DOES_NOTHING(cudaLaunchKernelExC) DOES_NOTHING(cudaLaunchCooperativeKernel)
DOES_NOTHING(__cudaLaunchKernel) DOES_NOTHING(__cudaLaunchKernel_ptsz) DOES_NOTHING(cudaFuncSetAttribute)
DOES_NOTHING(cudaKernelSetAttributeForDevice) DOES_NOTHING(cudaFuncSetCacheConfig)
cudaError_t __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return 0; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    a->numRegs = 32;
    /* PyTorch is not built for 8.9: such a card runs the code for 8.6. */
    a->binaryVersion = a->ptxVersion = number("ORACLE_SM", 89) == 89 ? 86 : number("ORACLE_SM", 89);
    return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *f, int b, size_t s) { *n = 2; return 0; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned fl) {
    *n = 2;
    return 0;
}
static cudaError_t entry(const char *name, void **out, int *status) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    *out = driver ? dlsym(driver, name) : 0;
    if (status) *status = *out ? 0 : 1;
    return *out ? 0 : cudaErrorSymbolNotFound;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned v, unsigned long long f, int *status) {
    return entry(name, out, status);
}
cudaError_t cudaGetDriverEntryPoint(const char *name, void **out, unsigned long long f, int *status) {
    return entry(name, out, status);
}
