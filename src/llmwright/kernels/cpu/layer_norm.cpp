// Layer norm of a sum, forward and backward (definition: reference.py): one pass over memory each. Arithmetic is
// float32; a row stays in the first cache between its mean, its variance and its result.
#include "rows.h"

// y = (s - mean(s)) · rstd · w + b with s = x + added. `sum` receives s where the backward will want it.
template <class T>
static void forward(const T *x, long x_stride, const T *added, long added_stride, long N, long D, const float *w,
                    const float *b, float eps, T *y, T *sum, float *mean, float *rstd, int threads) {
#pragma omp parallel for num_threads(threads) if (N * D > 16384)
    for (long i = 0; i < N; i++) {
        const T *in = x + i * x_stride, *more = added ? added + i * added_stride : nullptr;
        layer_norm_row(in, more, D, w, b, eps, y + i * D, sum ? sum + i * D : nullptr, (float *)scratch(D * 4), mean + i,
                       rstd + i);
    }
}

// With x̂ = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - x̂ mean(g x̂)), dw = sum of dy x̂, db = sum of dy.
// `dw` and `db` hold `parts` rows of partial sums: the parts do not depend on the threads, so neither do the bits.
template <class T>
static void backward(const T *dy, long dy_stride, const T *x, long x_stride, long N, long D, const float *w,
                     const float *mean, const float *rstd, T *dx, float *dw, float *db, long parts, int threads) {
#pragma omp parallel for num_threads(threads) if (N * D > 16384)
    for (long part = 0; part < parts; part++) {
        float *to_w = dw + part * D, *to_b = db + part * D, *row = (float *)scratch(2 * D * 4), *hat = row + D;
        memset(to_w, 0, D * 4), memset(to_b, 0, D * 4);
        for (long i = N * part / parts; i < N * (part + 1) / parts; i++) {
            const T *in = x + i * x_stride, *g = dy + i * dy_stride;
            const float m = mean[i], r = rstd[i];
            float total = 0, dot = 0;
#pragma omp simd reduction(+ : total, dot)
            for (long d = 0; d < D; d++) {
                const float grad = to_float(g[d]), h = (to_float(in[d]) - m) * r;
                hat[d] = h;
                to_w[d] += grad * h;
                to_b[d] += grad;
                row[d] = grad * w[d];
                total += row[d];
                dot += row[d] * h;
            }
            total /= D, dot /= D;
#pragma omp simd
            for (long d = 0; d < D; d++) row[d] = r * (row[d] - total - hat[d] * dot);
            put_row(dx + i * D, row, D);
        }
    }
}

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void layer_norm_forward_##name(const T *x, long x_stride, const T *added, long added_stride, long N,        \
                                          long D, const float *w, const float *b, float eps, T *y, T *sum,             \
                                          float *mean, float *rstd, int threads) {                                     \
        forward(x, x_stride, added, added_stride, N, D, w, b, eps, y, sum, mean, rstd, threads);                       \
    }                                                                                                                  \
    EXPORT void layer_norm_backward_##name(const T *dy, long dy_stride, const T *x, long x_stride, long N, long D,     \
                                           const float *w, const float *mean, const float *rstd, T *dx, float *dw,     \
                                           float *db, long parts, int threads) {                                       \
        backward(dy, dy_stride, x, x_stride, N, D, w, mean, rstd, dx, dw, db, parts, threads);                         \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
