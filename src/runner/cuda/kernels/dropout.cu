/* Dropout whose random numbers are products of one number of the row and one of the column: y = 0 where
 * r[i] c[j] mod 2^32 < least, else x factor. */
#include "device.h"

typedef struct {
    const T *x;
    const i64 *r;
    const i64 *c;
    T *y;
    i64 rows;
    i64 columns;
    u32 least;
    float factor;
} dropout_arguments;

/* A thread has `many` columns of some rows; `many` divides the number of columns. */
DEVICE void dropped(const dropout_arguments a, const int many) {
    const i64 parts = a.columns / many, wide = parts < THREADS ? parts : THREADS;
    const i64 high = THREADS / wide, own = THREAD / wide;
    if (own >= high) return;
    for (i64 part = BLOCK_Y * wide + THREAD % wide; part < parts; part += BLOCKS_Y * wide) {
        u32 c[MANY];
        for (int j = 0; j < many; j++) c[j] = (u32)a.c[part * many + j];
        for (i64 row = BLOCK * high + own; row < a.rows; row += BLOCKS * high) {
            const i64 at = row * a.columns + part * many;
            const u32 r = (u32)a.r[row];
            float v[MANY];
            load_some(a.x, at, many, v);
            for (int j = 0; j < many; j++) v[j] = r * c[j] < a.least ? 0.0f : v[j] * a.factor;
            store_some(a.y, at, many, v);
        }
    }
}

KERNEL(dropout, dropout_arguments) { dropped(a, 1); }
KERNEL(dropout_many, dropout_arguments) { dropped(a, MANY); }
