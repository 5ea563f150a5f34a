/* libcuda.so.1 of the dry device: memory, copies, streams, events and handles; kernels do nothing.
 *
 * Device memory is host memory, zero when allocated, counted and bounded. Copies and sets happen at once. What a
 * kernel would have written stays as it was, so nothing that is read back means anything.
 *
 * Environment: DRY_CUDA_DEVICES (devices, 1), DRY_CUDA_BYTES (memory of the device in bytes, 80 GiB),
 * DRY_CUDA_DRIVER (version as CUDA counts it, 13000), DRY_CUDA_REPORT (a file, or "-" for stderr: totals at exit),
 * DRY_CUDA_LAUNCHES (the same, with each kernel loaded by name and how often it was launched). */
#define _GNU_SOURCE
#include "driver.h"
#include <dlfcn.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef struct {
    char *start;
    size_t bytes;
    int kind;
    int mapped;
} Block;

typedef struct {
    struct timespec at;
} Event;

typedef struct Function {
    char *name;
    size_t launches;
    struct Function *next;
} Function;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *blocks;
static size_t in_use, peak, pinned, allocations, to_device, to_host, within, copies, launches;
static Function *functions;

static size_t number(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static size_t capacity(void) { return number("DRY_CUDA_BYTES", (size_t)80 << 30); }
int dry_devices(void) { return (int)number("DRY_CUDA_DEVICES", 1); }
int dry_driver_version(void) { return (int)number("DRY_CUDA_DRIVER", 13000); }

static int apart(const void *a, const void *b) {
    const Block *x = a, *y = b;
    if (x->start + x->bytes <= y->start) return -1;
    return y->start + y->bytes <= x->start ? 1 : 0;
}

static Block *under(const void *pointer) {
    Block wanted = {(char *)pointer, 1, 0, 0};
    Block **found = tfind(&wanted, &blocks, apart);
    return found ? *found : NULL;
}

int dry_alloc(void **out, size_t bytes, int kind) {
    if (!out) return INVALID_VALUE;
    *out = NULL;
    size_t size = bytes ? (bytes + 511) & ~(size_t)511 : 512;
    int mapped = size >= 1 << 16;
    pthread_mutex_lock(&lock);
    int fits = kind != DEVICE || (size >= bytes && in_use + size <= capacity());
    if (fits && kind == DEVICE) {
        in_use += size;
        allocations++;
        if (in_use > peak) peak = in_use;
    }
    pthread_mutex_unlock(&lock);
    if (!fits) return OUT_OF_MEMORY;
    char *start = mapped ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                         : aligned_alloc(512, size);
    if (!start || start == MAP_FAILED) return OUT_OF_MEMORY;
    if (!mapped) memset(start, 0, size);
    Block *block = malloc(sizeof *block);
    *block = (Block){start, size, kind, mapped};
    pthread_mutex_lock(&lock);
    if (kind == PINNED) pinned += size;
    tsearch(block, &blocks, apart);
    pthread_mutex_unlock(&lock);
    *out = start;
    return SUCCESS;
}

int dry_free(void *pointer) {
    if (!pointer) return SUCCESS;
    pthread_mutex_lock(&lock);
    Block *block = under(pointer);
    if (block && block->start != pointer) block = NULL;
    if (block) {
        tdelete(block, &blocks, apart);
        if (block->kind == DEVICE) in_use -= block->bytes;
        else pinned -= block->bytes;
    }
    pthread_mutex_unlock(&lock);
    if (!block) return INVALID_VALUE;
    if (block->mapped) munmap(block->start, block->bytes);
    else free(block->start);
    free(block);
    return SUCCESS;
}

int dry_kind(const void *pointer) {
    pthread_mutex_lock(&lock);
    Block *block = under(pointer);
    int kind = block ? block->kind : UNREGISTERED;
    pthread_mutex_unlock(&lock);
    return kind;
}

void dry_copied(const void *to, const void *from, size_t bytes) {
    int there = dry_kind(to) == DEVICE, here = dry_kind(from) == DEVICE;
    pthread_mutex_lock(&lock);
    copies++;
    if (there && here) within += bytes;
    else if (there) to_device += bytes;
    else if (here) to_host += bytes;
    pthread_mutex_unlock(&lock);
}

void dry_launched(const char *name) {
    (void)name;
    __atomic_fetch_add(&launches, 1, __ATOMIC_RELAXED);
}

void dry_memory(size_t *available, size_t *total) {
    if (available) *available = capacity() - in_use;
    if (total) *total = capacity();
}

void *dry_handle(size_t bytes) { return calloc(1, bytes < 64 ? 64 : bytes); }

/* The streams NULL, 1 (legacy) and 2 (per thread) are no pointers. */
static int real(const Stream *stream) { return (uintptr_t)stream > 2; }
int dry_capturing(const Stream *stream) { return real(stream) ? stream->capturing : 0; }
int dry_capture(Stream *stream, int on) {
    if (!real(stream) || stream->capturing == on) return INVALID_VALUE;
    stream->capturing = on;
    return SUCCESS;
}

/* An H100's attributes, by the numbers of cudaDeviceAttr (the driver's are the same). */
int dry_attribute(int *value, int attribute) {
    static const int table[][2] = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, 49152}, {9, 65536},
        {10, 32}, {11, 2147483647}, {12, 65536}, {13, 1980000}, {14, 512}, {15, 1}, {16, 132}, {19, 1}, {31, 1},
        {32, 1}, {33, 1}, {36, 2619000}, {37, 5120}, {38, 52428800}, {39, 2048}, {40, 3}, {41, 1}, {75, 9}, {76, 0},
        {78, 1}, {79, 1}, {80, 1}, {81, 233472}, {82, 65536}, {83, 1}, {87, 2}, {89, 1}, {90, 1}, {91, 1}, {95, 1},
        {97, 232448}, {98, 1}, {99, 1}, {106, 32}, {108, 32768000}, {109, 134213632}, {111, 1024}, {112, 1}, {115, 1},
        {120, 1}, {121, 1}, {125, 1},
    };
    *value = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i][0] == attribute) *value = table[i][1];
    return SUCCESS;
}

__attribute__((destructor)) static void report(void) {
    const char *each = getenv("DRY_CUDA_LAUNCHES"), *path = each ? each : getenv("DRY_CUDA_REPORT");
    if (!path) return;
    FILE *file = strcmp(path, "-") ? fopen(path, "a") : stderr;
    if (!file) return;
    fprintf(file,
            "dry CUDA device: peak %zu bytes in %zu allocations, %zu bytes left allocated; %zu launches; %zu copies: "
            "%zu bytes to the device, %zu to the host, %zu within\n",
            peak, allocations, in_use, launches, copies, to_device, to_host, within);
    for (Function *f = functions; each && f; f = f->next) fprintf(file, "  %zu x %s\n", f->launches, f->name);
    if (file != stderr) fclose(file);
}

/* The driver's interface. */
typedef unsigned long long Address;
static int context;

int cuInit(unsigned flags) { (void)flags; return dry_devices() ? SUCCESS : NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = dry_driver_version(); return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = dry_devices(); return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= dry_devices()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    snprintf(name, (size_t)length, "dry CUDA device (computes nothing)");
    return SUCCESS;
}
int cuDeviceGetUuid(char *bytes, int device) { memset(bytes, 0xd0 + device, 16); return SUCCESS; }
int cuDeviceGetUuid_v2(char *bytes, int device) { return cuDeviceGetUuid(bytes, device); }
int cuDeviceGetPCIBusId(char *name, int length, int device) {
    snprintf(name, (size_t)length, "0000:%02x:00.0", device + 1);
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = capacity(); return SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)device; return dry_attribute(value, attribute); }
int cuDeviceComputeCapability(int *major, int *minor, int device) {
    (void)device;
    *major = 9;
    *minor = 0;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **out, int device) { (void)device; *out = &context; return SUCCESS; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    (void)device;
    *flags = 0;
    *active = 1;
    return SUCCESS;
}
int cuCtxGetCurrent(void **out) { *out = &context; return SUCCESS; }
int cuCtxGetDevice(int *device) { *device = 0; return SUCCESS; }
int cuCtxCreate_v2(void **out, unsigned flags, int device) { (void)flags; (void)device; *out = &context; return SUCCESS; }
int cuCtxCreate_v4(void **out, void *p, unsigned f, int d) { (void)p; (void)f; (void)d; *out = &context; return SUCCESS; }
int cuCtxPopCurrent_v2(void **out) { if (out) *out = &context; return SUCCESS; }
int cuCtxGetLimit(size_t *value, int limit) { (void)limit; *value = 1024; return SUCCESS; }
int cuCtxGetCacheConfig(int *value) { *value = 0; return SUCCESS; }
int cuCtxGetStreamPriorityRange(int *least, int *most) {
    if (least) *least = 0;
    if (most) *most = -5;
    return SUCCESS;
}

int cuMemAlloc_v2(Address *out, size_t bytes) { return bytes ? dry_alloc((void **)out, bytes, DEVICE) : INVALID_VALUE; }
int cuMemAllocAsync(Address *out, size_t bytes, void *stream) { (void)stream; return cuMemAlloc_v2(out, bytes); }
int cuMemAllocFromPoolAsync(Address *out, size_t bytes, void *pool, void *stream) {
    (void)pool;
    (void)stream;
    return cuMemAlloc_v2(out, bytes);
}
int cuMemAllocManaged(Address *out, size_t bytes, unsigned flags) { (void)flags; return cuMemAlloc_v2(out, bytes); }
int cuMemFree_v2(Address pointer) { return dry_free((void *)pointer); }
int cuMemFreeAsync(Address pointer, void *stream) { (void)stream; return dry_free((void *)pointer); }
int cuMemHostAlloc(void **out, size_t bytes, unsigned flags) { (void)flags; return dry_alloc(out, bytes, PINNED); }
int cuMemAllocHost_v2(void **out, size_t bytes) { return dry_alloc(out, bytes, PINNED); }
int cuMemFreeHost(void *pointer) { return dry_free(pointer); }
int cuMemHostGetDevicePointer_v2(Address *out, void *host, unsigned flags) {
    (void)flags;
    *out = (Address)host;
    return SUCCESS;
}
int cuMemGetInfo_v2(size_t *available, size_t *total) { dry_memory(available, total); return SUCCESS; }
int cuMemGetAddressRange_v2(Address *start, size_t *bytes, Address pointer) {
    pthread_mutex_lock(&lock);
    Block *block = under((void *)pointer);
    if (block && start) *start = (Address)block->start;
    if (block && bytes) *bytes = block->bytes;
    pthread_mutex_unlock(&lock);
    return block ? SUCCESS : NOT_FOUND;
}
/* CONTEXT 1, MEMORY_TYPE 2 (host 1, device 2), DEVICE_POINTER 3, HOST_POINTER 4, DEVICE_ORDINAL 9. */
int cuPointerGetAttribute(void *data, int attribute, Address pointer) {
    int kind = dry_kind((void *)pointer);
    if (kind == UNREGISTERED) return INVALID_VALUE;
    if (attribute == 1) *(void **)data = &context;
    else if (attribute == 2) *(unsigned *)data = (unsigned)kind;
    else if (attribute == 3 || attribute == 4) *(Address *)data = pointer;
    else *(int *)data = 0;
    return SUCCESS;
}

static int copy(void *to, const void *from, size_t bytes) {
    dry_copied(to, from, bytes);
    memmove(to, from, bytes);
    return SUCCESS;
}
int cuMemcpy(Address to, Address from, size_t n) { return copy((void *)to, (void *)from, n); }
int cuMemcpyAsync(Address to, Address from, size_t n, void *s) { (void)s; return copy((void *)to, (void *)from, n); }
int cuMemcpyHtoD_v2(Address to, const void *from, size_t n) { return copy((void *)to, from, n); }
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t n, void *s) { (void)s; return copy((void *)to, from, n); }
int cuMemcpyDtoH_v2(void *to, Address from, size_t n) { return copy(to, (void *)from, n); }
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t n, void *s) { (void)s; return copy(to, (void *)from, n); }
int cuMemcpyDtoD_v2(Address to, Address from, size_t n) { return copy((void *)to, (void *)from, n); }
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t n, void *s) {
    (void)s;
    return copy((void *)to, (void *)from, n);
}
int cuMemcpyPeerAsync(Address to, void *a, Address from, void *b, size_t n, void *s) {
    (void)a;
    (void)b;
    (void)s;
    return copy((void *)to, (void *)from, n);
}
int cuMemsetD8_v2(Address to, unsigned char v, size_t n) { memset((void *)to, v, n); return SUCCESS; }
int cuMemsetD8Async(Address to, unsigned char v, size_t n, void *s) { (void)s; return cuMemsetD8_v2(to, v, n); }
int cuMemsetD16_v2(Address to, unsigned short v, size_t n) {
    for (size_t i = 0; i < n; i++) ((unsigned short *)to)[i] = v;
    return SUCCESS;
}
int cuMemsetD16Async(Address to, unsigned short v, size_t n, void *s) { (void)s; return cuMemsetD16_v2(to, v, n); }
int cuMemsetD32_v2(Address to, unsigned v, size_t n) {
    for (size_t i = 0; i < n; i++) ((unsigned *)to)[i] = v;
    return SUCCESS;
}
int cuMemsetD32Async(Address to, unsigned v, size_t n, void *s) { (void)s; return cuMemsetD32_v2(to, v, n); }

static int handle(void **out, size_t bytes) {
    *out = dry_handle(bytes);
    return *out ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemPoolCreate(void **out, const void *properties) { (void)properties; return handle(out, 64); }
int cuDeviceGetDefaultMemPool(void **out, int device) { static int pool; (void)device; *out = &pool; return SUCCESS; }
int cuDeviceGetMemPool(void **out, int device) { return cuDeviceGetDefaultMemPool(out, device); }
/* Attributes 1 to 3 are ints, the others 64 bits: the bytes in use are 5 to 8. */
int cuMemPoolGetAttribute(void *pool, int attribute, void *value) {
    (void)pool;
    if (attribute <= 3) *(int *)value = 0;
    else *(uint64_t *)value = attribute == 4 ? 0 : attribute % 2 ? in_use : peak;
    return SUCCESS;
}

int cuStreamCreate(void **out, unsigned flags) { (void)flags; return handle(out, sizeof(Stream)); }
int cuStreamCreateWithPriority(void **out, unsigned f, int p) { (void)p; return cuStreamCreate(out, f); }
int cuStreamDestroy_v2(void *stream) { if (real(stream)) free(stream); return SUCCESS; }
int cuStreamGetCtx(void *stream, void **out) { (void)stream; *out = &context; return SUCCESS; }
int cuStreamGetFlags(void *stream, unsigned *flags) { (void)stream; *flags = 1; return SUCCESS; }
int cuStreamGetPriority(void *stream, int *priority) { (void)stream; *priority = 0; return SUCCESS; }
int cuStreamIsCapturing(void *stream, int *status) { *status = dry_capturing(stream); return SUCCESS; }
int cuStreamBeginCapture_v2(void *stream, int mode) { (void)mode; return dry_capture(stream, 1); }
int cuStreamEndCapture(void *stream, void **graph) {
    int status = dry_capture(stream, 0);
    return status ? status : handle(graph, 64);
}
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    (void)stream;
    function(data);
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(void **out, void *graph, unsigned long long f) { (void)graph; (void)f; return handle(out, 64); }
int cuGraphDestroy(void *graph) { free(graph); return SUCCESS; }
int cuGraphExecDestroy(void *graph) { free(graph); return SUCCESS; }

int cuEventCreate(void **out, unsigned flags) { (void)flags; return handle(out, sizeof(Event)); }
int cuEventDestroy_v2(void *event) { free(event); return SUCCESS; }
int cuEventRecord(void *event, void *stream) {
    (void)stream;
    clock_gettime(CLOCK_MONOTONIC, &((Event *)event)->at);
    return SUCCESS;
}
int cuEventRecordWithFlags(void *event, void *stream, unsigned flags) { (void)flags; return cuEventRecord(event, stream); }
int cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    struct timespec a = ((Event *)from)->at, b = ((Event *)to)->at;
    *milliseconds = (float)(b.tv_sec - a.tv_sec) * 1e3f + (float)(b.tv_nsec - a.tv_nsec) * 1e-6f;
    return SUCCESS;
}
int cuEventElapsedTime(float *milliseconds, void *from, void *to) { return cuEventElapsedTime_v2(milliseconds, from, to); }

int cuModuleLoad(void **out, const char *path) { (void)path; return handle(out, 64); }
int cuModuleLoadData(void **out, const void *image) { return image ? handle(out, 64) : INVALID_VALUE; }
int cuModuleLoadDataEx(void **out, const void *image, unsigned n, void *options, void *values) {
    (void)n;
    (void)options;
    (void)values;
    return cuModuleLoadData(out, image);
}
int cuModuleGetFunction(void **out, void *module, const char *name) {
    (void)module;
    Function *function = dry_handle(sizeof *function);
    function->name = strdup(name);
    pthread_mutex_lock(&lock);
    function->next = functions;
    functions = function;
    pthread_mutex_unlock(&lock);
    *out = function;
    return SUCCESS;
}
int cuModuleGetGlobal_v2(Address *out, size_t *bytes, void *module, const char *name) {
    (void)module;
    (void)name;
    if (bytes) *bytes = 4096;
    return out ? cuMemAlloc_v2(out, 4096) : SUCCESS;
}
int cuLibraryLoadData(void **out, const void *image) { return cuModuleLoadData(out, image); }
int cuLibraryGetKernel(void **out, void *library, const char *name) { return cuModuleGetFunction(out, library, name); }
int cuKernelGetFunction(void **out, void *kernel) { *out = kernel; return SUCCESS; }
int cuFuncGetAttribute(int *value, int attribute, void *function) {
    static const int values[] = {1024, 0, 0, 0, 32, 90, 90, 0, 232448, 0};
    (void)function;
    *value = attribute >= 0 && attribute < 10 ? values[attribute] : 0;
    return SUCCESS;
}
int cuLaunchKernel(void *function) {
    launches++;
    __atomic_fetch_add(&((Function *)function)->launches, 1, __ATOMIC_RELAXED);
    return SUCCESS;
}
int cuLaunchCooperativeKernel(void *function) { return cuLaunchKernel(function); }
/* The first field of the configuration is not the function: it comes second. */
int cuLaunchKernelEx(const void *configuration, void *function) { (void)configuration; return cuLaunchKernel(function); }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks) { *blocks = 2; return SUCCESS; }
int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 2; return SUCCESS; }
int cuOccupancyMaxPotentialBlockSize(int *grid, int *block) { *grid = 264; *block = 1024; return SUCCESS; }
int cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block) { *grid = 264; *block = 1024; return SUCCESS; }
int cuOccupancyAvailableDynamicSMemPerBlock(size_t *bytes) { *bytes = 232448; return SUCCESS; }

static const char *name_of(int error) {
    switch (error) {
        case SUCCESS: return "CUDA_SUCCESS";
        case INVALID_VALUE: return "CUDA_ERROR_INVALID_VALUE";
        case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
        case NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
        case INVALID_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
        case NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
        default: return "CUDA_ERROR_UNKNOWN";
    }
}
int cuGetErrorName(int error, const char **text) { *text = name_of(error); return SUCCESS; }
int cuGetErrorString(int error, const char **text) { *text = name_of(error); return SUCCESS; }

static void *symbol(const char *name) {
    char newer[128];
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    snprintf(newer, sizeof newer, "%s_v2", name);
    void *found = self ? dlsym(self, newer) : NULL;
    return found || !self ? found : dlsym(self, name);
}
/* NVRTC asks for tables that only the real driver has; without one it compiles all the same. */
int cuGetExportTable(const void **table, const void *id) {
    (void)id;
    *table = NULL;
    return 500;
}

int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags) {
    (void)version;
    (void)flags;
    *out = symbol(name);
    return *out ? SUCCESS : NOT_FOUND;
}
/* The answer 0 is found, 1 is no such symbol. */
int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *answer) {
    int status = cuGetProcAddress(name, out, version, flags);
    if (answer) *answer = status ? 1 : 0;
    return status;
}

#define NOTHING(name) int name(void) { return SUCCESS; }
NOTHING(cuCtxAttach) NOTHING(cuCtxDestroy_v2) NOTHING(cuCtxPushCurrent_v2) NOTHING(cuCtxSetCacheConfig)
NOTHING(cuCtxSetCurrent) NOTHING(cuCtxSetFlags) NOTHING(cuCtxSetLimit) NOTHING(cuCtxSynchronize)
NOTHING(cuCtxEnablePeerAccess) NOTHING(cuDeviceSetMemPool) NOTHING(cuDevicePrimaryCtxRelease_v2)
NOTHING(cuDevicePrimaryCtxReset_v2) NOTHING(cuDevicePrimaryCtxSetFlags_v2) NOTHING(cuEventQuery)
NOTHING(cuEventSynchronize) NOTHING(cuFuncSetAttribute) NOTHING(cuFuncSetCacheConfig) NOTHING(cuGraphLaunch)
NOTHING(cuGraphUpload) NOTHING(cuKernelSetAttribute) NOTHING(cuLibraryUnload) NOTHING(cuMemAdvise)
NOTHING(cuMemAdvise_v2) NOTHING(cuMemHostRegister_v2) NOTHING(cuMemHostUnregister) NOTHING(cuMemPoolDestroy)
NOTHING(cuMemPoolSetAccess) NOTHING(cuMemPoolSetAttribute) NOTHING(cuMemPoolTrimTo) NOTHING(cuMemPrefetchAsync)
NOTHING(cuMemPrefetchAsync_v2) NOTHING(cuModuleUnload) NOTHING(cuProfilerStart) NOTHING(cuProfilerStop)
NOTHING(cuStreamAttachMemAsync) NOTHING(cuStreamQuery) NOTHING(cuStreamSynchronize) NOTHING(cuStreamWaitEvent)
NOTHING(cuTensorMapEncodeTiled) NOTHING(cuThreadExchangeStreamCaptureMode)
