/* Softmax of rows and its gradient.
 *
 * A row lies in the registers of a warp or of a block, or it is read twice: see rows.rs for who takes which. */
#include "device.h"

#define LOG2_E 1.44269504f

typedef struct {
    const T *x;
    T *y;
    i64 rows;
    i64 width;
} softmax_arguments;

/* y = exp(x - max) / sum; a thread keeps `kept` times `many` elements, at most 32. */
DEVICE void softmax_kept(const softmax_arguments a, const int whole, const int many, const int kept) {
    const int width = (int)a.width, threads = team_threads(whole), thread = team_thread(whole);
    for (i64 row = team_first(whole); row < a.rows; row += team_count(whole)) {
        const i64 from = row * a.width;
        float v[32], most = -INFINITY_F, sum = 0.0f;
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            float *part = v + k * many;
            if (at < width) load_some(a.x, from + at, many, part);
            else
                for (int j = 0; j < many; j++) part[j] = -INFINITY_F;
        }
        UNROLL for (int k = 0; k < kept * many; k++) most = fmaxf(most, v[k]);
        most = team_max(most, whole);
        UNROLL for (int k = 0; k < kept * many; k++) {
            v[k] = exp2_fast((v[k] - most) * LOG2_E);
            sum += v[k];
        }
        const float factor = 1.0f / team_sum(sum, whole);
        UNROLL for (int k = 0; k < kept * many; k++) v[k] *= factor;
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            if (at < width) store_some(a.y, from + at, many, v + k * many);
        }
    }
}

/* The same with a block for a row of any size, which is read twice. */
DEVICE void softmax_twice(const softmax_arguments a, const int many) {
    for (i64 row = BLOCK; row < a.rows; row += BLOCKS) {
        const i64 from = row * a.width;
        /* Not -infinity, so that a thread that saw nothing else has a sum. */
        float v[MANY], most = -3.402823466e38f, sum = 0.0f;
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.x, from + at, many, v);
            float higher = most;
            for (int j = 0; j < many; j++) higher = fmaxf(higher, v[j]);
            sum *= exp2_fast((most - higher) * LOG2_E);
            most = higher;
            for (int j = 0; j < many; j++) sum += exp2_fast((v[j] - most) * LOG2_E);
        }
        const float top = block_max(most);
        const float factor = 1.0f / block_sum(sum * exp2_fast((most - top) * LOG2_E));
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.x, from + at, many, v);
            for (int j = 0; j < many; j++) v[j] = exp2_fast((v[j] - top) * LOG2_E) * factor;
            store_some(a.y, from + at, many, v);
        }
    }
}

KERNEL_OF(128, softmax_short, softmax_arguments) { softmax_kept(a, 0, 1, 8); }
KERNEL_OF(128, softmax_short_many, softmax_arguments) { softmax_kept(a, 0, MANY, 8 / MANY); }
KERNEL_OF(128, softmax_warp, softmax_arguments) { softmax_kept(a, 0, 1, 32); }
KERNEL_OF(128, softmax_warp_many, softmax_arguments) { softmax_kept(a, 0, MANY, 32 / MANY); }
KERNEL_OF(512, softmax_block, softmax_arguments) { softmax_kept(a, 1, 1, 32); }
KERNEL_OF(512, softmax_block_many, softmax_arguments) { softmax_kept(a, 1, MANY, 32 / MANY); }
KERNEL_OF(512, softmax_long, softmax_arguments) { softmax_twice(a, 1); }
KERNEL_OF(512, softmax_long_many, softmax_arguments) { softmax_twice(a, MANY); }

typedef struct {
    const T *dy;
    const T *y;
    T *dx;
    i64 rows;
    i64 width;
} softmax_grad_arguments;

/* dx = y (dy - sum(dy y)); a thread keeps `kept` times `many` elements of each, at most 16. */
DEVICE void softmax_grad_kept(const softmax_grad_arguments a, const int whole, const int many, const int kept) {
    const int width = (int)a.width, threads = team_threads(whole), thread = team_thread(whole);
    for (i64 row = team_first(whole); row < a.rows; row += team_count(whole)) {
        const i64 from = row * a.width;
        float y[16], dy[16], sum = 0.0f;
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            if (at < width) {
                load_some(a.y, from + at, many, y + k * many);
                load_some(a.dy, from + at, many, dy + k * many);
            } else
                for (int j = 0; j < many; j++) y[k * many + j] = dy[k * many + j] = 0.0f;
        }
        UNROLL for (int k = 0; k < kept * many; k++) sum = fmaf(dy[k], y[k], sum);
        sum = team_sum(sum, whole);
        UNROLL for (int k = 0; k < kept * many; k++) y[k] *= dy[k] - sum;
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            if (at < width) store_some(a.dx, from + at, many, y + k * many);
        }
    }
}

/* The same with a block for a row of any size, which is read twice. */
DEVICE void softmax_grad_twice(const softmax_grad_arguments a, const int many) {
    for (i64 row = BLOCK; row < a.rows; row += BLOCKS) {
        const i64 from = row * a.width;
        float y[MANY], dy[MANY], sum = 0.0f;
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.y, from + at, many, y);
            load_some(a.dy, from + at, many, dy);
            for (int j = 0; j < many; j++) sum = fmaf(dy[j], y[j], sum);
        }
        sum = block_sum(sum);
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.y, from + at, many, y);
            load_some(a.dy, from + at, many, dy);
            for (int j = 0; j < many; j++) y[j] *= dy[j] - sum;
            store_some(a.dx, from + at, many, y);
        }
    }
}

KERNEL_OF(128, softmax_grad_short, softmax_grad_arguments) { softmax_grad_kept(a, 0, 1, 8); }
KERNEL_OF(128, softmax_grad_short_many, softmax_grad_arguments) { softmax_grad_kept(a, 0, MANY, 8 / MANY); }
KERNEL_OF(128, softmax_grad_warp, softmax_grad_arguments) { softmax_grad_kept(a, 0, 1, 16); }
KERNEL_OF(128, softmax_grad_warp_many, softmax_grad_arguments) { softmax_grad_kept(a, 0, MANY, 16 / MANY); }
KERNEL_OF(512, softmax_grad_block, softmax_grad_arguments) { softmax_grad_kept(a, 1, 1, 16); }
KERNEL_OF(512, softmax_grad_block_many, softmax_grad_arguments) { softmax_grad_kept(a, 1, MANY, 16 / MANY); }
KERNEL_OF(512, softmax_grad_long, softmax_grad_arguments) { softmax_grad_twice(a, 1); }
KERNEL_OF(512, softmax_grad_long_many, softmax_grad_arguments) { softmax_grad_twice(a, MANY); }
