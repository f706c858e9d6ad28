// What happens to one row, for the kernels that take many rows at once and for the tape.
#pragma once
#include "common.h"

// x / sqrt(mean(x²) + eps) · w; returns 1 / that root.
template <class T>
static inline float rms_norm_row(const T *x, long D, const float *w, float eps, T *y) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long d = 0; d < D; d++) sum += to_float(x[d]) * to_float(x[d]);
    const float r = 1.0f / sqrtf(sum / D + eps);
    for (long c = 0; c < D; c += CHUNK) {
        const long n = D - c < CHUNK ? D - c : CHUNK;
        float value[CHUNK];
#pragma omp simd
        for (long d = 0; d < n; d++) value[d] = to_float(x[c + d]) * r * w[c + d];
        put_row(y + c, value, n);
    }
    return r;
}

// (s - mean(s)) · rstd · w + b of s = x + added (or x), `row` has room for s. `b` may be none.
template <class T>
static inline void layer_norm_row(const T *x, const T *added, long D, const float *w, const float *b, float eps, T *y,
                                  T *sum, float *row, float *mean, float *rstd) {
    float total = 0, square = 0;
    if (added)
#pragma omp simd reduction(+ : total)
        for (long d = 0; d < D; d++) total += row[d] = to_float(x[d]) + to_float(added[d]);
    else
#pragma omp simd reduction(+ : total)
        for (long d = 0; d < D; d++) total += row[d] = to_float(x[d]);
    if (sum) put_row(sum, row, D);
    const float m = total / D;
#pragma omp simd reduction(+ : square)
    for (long d = 0; d < D; d++) square += (row[d] - m) * (row[d] - m);
    const float r = 1.0f / sqrtf(square / D + eps);
    *mean = m, *rstd = r;
    if (b)
#pragma omp simd
        for (long d = 0; d < D; d++) row[d] = (row[d] - m) * r * w[d] + b[d];
    else
#pragma omp simd
        for (long d = 0; d < D; d++) row[d] = (row[d] - m) * r * w[d];
    put_row(y, row, D);
}

// The pairs (x[j], x[j + half]) turned by the angles whose cosines and sines these are; y may be x.
template <class T>
static inline void rotary_row(const T *x, long half, const float *cos, const float *sin, float sign, T *y) {
#pragma omp simd
    for (long j = 0; j < half; j++) {
        const float a = to_float(x[j]), b = to_float(x[j + half]), s = sign * sin[j];
        put(y[j], a * cos[j] - b * s);
        put(y[j + half], b * cos[j] + a * s);
    }
}

struct Silu {
    static inline float of(float x) { return x * sigmoid(x); }
};
struct Gelu {
    static inline float of(float x) { return gelu(x); }
};
// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))); and 1 + tanh(u) is 2 sigmoid(2u).
struct GeluTanh {
    static inline float of(float x) { return x * sigmoid(1.595769122f * (x + 0.044715f * x * x * x)); }
};
struct Relu {
    static inline float of(float x) { return x < 0.0f ? 0.0f : x; }  // a NaN stays one
};

// activation(gate) · up, or activation(gate) where there is no `up`.
template <class Activation, class T>
static inline void activation_row(const T *gate, const T *up, long F, T *y) {
    for (long c = 0; c < F; c += CHUNK) {
        const long n = F - c < CHUNK ? F - c : CHUNK;
        float value[CHUNK];
        if (up)
#pragma omp simd
            for (long j = 0; j < n; j++) value[j] = Activation::of(to_float(gate[c + j])) * to_float(up[c + j]);
        else
#pragma omp simd
            for (long j = 0; j < n; j++) value[j] = Activation::of(to_float(gate[c + j]));
        put_row(y + c, value, n);
    }
}
