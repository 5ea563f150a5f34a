/* The gradient of rows taken from a table: dw[indices[q]] += dy[q], from zeros, in float.
 *
 * The positions q are sorted by their rows (counted, offsets, placed), those of a row in their order, so that sums are
 * the same in every run. A row of at most FEW positions is summed at once; the others are first put in order (ordered)
 * and summed by FEW of all sorted positions (parts). Every element of dw is written once (rows). */
#include "device.h"

#define FEW 64

typedef struct {
    const i64 *indices;
    const T *dy;
    float *dw;
    /* Zeros at first; then where the next position of a row goes. */
    u32 *next;
    /* Where the positions of a row begin; one more than rows. */
    u32 *offsets;
    u32 *places;
    /* Two sums for each FEW of the sorted positions: of a row that began at their first or before, and of one that
     * begins among them. */
    float *sums;
    i64 count;
    i64 rows;
    i64 width;
} embedding_arguments;

/* Returns the row of a position; -1 where there is none. Negative indices count from the end. */
DEVICE i64 row_of(const embedding_arguments a, i64 position) {
    const i64 index = a.indices[position], row = index < 0 ? index + a.rows : index;
    return row >= 0 && row < a.rows ? row : -1;
}

KERNEL(embedding_counted, embedding_arguments) {
    for (i64 at = BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS) {
        const i64 row = row_of(a, at);
        if (row >= 0) atomic_next(a.next + row);
    }
}

/* Returns the sum of the values of the threads before, and of all; a block has at most 1024 threads. */
DEVICE u32 sum_before(u32 value, u32 *total) {
    SHARED(u32, sums, 1024);
    u32 sum = value;
    sums[THREAD] = sum;
    barrier();
    for (i64 step = 1; step < THREADS; step *= 2) {
        if (THREAD >= step) sum += sums[THREAD - step];
        barrier();
        sums[THREAD] = sum;
        barrier();
    }
    *total = sums[THREADS - 1];
    barrier();
    return sum - value;
}

/* With one block. */
KERNEL(embedding_offsets, embedding_arguments) {
    u32 begin = 0, total;
    for (i64 first = 0; first < a.rows; first += THREADS * 8) {
        u32 counts[8], own = 0;
        const i64 from = first + THREAD * 8;
        for (int k = 0; k < 8; k++) {
            counts[k] = from + k < a.rows ? a.next[from + k] : 0;
            own += counts[k];
        }
        u32 at = begin + sum_before(own, &total);
        for (int k = 0; k < 8 && from + k < a.rows; k++) {
            a.next[from + k] = a.offsets[from + k] = at;
            at += counts[k];
        }
        begin += total;
    }
    if (THREAD == 0) a.offsets[a.rows] = begin;
}

KERNEL(embedding_placed, embedding_arguments) {
    for (i64 at = BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS) {
        const i64 row = row_of(a, at);
        if (row >= 0) a.places[atomic_next(a.next + row)] = (u32)at;
    }
}

/* Puts the positions of a long row in order, with a block for each FEW of the sorted positions: that in which the row
 * begins. All that others read meanwhile is which row a position has. */
KERNEL(embedding_ordered, embedding_arguments) {
    const i64 first = BLOCK * FEW, all = a.offsets[a.rows];
    if (first >= all) return;
    const i64 last = (first + FEW < all ? first + FEW : all) - 1, row = row_of(a, a.places[last]);
    i64 to = a.offsets[row];
    if (to < first || a.offsets[row + 1] - to <= FEW) return;
    barrier();
    for (i64 from = 0; from < a.count; from += THREADS * 32) {
        const i64 own = from + THREAD * 32;
        u32 found = 0, number = 0, total;
        for (int k = 0; k < 32 && own + k < a.count; k++) {
            if (row_of(a, own + k) == row) {
                found |= 1u << k;
                number++;
            }
        }
        i64 at = to + sum_before(number, &total);
        for (int k = 0; found; k++, found >>= 1)
            if (found & 1) a.places[at++] = (u32)(own + k);
        to += total;
    }
}

/* Writes the sum of lines of dy to a line of floats. */
DEVICE void sum_lines(const embedding_arguments a, const u32 *places, i64 from, i64 to, float *out, const int many) {
    for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
        float sum[MANY], v[MANY];
        for (int j = 0; j < many; j++) sum[j] = 0.0f;
        for (i64 place = from; place < to; place++) {
            load_some(a.dy, (i64)places[place] * a.width + at, many, v);
            for (int j = 0; j < many; j++) sum[j] += v[j];
        }
        store_floats(out, at, many, sum);
    }
}

DEVICE void parts(const embedding_arguments a, const int many) {
    const i64 first = BLOCK * FEW, all = a.offsets[a.rows];
    if (first >= all) return;
    const i64 end = first + FEW < all ? first + FEW : all;
    const i64 before = row_of(a, a.places[first]), after = row_of(a, a.places[end - 1]);
    float *out = a.sums + BLOCK * 2 * a.width;
    const i64 until = a.offsets[before + 1], since = a.offsets[after];
    if (until - a.offsets[before] > FEW) sum_lines(a, a.places, first, until < end ? until : end, out, many);
    if (since > first && a.offsets[after + 1] - since > FEW) sum_lines(a, a.places, since, end, out + a.width, many);
}

KERNEL(embedding_parts, embedding_arguments) { parts(a, 1); }
KERNEL(embedding_parts_many, embedding_arguments) { parts(a, MANY); }

/* With a block for a row. */
DEVICE void rows(const embedding_arguments a, const int many) {
    SHARED(u32, sorted, FEW);
    for (i64 row = BLOCK; row < a.rows; row += BLOCKS) {
        const i64 from = a.offsets[row], to = a.offsets[row + 1];
        float *out = a.dw + row * a.width;
        if (to - from <= FEW) {
            barrier();
            for (i64 at = from + THREAD; at < to; at += THREADS) {
                const u32 own = a.places[at];
                i64 rank = 0;
                for (i64 other = from; other < to; other++) rank += a.places[other] < own;
                sorted[rank] = own;
            }
            barrier();
            sum_lines(a, sorted, 0, to - from, out, many);
            continue;
        }
        for (i64 at = THREAD * many; at < a.width; at += THREADS * many) {
            float sum[MANY], v[MANY];
            for (int j = 0; j < many; j++) sum[j] = 0.0f;
            for (i64 part = from / FEW; part <= (to - 1) / FEW; part++) {
                load_floats(a.sums, (2 * part + (from > part * FEW)) * a.width + at, many, v);
                for (int j = 0; j < many; j++) sum[j] += v[j];
            }
            store_floats(out, at, many, sum);
        }
    }
}

KERNEL(embedding_rows, embedding_arguments) { rows(a, 1); }
KERNEL(embedding_rows_many, embedding_arguments) { rows(a, MANY); }
