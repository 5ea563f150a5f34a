/* Steps of optimizers. All numbers are float; outputs lie where their inputs do, or elsewhere. */
#include "device.h"

#define PART 4

typedef struct {
    const float *lr;
    const float *value;
    const float *grad;
    /* Only with momentum. */
    const float *velocity;
    float *value_out;
    float *velocity_out;
    i64 count;
    i64 nesterov;
    float momentum;
    float weight_decay;
} sgd_arguments;

DEVICE void sgd_part(const sgd_arguments a, float lr, i64 at, const int many) {
    float p[PART], g[PART], v[PART];
    load_floats(a.value, at, many, p);
    load_floats(a.grad, at, many, g);
    if (a.velocity) load_floats(a.velocity, at, many, v);
    for (int j = 0; j < many; j++) {
        if (a.weight_decay != 0.0f) g[j] += p[j] * a.weight_decay;
        if (a.velocity) {
            v[j] = v[j] * a.momentum + g[j];
            g[j] = a.nesterov ? g[j] + v[j] * a.momentum : v[j];
        }
        p[j] -= g[j] * lr;
    }
    if (a.velocity) store_floats(a.velocity_out, at, many, v);
    store_floats(a.value_out, at, many, p);
}

KERNEL(sgd, sgd_arguments) {
    const float lr = *a.lr;
    const i64 whole = a.count / PART * PART;
    for (i64 at = (BLOCK * THREADS + THREAD) * PART; at < whole; at += BLOCKS * THREADS * PART) sgd_part(a, lr, at, PART);
    for (i64 at = whole + BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS) sgd_part(a, lr, at, 1);
}

/* Of an average: beta, 1 - beta and -ln(beta) / 2. */
typedef struct {
    float keep;
    float add;
    float exponent;
} average;

typedef struct {
    const float *lr;
    const float *value;
    const float *grad;
    const float *first;
    const float *second;
    const float *step;
    /* Only with amsgrad. */
    const float *largest;
    float *value_out;
    float *first_out;
    float *second_out;
    float *step_out;
    float *largest_out;
    i64 count;
    i64 decoupled;
    average of_first;
    average of_second;
    float eps;
    float weight_decay;
} adam_arguments;

/* 1 - beta^step */
DEVICE float correction(const average a, float step) {
    const float u = tanhf(step * a.exponent);
    return (u + u) / (u + 1.0f);
}

DEVICE void adam_part(const adam_arguments a, float lr, float rate, float root, i64 at, const int many) {
    float p[PART], g[PART], m[PART], v[PART], most[PART];
    load_floats(a.value, at, many, p);
    load_floats(a.grad, at, many, g);
    load_floats(a.first, at, many, m);
    load_floats(a.second, at, many, v);
    if (a.largest) load_floats(a.largest, at, many, most);
    for (int j = 0; j < many; j++) {
        if (a.weight_decay != 0.0f && a.decoupled) p[j] *= lr * -a.weight_decay + 1.0f;
        else if (a.weight_decay != 0.0f) g[j] += p[j] * a.weight_decay;
        m[j] = m[j] * a.of_first.keep + g[j] * a.of_first.add;
        v[j] = v[j] * a.of_second.keep + g[j] * g[j] * a.of_second.add;
        most[j] = a.largest ? fmaxf(most[j], v[j]) : v[j];
        p[j] -= m[j] * rate / (sqrtf(most[j]) / root + a.eps);
    }
    store_floats(a.first_out, at, many, m);
    store_floats(a.second_out, at, many, v);
    if (a.largest) store_floats(a.largest_out, at, many, most);
    store_floats(a.value_out, at, many, p);
}

/* The step is counted here where there is one block, and by adam_counted after it where there are more: all of them read
 * the number that it may overwrite. */
KERNEL(adam, adam_arguments) {
    const float lr = *a.lr, step = *a.step + 1.0f;
    const float rate = lr / correction(a.of_first, step), root = sqrtf(correction(a.of_second, step));
    const i64 whole = a.count / PART * PART;
    for (i64 at = (BLOCK * THREADS + THREAD) * PART; at < whole; at += BLOCKS * THREADS * PART)
        adam_part(a, lr, rate, root, at, PART);
    for (i64 at = whole + BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS)
        adam_part(a, lr, rate, root, at, 1);
    barrier();
    if (BLOCKS == 1 && THREAD == 0) *a.step_out = step;
}

KERNEL(adam_counted, adam_arguments) {
    if (THREAD == 0) *a.step_out = *a.step + 1.0f;
}
