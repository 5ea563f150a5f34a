/* Pooling of images [N, H, W, C] over windows and over whole images, and its gradients.
 *
 * Threads of a block lie over `lanes` pixels of what is written and `width` groups of channels, as in batch_norm.cu. */
#include "device.h"

#define LONGEST 256

typedef struct {
    int input[2];
    int output[2];
    int kernel[2];
    int strides[2];
    int dilations[2];
    int begin[2];
    /* From where to where the positions lie that count in a mean: the first is `begin`, or 0 with the padding. */
    int counted[2][2];
} windows;

typedef struct {
    const T *from;
    T *to;
    unsigned char *winners;
    i64 pixels;
    i64 channels;
    i64 width;
    i64 lanes;
    windows windows;
} pool_arguments;

/* An image and the place of a pixel in it. */
typedef struct {
    i64 image;
    int at[2];
} pixel;

DEVICE pixel pixel_of(i64 index, const int *size) {
    const u32 at = (u32)index, row = at / (u32)size[1];
    pixel p;
    p.image = row / (u32)size[0];
    p.at[0] = (int)(row % (u32)size[0]);
    p.at[1] = (int)(at % (u32)size[1]);
    return p;
}

/* The number of pixels before those of an image. */
DEVICE i64 plane(i64 image, const int *size) { return image * size[0] * size[1]; }

/* The elements of a window that count, along an axis. */
DEVICE float share(const windows *w, int axis, int output) {
    int count = 0;
    for (int k = 0; k < w->kernel[axis]; k++) {
        const int at = output * w->strides[axis] + k * w->dilations[axis];
        count += at >= w->counted[axis][0] && at < w->counted[axis][1];
    }
    return 1.0f / (float)(count > 0 ? count : 1);
}

enum { MEAN, GREATEST, WINNER };

/* Writes the place in the window of the element that wins, in one byte of a group, in two of one element. */
DEVICE void place_winners(unsigned char *winners, i64 at, const u32 *first, const int many) {
    if (many == 1) {
        ((u16 *)winners)[at] = (u16)first[0];
        return;
    }
    for (int word = 0; word < MANY; word += 4) {
        ((u32 *)winners)[(at + word) / 4] =
            first[word] | first[word + 1] << 8 | first[word + 2] << 16 | first[word + 3] << 24;
    }
}

/* Means, maxima, or the place of the first maximum of each window. */
DEVICE void pool(const pool_arguments a, const int many, const int what) {
    const int lane = (int)(THREAD / a.width);
    const i64 channel = (BLOCK_Y * a.width + THREAD % a.width) * many;
    if (channel >= a.channels || lane >= a.lanes) return;
    const windows *w = &a.windows;
    for (i64 index = BLOCK * a.lanes + lane; index < a.pixels; index += BLOCKS * a.lanes) {
        const pixel p = pixel_of(index, w->output);
        const T *from = a.from + plane(p.image, w->input) * a.channels + channel;
        float value[MANY];
        u32 first[MANY];
        int met = 0;
        for (int k = 0; k < MANY; k++) {
            value[k] = what == MEAN ? 0.0f : -INFINITY_F;
            first[k] = 0;
        }
        for (int row = 0; row < w->kernel[0]; row++) {
            const int y = p.at[0] * w->strides[0] + row * w->dilations[0] - w->begin[0];
            if (y < 0 || y >= w->input[0]) continue;
            for (int column = 0; column < w->kernel[1]; column++) {
                const int x = p.at[1] * w->strides[1] + column * w->dilations[1] - w->begin[1];
                if (x < 0 || x >= w->input[1]) continue;
                group g;
                fetch(from, ((i64)y * w->input[1] + x) * a.channels, &g, many);
                for (int k = 0; k < many; k++) {
                    const float v = load(g.parts, k);
                    if (what == MEAN) {
                        value[k] += v;
                    } else if (!met || v > value[k] || (v != v && value[k] == value[k])) {
                        value[k] = v;
                        first[k] = (u32)(row * w->kernel[1] + column);
                    }
                }
                met = 1;
            }
        }
        const i64 at = index * a.channels + channel;
        if (what == WINNER) {
            place_winners(a.winners, at, first, many);
            continue;
        }
        const float factor = what == MEAN ? share(w, 0, p.at[0]) * share(w, 1, p.at[1]) : 1.0f;
        group g;
        for (int k = 0; k < many; k++) store(g.parts, k, value[k] * factor);
        place(a.to, at, &g, many);
    }
}

KERNEL(average_pool_many, pool_arguments) { pool(a, MANY, MEAN); }
KERNEL(average_pool_one, pool_arguments) { pool(a, 1, MEAN); }
KERNEL(max_pool_many, pool_arguments) { pool(a, MANY, GREATEST); }
KERNEL(max_pool_one, pool_arguments) { pool(a, 1, GREATEST); }
KERNEL(max_pool_winners_many, pool_arguments) { pool(a, MANY, WINNER); }
KERNEL(max_pool_winners_one, pool_arguments) { pool(a, 1, WINNER); }

/* Gradients of the input: of `from`, the gradient of the output, the share of each window that a pixel lies in, or all
 * of it where the pixel wins. */
DEVICE void pool_gradient(const pool_arguments a, const int many, const int what) {
    const int lane = (int)(THREAD / a.width);
    const i64 channel = (BLOCK_Y * a.width + THREAD % a.width) * many;
    if (channel >= a.channels || lane >= a.lanes) return;
    const windows *w = &a.windows;
    for (i64 index = BLOCK * a.lanes + lane; index < a.pixels; index += BLOCKS * a.lanes) {
        const pixel p = pixel_of(index, w->input);
        const i64 before = plane(p.image, w->output);
        float value[MANY];
        for (int k = 0; k < MANY; k++) value[k] = 0.0f;
        for (int row = w->kernel[0] - 1; row >= 0; row--) {
            const int reach = p.at[0] + w->begin[0] - row * w->dilations[0], y = reach / w->strides[0];
            if (reach < 0 || y * w->strides[0] != reach || y >= w->output[0]) continue;
            for (int column = w->kernel[1] - 1; column >= 0; column--) {
                const int across = p.at[1] + w->begin[1] - column * w->dilations[1], x = across / w->strides[1];
                if (across < 0 || x * w->strides[1] != across || x >= w->output[1]) continue;
                const i64 at = (before + (i64)y * w->output[1] + x) * a.channels + channel;
                group g;
                fetch(a.from, at, &g, many);
                if (what == MEAN) {
                    const float factor = share(w, 0, y) * share(w, 1, x);
                    for (int k = 0; k < many; k++) value[k] = fmaf(load(g.parts, k), factor, value[k]);
                    continue;
                }
                const u32 place = (u32)(row * w->kernel[1] + column);
                u32 words[MANY / 4];
                if (many == 1) {
                    words[0] = ((const u16 *)a.winners)[at];
                    value[0] += words[0] == place ? load(g.parts, 0) : 0.0f;
                    continue;
                }
                for (int word = 0; word < MANY / 4; word++) words[word] = ((const u32 *)a.winners)[at / 4 + word];
                for (int k = 0; k < many; k++) {
                    value[k] += (words[k / 4] >> k % 4 * 8 & 255) == place ? load(g.parts, k) : 0.0f;
                }
            }
        }
        group g;
        for (int k = 0; k < many; k++) store(g.parts, k, value[k]);
        place(a.to, index * a.channels + channel, &g, many);
    }
}

KERNEL(average_pool_gradient_many, pool_arguments) { pool_gradient(a, MANY, MEAN); }
KERNEL(average_pool_gradient_one, pool_arguments) { pool_gradient(a, 1, MEAN); }
KERNEL(max_pool_gradient_many, pool_arguments) { pool_gradient(a, MANY, WINNER); }
KERNEL(max_pool_gradient_one, pool_arguments) { pool_gradient(a, 1, WINNER); }

typedef struct {
    const T *from;
    T *to;
    i64 images;
    i64 pixels;
    i64 channels;
    i64 width;
    i64 lanes;
} global_arguments;

/* The mean of an image for every block of the first dimension, or every BLOCKS-th. */
DEVICE void global_pool(const global_arguments a, const int many) {
    SHARED(float, values, MANY * LONGEST);
    const int width = (int)a.width, thread = (int)THREAD, lane = thread / width, column = thread % width;
    const i64 channel = (BLOCK_Y * width + column) * many;
    const int inside = channel < a.channels && lane < a.lanes;
    for (i64 image = BLOCK; image < a.images; image += BLOCKS) {
        const T *from = a.from + image * a.pixels * a.channels + (inside ? channel : 0);
        float sum[MANY];
        for (int k = 0; k < many; k++) sum[k] = 0.0f;
        for (i64 at = lane; at < a.pixels && inside; at += a.lanes) {
            group g;
            fetch(from, at * a.channels, &g, many);
            for (int k = 0; k < many; k++) sum[k] += load(g.parts, k);
        }
        for (int k = 0; k < many; k++) values[k * LONGEST + thread] = sum[k];
        barrier();
        for (int live = (int)a.lanes; live > 1;) {
            const int half = (live + 1) / 2;
            if (lane + half < live) {
                for (int k = 0; k < many; k++) values[k * LONGEST + thread] += values[k * LONGEST + thread + half * width];
            }
            barrier();
            live = half;
        }
        if (lane == 0 && inside) {
            group g;
            for (int k = 0; k < many; k++) store(g.parts, k, values[k * LONGEST + column] * (1.0f / (float)a.pixels));
            place(a.to, image * a.channels + channel, &g, many);
        }
        barrier();
    }
}

KERNEL(global_pool_many, global_arguments) { global_pool(a, MANY); }
KERNEL(global_pool_one, global_arguments) { global_pool(a, 1); }

DEVICE void global_gradient(const global_arguments a, const int many) {
    const int lane = (int)(THREAD / a.width);
    const i64 channel = (BLOCK_Y * a.width + THREAD % a.width) * many;
    if (channel >= a.channels || lane >= a.lanes) return;
    for (i64 index = BLOCK * a.lanes + lane; index < a.images * a.pixels; index += BLOCKS * a.lanes) {
        group g;
        fetch(a.from, (i64)((u32)index / (u32)a.pixels) * a.channels + channel, &g, many);
        for (int k = 0; k < many; k++) store(g.parts, k, load(g.parts, k) * (1.0f / (float)a.pixels));
        place(a.to, index * a.channels + channel, &g, many);
    }
}

KERNEL(global_gradient_many, global_arguments) { global_gradient(a, MANY); }
KERNEL(global_gradient_one, global_arguments) { global_gradient(a, 1); }
