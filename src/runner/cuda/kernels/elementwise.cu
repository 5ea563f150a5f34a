/* Gradients of activations that stand alone. */
#include "device.h"

typedef struct {
    const T *dy;
    const T *y;
    T *dx;
    i64 count;
    float min;
    float max;
} gate_arguments;

/* dx = dy where min < y < max, else 0. Launched with a thread for every MANY elements, or fewer that go on. */
KERNEL(gate, gate_arguments) {
    const i64 whole = a.count / MANY * MANY;
    for (i64 at = (BLOCK * THREADS + THREAD) * MANY; at < whole; at += BLOCKS * THREADS * MANY) {
        float dy[MANY], y[MANY];
        load_many(a.dy, at, dy);
        load_many(a.y, at, y);
        for (int k = 0; k < MANY; k++) dy[k] = y[k] > a.min && y[k] < a.max ? dy[k] : 0.0f;
        store_many(a.dx, at, dy);
    }
    for (i64 at = whole + BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS) {
        const float y = load(a.y, at);
        store(a.dx, at, y > a.min && y < a.max ? load(a.dy, at) : 0.0f);
    }
}
