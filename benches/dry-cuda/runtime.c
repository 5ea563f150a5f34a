/* libcudart.so.13 of the dry device, over libcuda.so.1: what ONNX Runtime's CUDA provider calls. */
#define _GNU_SOURCE
#include "driver.h"
#include <dlfcn.h>
#include <string.h>

int cuEventRecord(void *, void *);
int cuEventCreate(void **, unsigned);
int cuEventDestroy_v2(void *);
int cuEventElapsedTime_v2(float *, void *, void *);
int cuStreamCreate(void **, unsigned);
int cuStreamDestroy_v2(void *);
int cuStreamEndCapture(void *, void **);
int cuMemPoolGetAttribute(void *, int, void *);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphDestroy(void *);
int cuModuleLoadData(void **, const void *);

/* cudaDeviceProp of CUDA 13. */
typedef struct {
    char name[256], uuid[16], luid[8];
    unsigned luid_mask;
    size_t global, shared_per_block;
    int registers_per_block, warp;
    size_t pitch;
    int threads_per_block, block[3], grid[3];
    size_t constants;
    int major, minor;
    size_t texture_alignment, texture_pitch;
    int multiprocessors, integrated, maps_host, textures_and_surfaces[39];
    size_t surface_alignment;
    int concurrent, ecc, bus, device, domain, tcc, engines, unified, bus_width, l2, persisting_l2;
    int threads_per_multiprocessor, priorities, global_l1, local_l1;
    size_t shared_per_multiprocessor;
    int registers_per_multiprocessor, managed, multi_board, board_group, host_atomics, pageable, concurrent_managed;
    int preemption, registered, cooperative;
    size_t shared_opt_in;
    int page_tables, direct_managed, blocks_per_multiprocessor, access_window;
    size_t shared_reserved;
    int rest[76];
} Properties;

/* Of CUDA 13 as well. */
typedef struct {
    size_t shared, constants, local;
    int threads, registers, ptx, binary, cache, dynamic_shared, carve_out, rest[22];
} FunctionAttributes;

typedef struct {
    int kind, device;
    void *on_device, *on_host;
    long reserved[8];
} PointerAttributes;

typedef struct {
    unsigned x, y, z;
} Dim3;

static int value_of(int attribute) {
    int value;
    dry_attribute(&value, attribute);
    return value;
}

static int attributes(Properties *p) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "dry CUDA device (computes nothing)");
    dry_memory(NULL, &p->global);
    p->shared_per_block = (size_t)value_of(8);
    p->registers_per_block = value_of(12);
    p->warp = value_of(10);
    p->pitch = (size_t)value_of(11);
    p->threads_per_block = value_of(1);
    for (int i = 0; i < 3; i++) p->block[i] = value_of(2 + i), p->grid[i] = value_of(5 + i);
    p->constants = (size_t)value_of(9);
    p->major = value_of(75);
    p->minor = value_of(76);
    p->texture_alignment = (size_t)value_of(14);
    p->texture_pitch = 32;
    p->multiprocessors = value_of(16);
    p->maps_host = 1;
    p->surface_alignment = 512;
    p->concurrent = p->ecc = p->bus = p->unified = 1;
    p->engines = value_of(40);
    p->bus_width = value_of(37);
    p->l2 = value_of(38);
    p->persisting_l2 = value_of(108);
    p->threads_per_multiprocessor = value_of(39);
    p->priorities = p->global_l1 = p->local_l1 = 1;
    p->shared_per_multiprocessor = (size_t)value_of(81);
    p->registers_per_multiprocessor = value_of(82);
    p->managed = p->concurrent_managed = p->preemption = p->registered = p->cooperative = 1;
    p->shared_opt_in = (size_t)value_of(97);
    p->blocks_per_multiprocessor = value_of(106);
    p->shared_reserved = (size_t)value_of(111);
    p->rest[0] = p->rest[4] = p->rest[8] = p->rest[11] = p->rest[12] = 1;
    return SUCCESS;
}

int cudaGetDeviceProperties(void *out, int device) { return device < dry_devices() ? attributes(out) : INVALID_DEVICE; }
int cudaGetDeviceProperties_v2(void *out, int device) { return cudaGetDeviceProperties(out, device); }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { (void)device; return dry_attribute(value, attribute); }
int cudaGetDeviceCount(int *count) { *count = dry_devices(); return *count ? SUCCESS : NO_DEVICE; }

static __thread int current;
int cudaGetDevice(int *device) { *device = current; return SUCCESS; }
int cudaSetDevice(int device) {
    if (device < 0 || device >= dry_devices()) return INVALID_DEVICE;
    current = device;
    return SUCCESS;
}
int cudaDriverGetVersion(int *version) { *version = dry_driver_version(); return SUCCESS; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return SUCCESS; }

/* The last error stays until it is asked for, as CUDA has it. */
static __thread int last;
static int remember(int error) { return error ? last = error : SUCCESS; }
int cudaGetLastError(void) { int error = last; last = SUCCESS; return error; }
int cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorName(int error) {
    return error == SUCCESS ? "cudaSuccess" : error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "cudaErrorOther";
}
const char *cudaGetErrorString(int error) {
    return error == SUCCESS ? "no error" : error == OUT_OF_MEMORY ? "out of memory" : "an error of the dry device";
}

int cudaMalloc(void **out, size_t n) { return remember(dry_alloc(out, n, DEVICE)); }
int cudaMallocAsync(void **out, size_t n, void *s) { (void)s; return cudaMalloc(out, n); }
int cudaMallocFromPoolAsync(void **out, size_t n, void *p, void *s) { (void)p; (void)s; return cudaMalloc(out, n); }
int cudaFree(void *pointer) { return remember(dry_free(pointer)); }
int cudaFreeAsync(void *pointer, void *s) { (void)s; return cudaFree(pointer); }
int cudaHostAlloc(void **out, size_t n, unsigned f) { (void)f; return remember(dry_alloc(out, n, PINNED)); }
int cudaMallocHost(void **out, size_t n, unsigned f) { return cudaHostAlloc(out, n, f); }
int cudaFreeHost(void *pointer) { return remember(dry_free(pointer)); }
int cudaMemGetInfo(size_t *available, size_t *total) { dry_memory(available, total); return SUCCESS; }
int cudaPointerGetAttributes(PointerAttributes *out, const void *pointer) {
    memset(out, 0, sizeof *out);
    out->kind = dry_kind(pointer);
    out->device = out->kind == UNREGISTERED ? -2 : 0;
    if (out->kind == DEVICE) out->on_device = (void *)pointer;
    else out->on_host = (void *)pointer;
    return SUCCESS;
}
int cudaMemPoolCreate(void **out, const void *properties) { (void)properties; *out = dry_handle(64); return SUCCESS; }
int cudaMemPoolGetAttribute(void *pool, int attribute, void *value) { return cuMemPoolGetAttribute(pool, attribute, value); }

int cudaMemcpy(void *to, const void *from, size_t n, int kind) {
    (void)kind;
    dry_copied(to, from, n);
    memmove(to, from, n);
    return SUCCESS;
}
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *s) { (void)s; return cudaMemcpy(to, from, n, kind); }
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows, int kind,
                      void *s) {
    (void)s;
    for (size_t i = 0; i < rows; i++) cudaMemcpy((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width, kind);
    return SUCCESS;
}
int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t n, size_t offset, int kind) {
    (void)symbol;
    (void)offset;
    (void)kind;
    memset(to, 0, n);
    return SUCCESS;
}
int cudaMemset(void *to, int value, size_t n) { memset(to, value, n); return SUCCESS; }
int cudaMemsetAsync(void *to, int value, size_t n, void *s) { (void)s; return cudaMemset(to, value, n); }

int cudaStreamCreate(void **out) { return cuStreamCreate(out, 0); }
int cudaStreamCreateWithFlags(void **out, unsigned flags) { return cuStreamCreate(out, flags); }
int cudaStreamDestroy(void *stream) { return cuStreamDestroy_v2(stream); }
int cudaStreamBeginCapture(void *stream, int mode) { (void)mode; return remember(dry_capture(stream, 1)); }
int cudaStreamEndCapture(void *stream, void **graph) { return remember(cuStreamEndCapture(stream, graph)); }
int cudaStreamIsCapturing(void *stream, int *status) { *status = dry_capturing(stream); return SUCCESS; }
int cudaGraphInstantiate(void **out, void *graph, unsigned long long f) { return cuGraphInstantiateWithFlags(out, graph, f); }
int cudaGraphDestroy(void *graph) { return cuGraphDestroy(graph); }
int cudaGraphExecDestroy(void *graph) { return cuGraphDestroy(graph); }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    (void)stream;
    function(data);
    return SUCCESS;
}

int cudaEventCreate(void **out) { return cuEventCreate(out, 0); }
int cudaEventCreateWithFlags(void **out, unsigned flags) { return cuEventCreate(out, flags); }
int cudaEventDestroy(void *event) { return cuEventDestroy_v2(event); }
int cudaEventRecord(void *event, void *stream) { return cuEventRecord(event, stream); }
int cudaEventRecordWithFlags(void *event, void *stream, unsigned f) { (void)f; return cuEventRecord(event, stream); }
int cudaEventElapsedTime(float *ms, void *from, void *to) { return cuEventElapsedTime_v2(ms, from, to); }

/* A launch `f<<<grid, block, shared, stream>>>` pushes its configuration, pops it again and launches. */
static __thread struct {
    Dim3 grid, block;
    size_t shared;
    void *stream;
} pushed;
unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void *stream) {
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared = shared;
    pushed.stream = stream;
    return 0;
}
int __cudaPopCallConfiguration(Dim3 *grid, Dim3 *block, size_t *shared, void **stream) {
    *grid = pushed.grid;
    *block = pushed.block;
    *shared = pushed.shared;
    *stream = pushed.stream;
    return SUCCESS;
}
int __cudaGetKernel(const void **out, const void *function) { *out = function; return SUCCESS; }
int __cudaLaunchKernel(void) { dry_launched(NULL); return SUCCESS; }
int cudaLaunchKernel(void) { dry_launched(NULL); return SUCCESS; }
int cudaLaunchKernelExC(void) { dry_launched(NULL); return SUCCESS; }
int cudaLaunchCooperativeKernel(void) { dry_launched(NULL); return SUCCESS; }
void **__cudaRegisterFatBinary(void *binary) { (void)binary; return dry_handle(64); }
int cudaLibraryLoadData(void **out, const void *code) { return cuModuleLoadData(out, code); }
int cudaLibraryGetKernel(void **out, void *library, const char *name) { (void)library; *out = (void *)name; return SUCCESS; }
int cudaFuncGetAttributes(FunctionAttributes *out, const void *function) {
    (void)function;
    memset(out, 0, sizeof *out);
    out->threads = 1024;
    out->registers = 32;
    out->ptx = out->binary = 90;
    out->dynamic_shared = value_of(97);
    return SUCCESS;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks) { *blocks = 2; return SUCCESS; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 2; return SUCCESS; }

int cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned version, unsigned long long f, int *answer) {
    (void)version;
    (void)f;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    *out = driver ? dlsym(driver, name) : NULL;
    if (answer) *answer = *out ? 0 : 1;
    return SUCCESS;
}
