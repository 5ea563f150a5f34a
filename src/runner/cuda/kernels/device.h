/* What kernels are written in: a subset of C that NVRTC compiles for a device (as CUDA C++) and a C compiler for the
 * emulated device of the tests.
 *
 * A kernel takes one struct of arguments by value. Pointers point to device memory. The element type T is float,
 * float16 or bfloat16 (T_F32, T_F16, T_BF16 of the compiler's command line); it is read and written with load and store,
 * and all arithmetic is float. Blocks have one dimension; every thread of a block reaches every barrier. */
#ifndef FREEZE_PLAN_DEVICE_H
#define FREEZE_PLAN_DEVICE_H

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)

#define KERNEL(name, arguments) extern "C" __global__ void name(const arguments a)
#define DEVICE static __device__ __forceinline__
#define SHARED(type, name, count) __shared__ type name[count]
#define THREAD ((i64)threadIdx.x)
#define THREADS ((i64)blockDim.x)
#define BLOCK ((i64)blockIdx.x)
#define BLOCKS ((i64)gridDim.x)
#define BLOCK_Y ((i64)blockIdx.y)
#define BLOCKS_Y ((i64)gridDim.y)
#define INFINITY_F __int_as_float(0x7f800000)

DEVICE void barrier(void) { __syncthreads(); }
DEVICE void atomic_add(float *at, float value) { atomicAdd(at, value); }
DEVICE float from_bits(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 to_bits(float value) { return __float_as_uint(value); }

DEVICE float f16_to_float(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

DEVICE u16 float_to_f16(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

DEVICE u16 float_to_bf16(float value) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

/* Returns the sum over the threads of the block, to every thread. */
DEVICE float block_sum(float value) {
    __shared__ float sums[33];
    for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    if (warps == 1) return value;
    if (lane == 0) sums[warp] = value;
    __syncthreads();
    if (warp == 0) {
        value = lane < warps ? sums[lane] : 0.0f;
        for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
        if (lane == 0) sums[32] = value;
    }
    __syncthreads();
    value = sums[32];
    __syncthreads();
    return value;
}

/* Returns the largest over the threads of the block, to every thread. */
DEVICE float block_max(float value) {
    __shared__ float most[33];
    for (int step = 16; step > 0; step >>= 1) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    if (warps == 1) return value;
    if (lane == 0) most[warp] = value;
    __syncthreads();
    if (warp == 0) {
        value = lane < warps ? most[lane] : -INFINITY_F;
        for (int step = 16; step > 0; step >>= 1) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
        if (lane == 0) most[32] = value;
    }
    __syncthreads();
    value = most[32];
    __syncthreads();
    return value;
}

#else

#include <math.h>
#include <string.h>

#define KERNEL(name, arguments)                                                                                        \
    static void name##_body(const arguments a);                                                                        \
    void name(const void *p) {                                                                                         \
        arguments a;                                                                                                   \
        memcpy(&a, p, sizeof a);                                                                                       \
        name##_body(a);                                                                                                \
    }                                                                                                                  \
    static void name##_body(const arguments a)
#define DEVICE static inline
#define SHARED(type, name, count) static type name[count]
#define THREAD emulated_thread
#define THREADS emulated_threads
#define BLOCK emulated_block[0]
#define BLOCKS emulated_blocks[0]
#define BLOCK_Y emulated_block[1]
#define BLOCKS_Y emulated_blocks[1]
#define INFINITY_F INFINITY

static i64 emulated_thread, emulated_threads, emulated_block[2], emulated_blocks[2];
static void emulated_barrier(void);

DEVICE void barrier(void) { emulated_barrier(); }
DEVICE void atomic_add(float *at, float value) { *at += value; }
DEVICE float rsqrtf(float x) { return 1.0f / sqrtf(x); }

DEVICE float from_bits(u32 bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

DEVICE u32 to_bits(float value) {
    u32 bits;
    memcpy(&bits, &value, 4);
    return bits;
}

DEVICE float f16_to_float(u16 bits) {
    const u32 sign = (u32)(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | (fraction << 13));
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * ldexpf((float)fraction, -24);
    return from_bits(sign | ((exponent + 112) << 23) | (fraction << 13));
}

DEVICE u16 float_to_f16(float value) {
    const u32 bits = to_bits(value), sign = (bits >> 16) & 0x8000, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (u16)(sign | 0x7fff);
    if (size >= 0x477ff000u) return (u16)(sign | 0x7c00);
    if (size < 0x38800000u) return (u16)(sign | (u32)nearbyintf(ldexpf(from_bits(size), 24)));
    return (u16)(sign | ((size - 0x38000000u + 0xfffu + ((size >> 13) & 1)) >> 13));
}

DEVICE u16 float_to_bf16(float value) {
    const u32 bits = to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static float emulated_slots[1024];

DEVICE float block_sum(float value) {
    emulated_slots[THREAD] = value;
    barrier();
    float sum = 0.0f;
    for (i64 at = 0; at < THREADS; at++) sum += emulated_slots[at];
    barrier();
    return sum;
}

DEVICE float block_max(float value) {
    emulated_slots[THREAD] = value;
    barrier();
    float most = emulated_slots[0];
    for (i64 at = 1; at < THREADS; at++) most = fmaxf(most, emulated_slots[at]);
    barrier();
    return most;
}

#endif

DEVICE float bf16_to_float(u16 bits) { return from_bits((u32)bits << 16); }

/* Elements of T in 16 bytes: what load_many reads and store_many writes, at places divisible by it of pointers that are
 * aligned to 16 bytes (as ONNX Runtime's allocations are). */
#if defined(T_F16)
typedef u16 T;
#define MANY 8
DEVICE float load(const T *p, i64 i) { return f16_to_float(p[i]); }
DEVICE void store(T *p, i64 i, float v) { p[i] = float_to_f16(v); }
#elif defined(T_BF16)
typedef u16 T;
#define MANY 8
DEVICE float load(const T *p, i64 i) { return bf16_to_float(p[i]); }
DEVICE void store(T *p, i64 i, float v) { p[i] = float_to_bf16(v); }
#else
typedef float T;
#define MANY 4
DEVICE float load(const T *p, i64 i) { return p[i]; }
DEVICE void store(T *p, i64 i, float v) { p[i] = v; }
#endif

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)
typedef uint4 pack;
#else
typedef struct {
    u32 x, y, z, w;
} pack;
#endif

DEVICE void load_many(const T *p, i64 i, float *v) {
    union {
        pack whole;
        T parts[MANY];
    } u;
    u.whole = *(const pack *)(p + i);
    for (int k = 0; k < MANY; k++) v[k] = load(u.parts, k);
}

DEVICE void store_many(T *p, i64 i, const float *v) {
    union {
        pack whole;
        T parts[MANY];
    } u;
    for (int k = 0; k < MANY; k++) store(u.parts, k, v[k]);
    *(pack *)(p + i) = u.whole;
}

/* Some elements side by side as they lie in memory: MANY of them, or one where `many` is 1. */
typedef union {
    pack whole;
    T parts[MANY];
} group;

DEVICE void fetch(const T *p, i64 i, group *g, const int many) {
    if (many == MANY) g->whole = *(const pack *)(p + i);
    else g->parts[0] = p[i];
}

DEVICE void place(T *p, i64 i, const group *g, const int many) {
    if (many == MANY) *(pack *)(p + i) = g->whole;
    else p[i] = g->parts[0];
}

#endif
