/* libnvidia-ml.so.1: one card on which this process, and perhaps another one, hold memory.
 *
 * ORACLE_NVML=own or own,PID:BYTES says which processes the list has; without it NVML cannot be started.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern size_t oracle_used(void);

struct process { unsigned pid; unsigned long long used; };

int nvmlInit_v2(void) { return getenv("ORACLE_NVML") ? 0 : 999; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **out) { *out = (void *)1; return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = 12040; return 0; }
int nvmlDeviceGetNvLinkRemoteDeviceType(void) { return 3; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void) { return 3; }
int nvmlDeviceGetGpuFabricInfoV(void *device, void *info) { return 0; }
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, struct process *out) {
    unsigned pid, n = 0;
    unsigned long long bytes = 0;
    const char *text = getenv("ORACLE_NVML");
    if (text && sscanf(text, "own,%u:%llu", &pid, &bytes) == 2) {
        out[n].pid = pid;
        out[n++].used = bytes;
    }
    out[n].pid = getpid();
    out[n++].used = oracle_used() - bytes;
    *count = n;
    return 0;
}
