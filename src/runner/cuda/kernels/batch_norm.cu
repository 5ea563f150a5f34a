/* Batch normalization of [rows, channels], with a residual and an activation, and its gradients.
 *
 * Threads of a block lie over `lanes` rows and `width` groups of channels, a group for every MANY channels or for one;
 * the second dimension of the grid goes along groups, the first along chunks of `lanes` rows, of which a block takes
 * every BLOCKS-th. What sums over rows goes forward and what follows it goes back, so that what was read last is read
 * first. An activation is `min < y < max`; a bound that is no number does not bind. */
#include "device.h"

#define LONGEST 256

/* Chunks of all rows, and those of a block. */
DEVICE i64 chunks_of(i64 rows, i64 lanes) { return (rows + lanes - 1) / lanes; }
DEVICE i64 mine(i64 chunks, i64 block, i64 blocks) { return chunks / blocks + (block < chunks % blocks); }

/* Rows of the chunks of a block. */
DEVICE i64 rows_of(i64 rows, i64 lanes, i64 block, i64 blocks) {
    const i64 chunks = chunks_of(rows, lanes), last = (chunks - 1) % blocks;
    return mine(chunks, block, blocks) * lanes - (block == last ? chunks * lanes - rows : 0);
}

/* Sums each of 2 * many values over the lanes: those of a column's first thread are then in place. */
DEVICE void sum_lanes(float *values, const float *a, const float *b, int width, int lanes, const int many) {
    const int thread = (int)THREAD, lane = thread / width;
    for (int k = 0; k < many; k++) {
        values[k * LONGEST + thread] = a[k];
        values[(many + k) * LONGEST + thread] = b[k];
    }
    barrier();
    for (int live = lanes; live > 1;) {
        const int half = (live + 1) / 2;
        if (lane + half < live) {
            for (int k = 0; k < 2 * many; k++) values[k * LONGEST + thread] += values[k * LONGEST + thread + half * width];
        }
        barrier();
        live = half;
    }
}

typedef struct {
    const T *x;
    float *parts;
    i64 rows;
    i64 channels;
    i64 width;
    i64 lanes;
} moments_arguments;

/* parts[BLOCK] = shift, sum of x - shift and sum of its squares, of the rows of a block, per channel. The shift is the mean
 * of some rows, so that a mean that is large costs nothing. */
DEVICE void moments(const moments_arguments a, const int many) {
    enum { ROWS = 4 };
    SHARED(float, values, 2 * MANY * LONGEST);
    const int width = (int)a.width, lane = (int)THREAD / width, column = (int)THREAD % width;
    const i64 channel = (BLOCK_Y * width + column) * many, chunks = chunks_of(a.rows, a.lanes);
    const int inside = channel < a.channels && lane < a.lanes;
    const T *x = a.x + (inside ? channel : 0);
    const i64 count = mine(chunks, BLOCK, BLOCKS);
    float shift[MANY], sums[MANY], squares[MANY];
    for (int k = 0; k < many; k++) shift[k] = sums[k] = squares[k] = 0.0f;
    for (int sample = 0; sample < ROWS; sample++) {
        group g;
        fetch(x, (BLOCK + count * sample / ROWS * BLOCKS) * a.lanes * a.channels, &g, many);
        for (int k = 0; k < many; k++) shift[k] += load(g.parts, k) * (1.0f / ROWS);
    }
    for (i64 first = 0; first < count && inside; first += ROWS) {
        group g[ROWS];
        i64 row[ROWS];
        for (int u = 0; u < ROWS; u++) {
            row[u] = first + u < count ? (BLOCK + (first + u) * BLOCKS) * a.lanes + lane : a.rows;
            fetch(x, (row[u] < a.rows ? row[u] : a.rows - 1) * a.channels, &g[u], many);
        }
        for (int u = 0; u < ROWS; u++) {
            if (row[u] >= a.rows) continue;
            for (int k = 0; k < many; k++) {
                const float distance = load(g[u].parts, k) - shift[k];
                sums[k] += distance;
                squares[k] = fmaf(distance, distance, squares[k]);
            }
        }
    }
    sum_lanes(values, sums, squares, width, (int)a.lanes, many);
    if (lane > 0 || !inside) return;
    float *to = a.parts + 3 * BLOCK * a.channels + channel;
    for (int k = 0; k < many; k++) {
        to[k] = shift[k];
        to[a.channels + k] = values[k * LONGEST + column];
        to[2 * a.channels + k] = values[(many + k) * LONGEST + column];
    }
}

KERNEL(batch_moments_many, moments_arguments) { moments(a, MANY); }
KERNEL(batch_moments_one, moments_arguments) { moments(a, 1); }

enum { SIDE = 32, DEEP = 16 };

/* Returns the sum of a value over the DEEP threads of a channel, to all of them. */
DEVICE double sum_deep(double *values, double value) {
    const int thread = (int)THREAD;
    barrier();
    values[thread] = value;
    barrier();
    double sum = 0.0;
    for (int at = thread % SIDE; at < SIDE * DEEP; at += SIDE) sum += values[at];
    return sum;
}

typedef struct {
    const float *parts;
    float *mean;
    float *var;
    float *inv_std;
    i64 rows;
    i64 channels;
    i64 lanes;
    i64 blocks;
    float epsilon;
    u32 unused;
} statistics_arguments;

/* The statistics of all rows, of those of `blocks` blocks. Launched with SIDE * DEEP threads for every SIDE channels. */
KERNEL(batch_statistics, statistics_arguments) {
    SHARED(double, values, SIDE * DEEP);
    const i64 channel = BLOCK * SIDE + THREAD % SIDE, first = THREAD / SIDE;
    const i64 at = channel < a.channels ? channel : a.channels - 1;
    double sum = 0.0;
    for (i64 block = first; block < a.blocks; block += DEEP) {
        const float *part = a.parts + 3 * block * a.channels + at;
        sum += (double)rows_of(a.rows, a.lanes, block, a.blocks) * part[0] + part[a.channels];
    }
    const double mean = sum_deep(values, sum) / (double)a.rows;
    sum = 0.0;
    for (i64 block = first; block < a.blocks; block += DEEP) {
        const float *part = a.parts + 3 * block * a.channels + at;
        const double distance = part[0] - mean, count = (double)rows_of(a.rows, a.lanes, block, a.blocks);
        sum += part[2 * a.channels] + distance * (2.0 * part[a.channels] + count * distance);
    }
    const double spread = sum_deep(values, sum) / (double)a.rows, var = spread < 0.0 ? 0.0 : spread;
    if (first > 0 || channel >= a.channels) return;
    a.mean[channel] = (float)mean;
    a.inv_std[channel] = (float)(1.0 / sqrt(var + (double)a.epsilon));
    if (a.var) a.var[channel] = (float)var;
}

typedef struct {
    const T *x;
    const T *residual;
    const float *scale;
    const float *bias;
    const float *mean;
    const float *spread;
    T *y;
    i64 rows;
    i64 channels;
    i64 width;
    i64 lanes;
    float epsilon;
    float min;
    float max;
    u32 given;
} apply_arguments;

/* The inverse standard deviation: of a variance where it is given. */
DEVICE float inverse(float spread, u32 given, float epsilon) { return given ? 1.0f / sqrtf(spread + epsilon) : spread; }

DEVICE void apply(const apply_arguments a, const int many) {
    enum { ROWS = 2 };
    const int width = (int)a.width, lane = (int)THREAD / width;
    const i64 channel = (BLOCK_Y * width + THREAD % width) * many;
    if (channel >= a.channels || lane >= a.lanes) return;
    float mean[MANY], factor[MANY], bias[MANY];
    for (int k = 0; k < many; k++) {
        mean[k] = a.mean[channel + k];
        factor[k] = a.scale[channel + k] * inverse(a.spread[channel + k], a.given, a.epsilon);
        bias[k] = a.bias[channel + k];
    }
    for (i64 first = mine(chunks_of(a.rows, a.lanes), BLOCK, BLOCKS) - 1; first >= 0; first -= ROWS) {
        group x[ROWS], residual[ROWS];
        i64 row[ROWS];
        for (int u = 0; u < ROWS; u++) {
            row[u] = first >= u ? (BLOCK + (first - u) * BLOCKS) * a.lanes + lane : a.rows;
            const i64 at = (row[u] < a.rows ? row[u] : a.rows - 1) * a.channels + channel;
            fetch(a.x, at, &x[u], many);
            if (a.residual) fetch(a.residual, at, &residual[u], many);
        }
        for (int u = 0; u < ROWS; u++) {
            if (row[u] >= a.rows) continue;
            for (int k = 0; k < many; k++) {
                float y = fmaf(load(x[u].parts, k) - mean[k], factor[k], bias[k]);
                if (a.residual) y += load(residual[u].parts, k);
                y = y < a.min ? a.min : y;
                store(x[u].parts, k, y > a.max ? a.max : y);
            }
            place(a.y, row[u] * a.channels + channel, &x[u], many);
        }
    }
}

KERNEL(batch_apply_many, apply_arguments) { apply(a, MANY); }
KERNEL(batch_apply_one, apply_arguments) { apply(a, 1); }

typedef struct {
    const T *dy;
    const T *more;
    const T *y;
    const T *x;
    const float *scale;
    const float *bias;
    const float *mean;
    const float *spread;
    const float *coefficients;
    float *parts;
    T *dx;
    T *dresidual;
    i64 rows;
    i64 channels;
    i64 width;
    i64 lanes;
    float epsilon;
    float min;
    float max;
    u32 given;
    u32 gated;
    u32 centered;
} gradient_arguments;

/* With d = dy + more where the activation passes it, else 0, and c = x - mean: dresidual = d; without coefficients,
 * dx = d scale inv_std, and parts[BLOCK] = sum(d) and sum(d c) of the rows of a block, per channel; with coefficients,
 * dx = d factor - (c slope + constant). Each of more, y, dx, dresidual and parts may be missing; x is read where c is
 * needed, which `centered` says. */
DEVICE void gradient(const gradient_arguments a, const int many, const int last) {
    enum { ROWS = 2 };
    SHARED(float, values, 2 * MANY * LONGEST);
    const int width = (int)a.width, lane = (int)THREAD / width, column = (int)THREAD % width;
    const i64 channel = (BLOCK_Y * width + column) * many, count = mine(chunks_of(a.rows, a.lanes), BLOCK, BLOCKS);
    const int inside = channel < a.channels && lane < a.lanes;
    float mean[MANY], factor[MANY], bias[MANY], slope[MANY], constant[MANY], sums[MANY], products[MANY];
    for (int k = 0; k < many; k++) {
        const i64 at = inside ? channel + k : 0;
        mean[k] = a.mean[at];
        factor[k] = a.scale[at] * inverse(a.spread[at], a.given, a.epsilon);
        bias[k] = a.bias[at];
        sums[k] = products[k] = 0.0f;
        if (last) {
            slope[k] = a.coefficients[at];
            constant[k] = a.coefficients[a.channels + at];
        }
    }
    for (i64 step = 0; step < count && inside; step += ROWS) {
        group dy[ROWS], more[ROWS], y[ROWS], x[ROWS];
        i64 row[ROWS];
        for (int u = 0; u < ROWS; u++) {
            const i64 chunk = last ? count - 1 - step - u : step + u;
            row[u] = step + u < count ? (BLOCK + chunk * BLOCKS) * a.lanes + lane : a.rows;
            const i64 at = (row[u] < a.rows ? row[u] : a.rows - 1) * a.channels + channel;
            fetch(a.dy, at, &dy[u], many);
            if (a.more) fetch(a.more, at, &more[u], many);
            if (a.y) fetch(a.y, at, &y[u], many);
            if (a.centered) fetch(a.x, at, &x[u], many);
        }
        for (int u = 0; u < ROWS; u++) {
            if (row[u] >= a.rows) continue;
            const i64 at = row[u] * a.channels + channel;
            group to;
            for (int k = 0; k < many; k++) {
                float d = load(dy[u].parts, k);
                if (a.more) d += load(more[u].parts, k);
                const float c = a.centered ? load(x[u].parts, k) - mean[k] : 0.0f;
                if (a.gated) {
                    const float judged = a.y ? load(y[u].parts, k) : fmaf(c, factor[k], bias[k]);
                    d = judged <= a.min || judged >= a.max ? 0.0f : d;
                }
                store(dy[u].parts, k, d);
                sums[k] += d;
                products[k] = fmaf(d, c, products[k]);
                store(to.parts, k, last ? d * factor[k] - fmaf(c, slope[k], constant[k]) : d * factor[k]);
            }
            if (a.dresidual) place(a.dresidual, at, &dy[u], many);
            if (a.dx) place(a.dx, at, &to, many);
        }
    }
    if (last || !a.parts) return;
    sum_lanes(values, sums, products, width, (int)a.lanes, many);
    if (lane > 0 || !inside) return;
    float *to = a.parts + 2 * BLOCK * a.channels + channel;
    for (int k = 0; k < many; k++) {
        to[k] = values[k * LONGEST + column];
        to[a.channels + k] = values[(many + k) * LONGEST + column];
    }
}

KERNEL(batch_gradient_many, gradient_arguments) { gradient(a, MANY, 0); }
KERNEL(batch_gradient_one, gradient_arguments) { gradient(a, 1, 0); }
KERNEL(batch_input_gradient_many, gradient_arguments) { gradient(a, MANY, 1); }
KERNEL(batch_input_gradient_one, gradient_arguments) { gradient(a, 1, 1); }

typedef struct {
    const float *parts;
    const float *scale;
    const float *spread;
    float *dscale;
    float *dbias;
    float *coefficients;
    i64 rows;
    i64 channels;
    i64 blocks;
    float epsilon;
    u32 given;
} totals_arguments;

/* dbias = sum(d), dscale = inv_std sum(d c), and the coefficients of dx: slope = scale inv_std^3 mean(d c) and
 * constant = scale inv_std mean(d). Launched as batch_statistics. */
KERNEL(batch_totals, totals_arguments) {
    SHARED(double, values, SIDE * DEEP);
    const i64 channel = BLOCK * SIDE + THREAD % SIDE, first = THREAD / SIDE;
    const i64 at = channel < a.channels ? channel : a.channels - 1;
    double grads = 0.0, products = 0.0;
    for (i64 block = first; block < a.blocks; block += DEEP) {
        grads += a.parts[2 * block * a.channels + at];
        products += a.parts[(2 * block + 1) * a.channels + at];
    }
    grads = sum_deep(values, grads);
    products = sum_deep(values, products);
    if (first > 0 || channel >= a.channels) return;
    const double spread = a.spread[channel];
    const double inv_std = a.given ? 1.0 / sqrt(spread + (double)a.epsilon) : spread;
    const double factor = a.scale[channel] * inv_std;
    if (a.dbias) a.dbias[channel] = (float)grads;
    if (a.dscale) a.dscale[channel] = (float)(products * inv_std);
    if (!a.coefficients) return;
    a.coefficients[channel] = (float)(factor * inv_std * inv_std * products / (double)a.rows);
    a.coefficients[a.channels + channel] = (float)(factor * grads / (double)a.rows);
}

typedef struct {
    const float *mean;
    const float *var;
    const float *running_mean;
    const float *running_var;
    float *next_mean;
    float *next_var;
    i64 channels;
    float keep;
    float add;
    float factor;
    u32 unused;
} running_arguments;

/* next = running * keep + batch * add of both, the variance of the batch times `factor`. */
KERNEL(running_statistics, running_arguments) {
    for (i64 at = BLOCK * THREADS + THREAD; at < a.channels; at += BLOCKS * THREADS) {
        a.next_mean[at] = a.running_mean[at] * a.keep + a.mean[at] * a.add;
        a.next_var[at] = a.running_var[at] * a.keep + a.var[at] * a.factor * a.add;
    }
}
