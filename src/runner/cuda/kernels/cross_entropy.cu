/* Softmax and cross entropy as one, and its gradient.
 *
 * p = x - log_sum(x); the loss is -sum(score) / total, of a row with target t score = (1 - e) w[t] p[t] + e / C sum_c(w[c]
 * p[c]), and total is the sum of w[t]; rows whose target is ignored do not count, one that is no class makes it NaN.
 * dx[c] = dloss / total ((1 - e) w[t] (q - (c == t)) + e / C (q sum(w) - w[c])), q = exp(p); 0 in ignored rows.
 * x is [outer, C, inner], a row one of outer and inner. */
#include "device.h"

#define LOG2_E 1.44269504f

typedef struct {
    const T *x;
    const i64 *target;
    /* May be missing: all 1. */
    const float *weights;
    /* May be missing in the loss. */
    float *log_sum;
    /* Score and weight of each row. */
    float *scores;
    /* Only of the gradient. */
    const float *dloss;
    const float *total;
    T *dx;
    i64 rows;
    i64 classes;
    i64 inner;
    i64 ignore;
    float smoothing;
    u32 unused;
} cross_entropy_arguments;

/* Of the elements that a thread saw: their largest, the sum of exp(x - largest), and, with smoothing, the sums of w x and
 * w. Not -infinity at first, so that a thread that saw nothing else has a sum. */
typedef struct {
    float most;
    float sum;
    float product;
    float weight;
} seen;

DEVICE seen nothing(void) {
    seen s = { -3.402823466e38f, 0.0f, 0.0f, 0.0f };
    return s;
}

DEVICE float class_weight(const cross_entropy_arguments a, i64 class_) { return a.weights ? a.weights[class_] : 1.0f; }

DEVICE seen seen_also(const cross_entropy_arguments a, seen s, const float *v, const int many, i64 class_) {
    float higher = s.most;
    for (int j = 0; j < many; j++) higher = fmaxf(higher, v[j]);
    s.sum *= exp2_fast((s.most - higher) * LOG2_E);
    s.most = higher;
    for (int j = 0; j < many; j++) s.sum += exp2_fast((v[j] - higher) * LOG2_E);
    for (int j = 0; a.smoothing > 0.0f && j < many; j++) {
        const float weight = class_weight(a, class_ + j);
        s.product = fmaf(weight, v[j], s.product);
        s.weight += weight;
    }
    return s;
}

/* Writes what a row of which all was seen adds; `at` is where the element of class 0 lies. */
DEVICE void counted(const cross_entropy_arguments a, i64 row, i64 at, seen s) {
    const float log_sum = s.most + logf(s.sum);
    const i64 target = a.target[row];
    float score = 0.0f, weight = 0.0f;
    if (target != a.ignore && (target < 0 || target >= a.classes)) weight = from_bits(0x7fc00000u);
    else if (target != a.ignore) {
        weight = class_weight(a, target);
        score = (1.0f - a.smoothing) * weight * (load(a.x, at + target * a.inner) - log_sum);
        if (a.smoothing > 0.0f) score += a.smoothing / (float)a.classes * (s.product - log_sum * s.weight);
    }
    if (a.log_sum) a.log_sum[row] = log_sum;
    a.scores[row] = score;
    a.scores[a.rows + row] = weight;
}

/* With a warp or a block for a row of contiguous elements. */
DEVICE void forward(const cross_entropy_arguments a, const int whole, const int many) {
    const int threads = team_threads(whole), thread = team_thread(whole);
    for (i64 row = team_first(whole); row < a.rows; row += team_count(whole)) {
        seen s = nothing();
        float v[MANY];
        for (i64 at = (i64)thread * many; at < a.classes; at += threads * many) {
            load_some(a.x, row * a.classes + at, many, v);
            s = seen_also(a, s, v, many, at);
        }
        seen all;
        all.most = team_max(s.most, whole);
        all.sum = team_sum(s.sum * exp2_fast((s.most - all.most) * LOG2_E), whole);
        all.product = a.smoothing > 0.0f ? team_sum(s.product, whole) : 0.0f;
        all.weight = a.smoothing > 0.0f ? team_sum(s.weight, whole) : 0.0f;
        if (thread == 0) counted(a, row, row * a.classes, all);
    }
}

KERNEL(cross_entropy_warp, cross_entropy_arguments) { forward(a, 0, 1); }
KERNEL(cross_entropy_warp_many, cross_entropy_arguments) { forward(a, 0, MANY); }
KERNEL(cross_entropy_block, cross_entropy_arguments) { forward(a, 1, 1); }
KERNEL(cross_entropy_block_many, cross_entropy_arguments) { forward(a, 1, MANY); }

/* With a thread for a row, whose elements lie `inner` apart. */
KERNEL(cross_entropy_columns, cross_entropy_arguments) {
    for (i64 row = BLOCK * THREADS + THREAD; row < a.rows; row += BLOCKS * THREADS) {
        const i64 first = row / a.inner * a.classes * a.inner + row % a.inner;
        seen s = nothing();
        for (i64 class_ = 0; class_ < a.classes; class_++) {
            const float x = load(a.x, first + class_ * a.inner);
            s = seen_also(a, s, &x, 1, class_);
        }
        counted(a, row, first, s);
    }
}

typedef struct {
    const float *scores;
    /* Of each block. */
    float *parts;
    /* Only of the last sum, of one block. */
    float *loss;
    /* May be missing. */
    float *total;
    i64 count;
} cross_entropy_sum_arguments;

/* Sums scores and weights. */
KERNEL(cross_entropy_sum, cross_entropy_sum_arguments) {
    float score = 0.0f, weight = 0.0f;
    for (i64 at = BLOCK * THREADS + THREAD; at < a.count; at += BLOCKS * THREADS) {
        score += a.scores[at];
        weight += a.scores[a.count + at];
    }
    score = block_sum(score);
    weight = block_sum(weight);
    if (THREAD != 0) return;
    if (a.loss) {
        *a.loss = -score / weight;
        if (a.total) *a.total = weight;
    } else {
        a.parts[BLOCK] = score;
        a.parts[BLOCKS + BLOCK] = weight;
    }
}

/* What dx of a row is made of: dx = q slope - w spread, less `own` at the target. */
typedef struct {
    float slope;
    float spread;
    float own;
} slopes;

/* `weight` is the sum of all classes' weights, only with smoothing. */
DEVICE slopes slopes_of(const cross_entropy_arguments a, i64 target, float weight) {
    slopes s = { 0.0f, 0.0f, 0.0f };
    if (target == a.ignore) return s;
    const float factor = *a.dloss / *a.total, share = a.smoothing / (float)a.classes;
    const int known = target >= 0 && target < a.classes;
    s.own = (1.0f - a.smoothing) * (known ? class_weight(a, target) : from_bits(0x7fc00000u)) * factor;
    s.slope = s.own + share * weight * factor;
    s.spread = share * factor;
    return s;
}

DEVICE float slope_at(const cross_entropy_arguments a, slopes s, float x, float log_sum, i64 class_, i64 target) {
    if (target == a.ignore) return 0.0f;
    float dx = exp2_fast((x - log_sum) * LOG2_E) * s.slope;
    if (a.smoothing > 0.0f) dx -= class_weight(a, class_) * s.spread;
    return class_ == target ? dx - s.own : dx;
}

/* With a block for a row of contiguous elements. */
DEVICE void backward(const cross_entropy_arguments a, const int many) {
    float weight = (float)a.classes;
    if (a.weights && a.smoothing > 0.0f) {
        weight = 0.0f;
        for (i64 at = THREAD; at < a.classes; at += THREADS) weight += a.weights[at];
        weight = block_sum(weight);
    }
    for (i64 row = BLOCK; row < a.rows; row += BLOCKS) {
        const i64 target = a.target[row], from = row * a.classes;
        const float log_sum = a.log_sum[row];
        const slopes s = slopes_of(a, target, weight);
        float v[MANY];
        for (i64 at = THREAD * many; at < a.classes; at += THREADS * many) {
            load_some(a.x, from + at, many, v);
            for (int j = 0; j < many; j++) v[j] = slope_at(a, s, v[j], log_sum, at + j, target);
            store_some(a.dx, from + at, many, v);
        }
    }
}

KERNEL(cross_entropy_grad, cross_entropy_arguments) { backward(a, 1); }
KERNEL(cross_entropy_grad_many, cross_entropy_arguments) { backward(a, MANY); }

/* With a thread for a row, whose elements lie `inner` apart. */
KERNEL(cross_entropy_grad_columns, cross_entropy_arguments) {
    float weight = (float)a.classes;
    if (a.weights && a.smoothing > 0.0f) {
        weight = 0.0f;
        for (i64 at = THREAD; at < a.classes; at += THREADS) weight += a.weights[at];
        weight = block_sum(weight);
    }
    for (i64 row = BLOCK * THREADS + THREAD; row < a.rows; row += BLOCKS * THREADS) {
        const i64 first = row / a.inner * a.classes * a.inner + row % a.inner, target = a.target[row];
        const float log_sum = a.log_sum[row];
        const slopes s = slopes_of(a, target, weight);
        for (i64 class_ = 0; class_ < a.classes; class_++) {
            const i64 at = first + class_ * a.inner;
            store(a.dx, at, slope_at(a, s, load(a.x, at), log_sum, class_, target));
        }
    }
}
