/* What kernels are written in: a subset of C that NVRTC compiles for a device (as CUDA C++) and a C compiler for the
 * emulated device of the tests.
 *
 * A kernel takes one struct of arguments by value. Pointers point to device memory. The element type T is float,
 * float16 or bfloat16 (T_F32, T_F16, T_BF16 of the compiler's command line); it is read and written with load and store,
 * and all arithmetic is float. Blocks have one dimension; every thread of a block reaches every barrier, and every
 * thread of a warp every sum over it. A kernel of many registers says its most threads (KERNEL_OF). */
#ifndef FREEZE_PLAN_DEVICE_H
#define FREEZE_PLAN_DEVICE_H

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)

#define KERNEL(name, arguments) extern "C" __global__ void name(const arguments a)
#define KERNEL_OF(threads, name, arguments) \
    extern "C" __global__ void __launch_bounds__(threads) name(const arguments a)
#define DEVICE static __device__ __forceinline__
#define SHARED(type, name, count) __shared__ type name[count]
#define THREAD ((i64)threadIdx.x)
#define THREADS ((i64)blockDim.x)
#define BLOCK ((i64)blockIdx.x)
#define BLOCKS ((i64)gridDim.x)
#define BLOCK_Y ((i64)blockIdx.y)
#define BLOCKS_Y ((i64)gridDim.y)
#define INFINITY_F __int_as_float(0x7f800000)
#define UNROLL _Pragma("unroll")

DEVICE void barrier(void) { __syncthreads(); }
DEVICE void atomic_add(float *at, float value) { atomicAdd(at, value); }
DEVICE u32 atomic_next(u32 *at) { return atomicAdd(at, 1u); }
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

/* Returns 2^x, and 1 / x, to two units of the last place; numbers below the normal ones are 0. */
DEVICE float exp2_fast(float x) {
    float value;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

DEVICE float reciprocal(float x) {
    float value;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

/* Returns the sum over the threads of the warp, to every thread. */
DEVICE float warp_sum(float value) {
    for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

/* Returns the largest over the threads of the warp, to every thread. */
DEVICE float warp_max(float value) {
    for (int step = 16; step > 0; step >>= 1) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
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
#define KERNEL_OF(threads, name, arguments) KERNEL(name, arguments)
#define DEVICE static inline
#define SHARED(type, name, count) static type name[count]
#define THREAD emulated_thread
#define THREADS emulated_threads
#define BLOCK emulated_block[0]
#define BLOCKS emulated_blocks[0]
#define BLOCK_Y emulated_block[1]
#define BLOCKS_Y emulated_blocks[1]
#define INFINITY_F INFINITY
#define UNROLL

static i64 emulated_thread, emulated_threads, emulated_block[2], emulated_blocks[2];
static void emulated_barrier(void);

DEVICE void barrier(void) { emulated_barrier(); }
DEVICE void atomic_add(float *at, float value) { *at += value; }
DEVICE u32 atomic_next(u32 *at) { return (*at)++; }
DEVICE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
DEVICE float exp2_fast(float x) { return exp2f(x); }
DEVICE float reciprocal(float x) { return 1.0f / x; }

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

DEVICE float warp_sum(float value) {
    emulated_slots[THREAD] = value;
    barrier();
    float sum = 0.0f;
    for (i64 at = THREAD & ~31; at < (THREAD | 31) + 1; at++) sum += emulated_slots[at];
    barrier();
    return sum;
}

DEVICE float warp_max(float value) {
    emulated_slots[THREAD] = value;
    barrier();
    float most = value;
    for (i64 at = THREAD & ~31; at < (THREAD | 31) + 1; at++) most = fmaxf(most, emulated_slots[at]);
    barrier();
    return most;
}

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

/* Reads and writes elements of T: 1, or MANY as load_many and store_many do. */
DEVICE void load_some(const T *p, i64 i, const int count, float *v) {
    if (count == 1) v[0] = load(p, i);
    else load_many(p, i, v);
}

DEVICE void store_some(T *p, i64 i, const int count, const float *v) {
    if (count == 1) store(p, i, v[0]);
    else store_many(p, i, v);
}

/* Reads and writes elements of float: 1, or a multiple of 4 at places that are divisible by 4. */
DEVICE void load_floats(const float *p, i64 i, const int count, float *v) {
    if (count == 1) v[0] = p[i];
    else
        for (int k = 0; k < count; k += 4) {
            const pack whole = *(const pack *)(p + i + k);
            v[k] = from_bits(whole.x);
            v[k + 1] = from_bits(whole.y);
            v[k + 2] = from_bits(whole.z);
            v[k + 3] = from_bits(whole.w);
        }
}

DEVICE void store_floats(float *p, i64 i, const int count, const float *v) {
    if (count == 1) p[i] = v[0];
    else
        for (int k = 0; k < count; k += 4) {
            pack whole;
            whole.x = to_bits(v[k]);
            whole.y = to_bits(v[k + 1]);
            whole.z = to_bits(v[k + 2]);
            whole.w = to_bits(v[k + 3]);
            *(pack *)(p + i + k) = whole;
        }
}

/* Who shares a row: a warp or, where `whole` is not 0, a block. */
DEVICE int team_threads(const int whole) { return whole ? (int)THREADS : 32; }
DEVICE int team_thread(const int whole) { return whole ? (int)THREAD : (int)THREAD & 31; }
DEVICE i64 team_first(const int whole) { return whole ? BLOCK : (BLOCK * THREADS + THREAD) >> 5; }
DEVICE i64 team_count(const int whole) { return whole ? BLOCKS : (BLOCKS * THREADS) >> 5; }
DEVICE float team_sum(float value, const int whole) { return whole ? block_sum(value) : warp_sum(value); }
DEVICE float team_max(float value, const int whole) { return whole ? block_max(value) : warp_max(value); }

#endif
