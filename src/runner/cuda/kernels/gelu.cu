/* Gelu and its gradient: y = z A, A = (1 + erf(z / sqrt(2))) / 2, or A = 1 / (1 + exp(-2 u)) with
 * u = sqrt(2 / pi) (z + 0.044715 z^3). */
#include "device.h"

typedef struct {
    const T *x;
    /* Only of the gradient. */
    const T *dy;
    T *out;
    i64 count;
} gelu_arguments;

/* exp(-z^2 / 2) */
DEVICE float bell(float z) { return exp2_fast(z * z * -0.72134752f); }

/* (1 + erf(z / sqrt(2))) / 2. For float16 and bfloat16 by a polynomial in 1 / (1 + 0.3275911 |z| / sqrt(2)) times the
 * bell, to 1e-7 (Abramowitz and Stegun, 7.1.26). */
DEVICE float area(float z, float bell) {
#if MANY == 4
    (void)bell;
    return fmaf(erff(z * 0.70710678f), 0.5f, 0.5f);
#else
    const float t = reciprocal(fmaf(fabsf(z), 0.23164189f, 1.0f));
    float tail = fmaf(0.53070271f, t, -0.72657601f);
    tail = fmaf(tail, t, 0.71070687f);
    tail = fmaf(tail, t, -0.14224837f);
    tail = fmaf(tail, t, 0.12741480f);
    tail *= t * bell;
    return z > 0.0f ? 1.0f - tail : tail;
#endif
}

/* 1 / (1 + exp(-x)) */
DEVICE float sigmoid(float x) { return reciprocal(1.0f + exp2_fast(x * -1.44269504f)); }

DEVICE float value(float z, const int tanh) {
    if (tanh) return z * sigmoid(z * fmaf(z * z, 0.07135481f, 1.59576912f));
    return z * area(z, bell(z));
}

/* The slope of the form with tanh is taken at 6 or -6 beyond those, as on the processor. */
DEVICE float slope(float z, const int tanh) {
    if (tanh) {
        z = fminf(6.0f, fmaxf(-6.0f, z));
        const float cubic = z * z * 0.07135481f, s = sigmoid(z * (cubic + 1.59576912f));
        return s * fmaf(z * (1.0f - s), fmaf(cubic, 3.0f, 1.59576912f), 1.0f);
    }
    const float height = bell(z);
    return fmaf(z, height * 0.39894228f, area(z, height));
}

/* With a thread for every MANY elements, or fewer that go on. */
DEVICE void each(const gelu_arguments a, const int tanh, const int gradient) {
    const i64 whole = a.count / MANY * MANY;
    for (i64 at = (BLOCK * THREADS + THREAD) * MANY; at < whole; at += BLOCKS * THREADS * MANY) {
        float x[MANY], dy[MANY];
        load_many(a.x, at, x);
        if (gradient) load_many(a.dy, at, dy);
        for (int k = 0; k < MANY; k++) x[k] = gradient ? dy[k] * slope(x[k], tanh) : value(x[k], tanh);
        store_many(a.out, at, x);
    }
    for (i64 at = whole + BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS) {
        const float x = load(a.x, at);
        store(a.out, at, gradient ? load(a.dy, at) * slope(x, tanh) : value(x, tanh));
    }
}

KERNEL(gelu_erf, gelu_arguments) { each(a, 0, 0); }
KERNEL(gelu_tanh, gelu_arguments) { each(a, 1, 0); }
KERNEL(gelu_erf_grad, gelu_arguments) { each(a, 0, 1); }
KERNEL(gelu_tanh_grad, gelu_arguments) { each(a, 1, 1); }
