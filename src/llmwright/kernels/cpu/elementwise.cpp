// RMS norm, rotary positions and SwiGLU, forward and backward (definitions: reference.py).
//
// Rows are addressed by three sizes and three strides (in elements), so a slice of a wider matrix needs no copy; the
// last dimension is contiguous. Results are contiguous.
#include "rows.h"

struct Rows {
    long n0, n1, n2, s0, s1, s2;
    long count() const { return n0 * n1 * n2; }
    long at(long i) const { return i / (n1 * n2) * s0 + i / n2 % n1 * s1 + i % n2 * s2; }
};

template <class T>
static void rms_norm_forward(const T *x, Rows rows, long D, const float *w, float eps, T *y, float *rstd, int threads) {
    long N = rows.count();
#pragma omp parallel for num_threads(threads) if (N * D > 16384)
    for (long i = 0; i < N; i++) rstd[i] = rms_norm_row(x + rows.at(i), D, w, eps, y + i * D);
}

// dx = rstd (w dy - x̂ mean(w dy x̂)) with x̂ = x rstd; dw = sum of dy x̂. `dw` holds `parts` rows of D partial sums:
// the parts do not depend on the threads, so the result is the same bits whatever their number.
template <class T>
static void rms_norm_backward(const T *dy, Rows dy_rows, const T *x, Rows x_rows, long D, const float *w,
                              const float *rstd, T *dx, float *dw, long parts, int threads) {
    long N = x_rows.count();
#pragma omp parallel for num_threads(threads) if (N * D > 16384)
    for (long part = 0; part < parts; part++) {
        float *sums = dw + part * D;
        for (long d = 0; d < D; d++) sums[d] = 0;
        for (long i = N * part / parts; i < N * (part + 1) / parts; i++) {
            const T *in = x + x_rows.at(i), *g = dy + dy_rows.at(i);
            T *out = dx + i * D;
            float r = rstd[i], dot = 0;
#pragma omp simd reduction(+ : dot)
            for (long d = 0; d < D; d++) {
                float gx = to_float(g[d]) * to_float(in[d]) * r;
                sums[d] += gx;
                dot += gx * w[d];
            }
            dot /= D;
            for (long c = 0; c < D; c += CHUNK) {
                long n = D - c < CHUNK ? D - c : CHUNK;
                float value[CHUNK];
#pragma omp simd
                for (long d = 0; d < n; d++)
                    value[d] = r * (to_float(g[c + d]) * w[c + d] - to_float(in[c + d]) * r * dot);
                put_row(out + c, value, n);
            }
        }
    }
}

// `sign` is 1 forward and -1 backward: the transpose of a rotation turns the other way.
template <class T>
static void rotary(const T *x, Rows rows, long C, const float *cos, const float *sin, long angle_stride, float sign,
                   T *y, int threads) {
    long B = rows.n0, L = rows.n1, H = rows.n2, half = C / 2;
#pragma omp parallel for num_threads(threads) if (B * L * H * C > 16384)
    for (long i = 0; i < B * L; i++) {
        const float *c = cos + i / L * angle_stride + i % L * half, *s = sin + i / L * angle_stride + i % L * half;
        for (long h = 0; h < H; h++) {
            const T *in = x + i / L * rows.s0 + i % L * rows.s1 + h * rows.s2;
            rotary_row(in, half, c, s, sign, y + (i * H + h) * C);
        }
    }
}

template <class T>
static void swiglu_forward(const T *gate, long gs, const T *up, long us, long N, long F, T *y, int threads) {
#pragma omp parallel for num_threads(threads) if (N * F > 8192)
    for (long i = 0; i < N; i++) activation_row<Silu>(gate + i * gs, up + i * us, F, y + i * F);
}

// With σ = sigmoid(gate): dgate = dy up σ (1 + gate (1 - σ)), dup = dy gate σ.
template <class T>
static void swiglu_backward(const T *dy, long ds, const T *gate, long gs, const T *up, long us, long N, long F,
                            T *dgate, T *dup, int threads) {
#pragma omp parallel for num_threads(threads) if (N * F > 8192)
    for (long i = 0; i < N; i++) {
        const T *d = dy + i * ds, *g = gate + i * gs, *u = up + i * us;
        T *dg = dgate + i * F, *du = dup + i * F;
        for (long c = 0; c < F; c += CHUNK) {
            long n = F - c < CHUNK ? F - c : CHUNK;
            float to_gate[CHUNK], to_up[CHUNK];
#pragma omp simd
            for (long j = 0; j < n; j++) {
                float a = to_float(g[c + j]), s = sigmoid(a), grad = to_float(d[c + j]) * s;
                to_gate[j] = grad * to_float(u[c + j]) * (1.0f + a * (1.0f - s));
                to_up[j] = grad * a;
            }
            put_row(dg + c, to_gate, n);
            put_row(du + c, to_up, n);
        }
    }
}

// x / (1 - p) where a number made of `seed` and the place says so, else 0. The same call on the gradient is the backward,
// so no mask is kept. The mixing is MurmurHash3's finalizer (Appleby 2011); a share p of 2^32 numbers is dropped.
template <class T>
static void dropout(const T *x, long N, long seed, float p, T *y, int threads) {
    const uint32_t low = (uint32_t)seed, high = (uint32_t)((uint64_t)seed >> 32);
    const uint32_t dropped = (uint32_t)((double)p * 4294967296.0);
    const float scale = 1.0f / (1.0f - p);
#pragma omp parallel for num_threads(threads) if (N > 32768)
    for (long c = 0; c < N; c += CHUNK) {
        long n = N - c < CHUNK ? N - c : CHUNK;
        float value[CHUNK];
#pragma omp simd
        for (long j = 0; j < n; j++) {
            uint32_t h = (uint32_t)(c + j) * 0x9e3779b1u + low;
            h = (h ^ (h >> 16)) * 0x85ebca6bu + high;
            h = (h ^ (h >> 13)) * 0xc2b2ae35u;
            h ^= h >> 16;
            value[j] = h < dropped ? 0.0f : to_float(x[c + j]) * scale;
        }
        put_row(y + c, value, n);
    }
}

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void dropout_##name(const T *x, long N, long seed, float p, T *y, int threads) {                            \
        dropout(x, N, seed, p, y, threads);                                                                            \
    }                                                                                                                  \
    EXPORT void rms_norm_forward_##name(const T *x, Rows *rows, long D, const float *w, float eps, T *y, float *rstd,  \
                                        int threads) {                                                                 \
        rms_norm_forward(x, *rows, D, w, eps, y, rstd, threads);                                                       \
    }                                                                                                                  \
    EXPORT void rms_norm_backward_##name(const T *dy, Rows *dy_rows, const T *x, Rows *x_rows, long D, const float *w, \
                                         const float *rstd, T *dx, float *dw, long parts, int threads) {               \
        rms_norm_backward(dy, *dy_rows, x, *x_rows, D, w, rstd, dx, dw, parts, threads);                               \
    }                                                                                                                  \
    EXPORT void rotary_##name(const T *x, Rows *rows, long C, const float *cos, const float *sin, long angle_stride,   \
                              float sign, T *y, int threads) {                                                         \
        rotary(x, *rows, C, cos, sin, angle_stride, sign, y, threads);                                                 \
    }                                                                                                                  \
    EXPORT void swiglu_forward_##name(const T *gate, long gs, const T *up, long us, long N, long F, T *y,              \
                                      int threads) {                                                                   \
        swiglu_forward(gate, gs, up, us, N, F, y, threads);                                                            \
    }                                                                                                                  \
    EXPORT void swiglu_backward_##name(const T *dy, long ds, const T *gate, long gs, const T *up, long us, long N,     \
                                       long F, T *dgate, T *dup, int threads) {                                        \
        swiglu_backward(dy, ds, gate, gs, up, us, N, F, dgate, dup, threads);                                          \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
