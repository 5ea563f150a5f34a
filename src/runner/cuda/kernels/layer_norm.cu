/* Layer normalization of rows and its gradients.
 *
 * y = n scale + bias, n = (x - mean) inv_std; with g = dy scale, dx = inv_std (g - mean(g) - n mean(g n)); dscale and
 * dbias are the sums of dy n and dy over the rows. Parameters and statistics are float.
 *
 * A row lies in the registers of a warp or of a block, or it is read again: see rows.rs for who takes which. */
#include "device.h"

typedef struct {
    const T *x;
    const float *scale;
    /* These may be missing. */
    const float *bias;
    T *y;
    float *mean;
    float *inv_std;
    i64 rows;
    i64 width;
    float epsilon;
    u32 unused;
} layer_norm_arguments;

DEVICE void layer_norm_statistics(const layer_norm_arguments a, i64 row, float mean, float inv_std) {
    if (a.mean) a.mean[row] = mean;
    if (a.inv_std) a.inv_std[row] = inv_std;
}

/* Writes elements of a row, of which v has x - mean. */
DEVICE void layer_norm_part(const layer_norm_arguments a, i64 row, i64 at, const int many, float inv_std, float *v) {
    float scale[MANY], bias[MANY];
    load_floats(a.scale, at, many, scale);
    if (a.bias) load_floats(a.bias, at, many, bias);
    for (int j = 0; j < many; j++) v[j] = fmaf(v[j] * inv_std, scale[j], a.bias ? bias[j] : 0.0f);
    store_some(a.y, row * a.width + at, many, v);
}

/* A thread keeps `kept` times `many` elements, at most 32. */
DEVICE void layer_norm_kept(const layer_norm_arguments a, const int whole, const int many, const int kept) {
    const int width = (int)a.width, threads = team_threads(whole), thread = team_thread(whole);
    for (i64 row = team_first(whole); row < a.rows; row += team_count(whole)) {
        float v[32], sum = 0.0f, squares = 0.0f;
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            if (at < width) load_some(a.x, row * a.width + at, many, v + k * many);
            else
                for (int j = 0; j < many; j++) v[k * many + j] = 0.0f;
        }
        UNROLL for (int k = 0; k < kept * many; k++) sum += v[k];
        const float mean = team_sum(sum, whole) / (float)width;
        UNROLL for (int k = 0; k < kept; k++) {
            if ((k * threads + thread) * many < width)
                for (int j = 0; j < many; j++) {
                    v[k * many + j] -= mean;
                    squares = fmaf(v[k * many + j], v[k * many + j], squares);
                }
        }
        const float inv_std = rsqrtf(team_sum(squares, whole) / (float)width + a.epsilon);
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            if (at < width) layer_norm_part(a, row, at, many, inv_std, v + k * many);
        }
        if (thread == 0) layer_norm_statistics(a, row, mean, inv_std);
    }
}

/* The same with a block for a row of any size, which is read three times. */
DEVICE void layer_norm_again(const layer_norm_arguments a, const int many) {
    for (i64 row = BLOCK; row < a.rows; row += BLOCKS) {
        const i64 from = row * a.width;
        float v[MANY], sum = 0.0f, squares = 0.0f;
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.x, from + at, many, v);
            for (int j = 0; j < many; j++) sum += v[j];
        }
        const float mean = block_sum(sum) / (float)a.width;
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.x, from + at, many, v);
            for (int j = 0; j < many; j++) squares = fmaf(v[j] - mean, v[j] - mean, squares);
        }
        const float inv_std = rsqrtf(block_sum(squares) / (float)a.width + a.epsilon);
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.x, from + at, many, v);
            for (int j = 0; j < many; j++) v[j] -= mean;
            layer_norm_part(a, row, at, many, inv_std, v);
        }
        if (THREAD == 0) layer_norm_statistics(a, row, mean, inv_std);
    }
}

KERNEL_OF(128, layer_norm_short, layer_norm_arguments) { layer_norm_kept(a, 0, 1, 8); }
KERNEL_OF(128, layer_norm_short_many, layer_norm_arguments) { layer_norm_kept(a, 0, MANY, 8 / MANY); }
KERNEL_OF(128, layer_norm_warp, layer_norm_arguments) { layer_norm_kept(a, 0, 1, 32); }
KERNEL_OF(128, layer_norm_warp_many, layer_norm_arguments) { layer_norm_kept(a, 0, MANY, 32 / MANY); }
KERNEL_OF(512, layer_norm_block, layer_norm_arguments) { layer_norm_kept(a, 1, 1, 16); }
KERNEL_OF(512, layer_norm_block_many, layer_norm_arguments) { layer_norm_kept(a, 1, MANY, 16 / MANY); }
KERNEL_OF(512, layer_norm_long, layer_norm_arguments) { layer_norm_again(a, 1); }
KERNEL_OF(512, layer_norm_long_many, layer_norm_arguments) { layer_norm_again(a, MANY); }

typedef struct {
    const T *dy;
    const T *x;
    const float *scale;
    const float *mean;
    const float *inv_std;
    /* May be missing. */
    T *dx;
    /* For each block dscale and dbias of its rows; may be missing. */
    float *parts;
    i64 rows;
    i64 width;
} layer_norm_grad_arguments;

/* A thread keeps `kept` times `many` elements of each, at most 24. A team has the same columns in all of its rows, and
 * the threads of a block have as many rows. Shared memory holds what the warps of a block, of at most 768 columns, sum. */
DEVICE void layer_norm_grad_kept(const layer_norm_grad_arguments a, const int whole, const int many, const int kept) {
    const int width = (int)a.width, threads = team_threads(whole), thread = team_thread(whole);
    const i64 warps = whole ? 1 : THREADS >> 5, warp = whole ? 0 : THREAD >> 5;
    float dscale[24], dbias[24];
    UNROLL for (int k = 0; k < kept * many; k++) dscale[k] = dbias[k] = 0.0f;
    for (i64 first = BLOCK * warps; first < a.rows; first += BLOCKS * warps) {
        const i64 row = first + warp, from = row * a.width;
        const int there = row < a.rows;
        const float mean = there ? a.mean[row] : 0.0f, inv_std = there ? a.inv_std[row] : 0.0f;
        float n[24], g[24], sum = 0.0f, moment = 0.0f;
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            if (there && at < width) {
                load_some(a.x, from + at, many, n + k * many);
                load_some(a.dy, from + at, many, g + k * many);
            } else
                for (int j = 0; j < many; j++) n[k * many + j] = g[k * many + j] = 0.0f;
        }
        UNROLL for (int k = 0; k < kept; k++) {
            const int at = (k * threads + thread) * many;
            if (there && at < width) {
                float scale[MANY];
                load_floats(a.scale, at, many, scale);
                for (int j = 0; j < many; j++) {
                    const int i = k * many + j;
                    n[i] = (n[i] - mean) * inv_std;
                    dbias[i] += g[i];
                    dscale[i] = fmaf(g[i], n[i], dscale[i]);
                    g[i] *= scale[j];
                    sum += g[i];
                    moment = fmaf(g[i], n[i], moment);
                }
            }
        }
        if (a.dx) {
            sum = team_sum(sum, whole) / (float)width;
            moment = team_sum(moment, whole) / (float)width;
            UNROLL for (int k = 0; k < kept * many; k++) g[k] = (g[k] - sum - n[k] * moment) * inv_std;
            UNROLL for (int k = 0; k < kept; k++) {
                const int at = (k * threads + thread) * many;
                if (there && at < width) store_some(a.dx, from + at, many, g + k * many);
            }
        }
    }
    if (!a.parts) return;
    float *dscale_part = a.parts + BLOCK * 2 * a.width, *dbias_part = dscale_part + a.width;
    SHARED(float, sums, 2 * 768);
    for (i64 turn = 0; !whole && turn < warps; turn++) {
        if (turn == warp) {
            UNROLL for (int k = 0; k < kept * many; k++) {
                const int at = (k / many * threads + thread) * many + k % many;
                if (at < width) {
                    if (turn) {
                        dscale[k] += sums[at];
                        dbias[k] += sums[768 + at];
                    }
                    sums[at] = dscale[k];
                    sums[768 + at] = dbias[k];
                }
            }
        }
        barrier();
    }
    if (warp != warps - 1) return;
    UNROLL for (int k = 0; k < kept; k++) {
        const int at = (k * threads + thread) * many;
        if (at < width) {
            store_floats(dscale_part, at, many, dscale + k * many);
            store_floats(dbias_part, at, many, dbias + k * many);
        }
    }
}

KERNEL_OF(128, layer_norm_grad_warp, layer_norm_grad_arguments) { layer_norm_grad_kept(a, 0, 1, 24); }
KERNEL_OF(128, layer_norm_grad_warp_many, layer_norm_grad_arguments) { layer_norm_grad_kept(a, 0, MANY, 24 / MANY); }
KERNEL_OF(512, layer_norm_grad_block, layer_norm_grad_arguments) { layer_norm_grad_kept(a, 1, 1, 8); }
KERNEL_OF(512, layer_norm_grad_block_many, layer_norm_grad_arguments) { layer_norm_grad_kept(a, 1, MANY, 8 / MANY); }

/* dx with a block for a row of any size, which is read twice. */
DEVICE void layer_norm_grad_twice(const layer_norm_grad_arguments a, const int many) {
    for (i64 row = BLOCK; row < a.rows; row += BLOCKS) {
        const i64 from = row * a.width;
        const float mean = a.mean[row], inv_std = a.inv_std[row];
        float n[MANY], g[MANY], scale[MANY], sum = 0.0f, moment = 0.0f;
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.x, from + at, many, n);
            load_some(a.dy, from + at, many, g);
            load_floats(a.scale, at, many, scale);
            for (int j = 0; j < many; j++) {
                sum = fmaf(g[j], scale[j], sum);
                moment = fmaf(g[j] * scale[j], (n[j] - mean) * inv_std, moment);
            }
        }
        sum = block_sum(sum) / (float)a.width;
        moment = block_sum(moment) / (float)a.width;
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            load_some(a.x, from + at, many, n);
            load_some(a.dy, from + at, many, g);
            load_floats(a.scale, at, many, scale);
            for (int j = 0; j < many; j++)
                g[j] = (g[j] * scale[j] - sum - (n[j] - mean) * inv_std * moment) * inv_std;
            store_some(a.dx, from + at, many, g);
        }
    }
}

KERNEL_OF(512, layer_norm_grad_long, layer_norm_grad_arguments) { layer_norm_grad_twice(a, 1); }
KERNEL_OF(512, layer_norm_grad_long_many, layer_norm_grad_arguments) { layer_norm_grad_twice(a, MANY); }

/* What of dscale and dbias the rows of a block of the second dimension add, with a thread for every column. */
KERNEL(layer_norm_grad_columns, layer_norm_grad_arguments) {
    float *part = a.parts + BLOCK_Y * 2 * a.width;
    for (i64 at = BLOCK * THREADS + THREAD; at < a.width; at += BLOCKS * THREADS) {
        float dscale = 0.0f, dbias = 0.0f;
        for (i64 row = BLOCK_Y; row < a.rows; row += BLOCKS_Y) {
            const float dy = load(a.dy, row * a.width + at);
            dscale = fmaf(dy, (load(a.x, row * a.width + at) - a.mean[row]) * a.inv_std[row], dscale);
            dbias += dy;
        }
        part[at] = dscale;
        part[a.width + at] = dbias;
    }
}

typedef struct {
    const float *parts;
    /* These may be missing. */
    float *dscale;
    float *dbias;
    i64 count;
    i64 width;
} layer_norm_sums_arguments;

/* Sums over the parts, with a block of 512 threads for 32 columns. */
KERNEL(layer_norm_sums, layer_norm_sums_arguments) {
    SHARED(float, sums, 512);
    const i64 at = BLOCK * 32 + (THREAD & 31), group = THREAD >> 5;
    float sum = 0.0f;
    if (at < 2 * a.width)
        for (i64 part = group; part < a.count; part += 16) sum += a.parts[part * 2 * a.width + at];
    sums[THREAD] = sum;
    barrier();
    if (group != 0 || at >= 2 * a.width) return;
    for (int other = 1; other < 16; other++) sum += sums[other * 32 + THREAD];
    if (at < a.width && a.dscale) a.dscale[at] = sum;
    if (at >= a.width && a.dbias) a.dbias[at - a.width] = sum;
}
