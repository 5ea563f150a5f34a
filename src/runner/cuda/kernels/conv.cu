/* What surrounds a convolution: other layouts of weights and images, the zeros around an image, and the bias. */
#include "device.h"

enum { SIDE = 32, DEEP = 8 };

typedef struct {
    const T *from;
    void *to;
    i64 rows;
    i64 columns;
    i64 across;
    i64 tiles;
} turn_arguments;

/* Writes [outer, rows, columns] as [outer, columns, rows], in float where `wide`. Launched with SIDE * DEEP threads; tiles
 * of SIDE * SIDE are numbered along columns (`across` of them), then rows, then the outer axis. */
DEVICE void turn(const turn_arguments a, const int wide) {
    SHARED(float, values, SIDE * (SIDE + 1));
    const int x = (int)THREAD % SIDE, y = (int)THREAD / SIDE;
    const i64 down = (a.rows + SIDE - 1) / SIDE;
    for (i64 tile = BLOCK; tile < a.tiles; tile += BLOCKS) {
        const i64 column = tile % a.across * SIDE, row = tile / a.across % down * SIDE;
        const i64 start = tile / a.across / down * a.rows * a.columns;
        for (int step = y; step < SIDE; step += DEEP) {
            if (row + step < a.rows && column + x < a.columns) {
                values[step * (SIDE + 1) + x] = load(a.from, start + (row + step) * a.columns + column + x);
            }
        }
        barrier();
        for (int step = y; step < SIDE; step += DEEP) {
            if (column + step < a.columns && row + x < a.rows) {
                const i64 at = start + (column + step) * a.rows + row + x;
                const float value = values[x * (SIDE + 1) + step];
                if (wide) ((float *)a.to)[at] = value;
                else store((T *)a.to, at, value);
            }
        }
        barrier();
    }
}

KERNEL(turn_plain, turn_arguments) { turn(a, 0); }
KERNEL(turn_wide, turn_arguments) { turn(a, 1); }

typedef struct {
    const T *from;
    float *to;
    i64 count;
} widen_arguments;

KERNEL(widen, widen_arguments) {
    for (i64 at = BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS) a.to[at] = load(a.from, at);
}

typedef struct {
    const T *from;
    T *to;
    i64 pixels;
    i64 channels;
    i64 width;
    i64 lanes;
    int source[2];
    int target[2];
    int offset[2];
} frame_arguments;

/* to[n, y, x] = from[n, y - offset[0], x - offset[1]], 0 outside of the images: adds zeros around them, or with offsets
 * below 0 takes them away. Threads lie over pixels of `to` and groups of channels, as in batch_norm.cu. */
DEVICE void frame(const frame_arguments a, const int many) {
    const int lane = (int)(THREAD / a.width);
    const i64 channel = (BLOCK_Y * a.width + THREAD % a.width) * many;
    if (channel >= a.channels || lane >= a.lanes) return;
    for (i64 index = BLOCK * a.lanes + lane; index < a.pixels; index += BLOCKS * a.lanes) {
        const u32 at = (u32)index, line = at / (u32)a.target[1];
        const int y = (int)(line % (u32)a.target[0]) - a.offset[0], x = (int)(at % (u32)a.target[1]) - a.offset[1];
        group g;
        for (int k = 0; k < many; k++) store(g.parts, k, 0.0f);
        if (y >= 0 && y < a.source[0] && x >= 0 && x < a.source[1]) {
            const i64 image = line / (u32)a.target[0];
            fetch(a.from, ((image * a.source[0] + y) * a.source[1] + x) * a.channels + channel, &g, many);
        }
        place(a.to, index * a.channels + channel, &g, many);
    }
}

KERNEL(frame_many, frame_arguments) { frame(a, MANY); }
KERNEL(frame_one, frame_arguments) { frame(a, 1); }

typedef struct {
    T *y;
    const float *bias;
    i64 pixels;
    i64 channels;
    i64 width;
    i64 lanes;
} bias_arguments;

DEVICE void add_bias(const bias_arguments a, const int many) {
    const int lane = (int)(THREAD / a.width);
    const i64 channel = (BLOCK_Y * a.width + THREAD % a.width) * many;
    if (channel >= a.channels || lane >= a.lanes) return;
    float bias[MANY];
    for (int k = 0; k < many; k++) bias[k] = a.bias[channel + k];
    for (i64 index = BLOCK * a.lanes + lane; index < a.pixels; index += BLOCKS * a.lanes) {
        const i64 at = index * a.channels + channel;
        group g;
        fetch(a.y, at, &g, many);
        for (int k = 0; k < many; k++) store(g.parts, k, load(g.parts, k) + bias[k]);
        place(a.y, at, &g, many);
    }
}

KERNEL(add_bias_many, bias_arguments) { add_bias(a, MANY); }
KERNEL(add_bias_one, bias_arguments) { add_bias(a, 1); }
