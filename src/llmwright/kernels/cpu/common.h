// What the CPU kernels share: bfloat16, a vectorizable exp and GELU, threads, scratch memory.
//
// Plain C++ with no header of PyTorch, so it compiles in a second or two. Every loop over data is written for the
// compiler's vectorizer (`#pragma omp simd`); arithmetic is float32 whatever the data is.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

struct bf16 {
    uint16_t bits;
};

static inline float to_float(float x) { return x; }
static inline float to_float(bf16 x) {
    uint32_t u = (uint32_t)x.bits << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

// The upper half of a float, rounded to nearest even; a NaN stays one.
static inline uint32_t bf16_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return x != x ? 0x7fc0u : rounded;
}
static inline void put(float &to, float x) { to = x; }
static inline void put(bf16 &to, float x) { to.bits = (uint16_t)bf16_bits(x); }

// exp by 2^n · e^r with |r| <= ln2/2 and a Taylor polynomial of degree 6 (relative error below 3e-7). NaN stays NaN.
// Adding `magic` rounds to a whole number and leaves n + 127, the exponent's bits, lowest in the float; this needs
// strict arithmetic and dies under -ffast-math. Right for -87.3 <= x <= 88 only: see the two functions below.
static inline float exp_inside(float x) {
    const float magic = 12582912.0f + 127.0f;
    float n = x * 1.442695041f + magic;
    int32_t bits;
    memcpy(&bits, &n, 4);
    n -= magic;
    float r = x - n * 0.693145752f - n * 1.42860677e-6f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    bits = (int32_t)((uint32_t)bits << 23);
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}
// For a softmax, where x is at most a rounding above 0: zero below -87.3, minus infinity included.
static inline float exp_softmax(float x) {
    float y = exp_inside(x);
    return x < -87.3f ? 0.0f : y;
}
static inline float sigmoid(float x) {
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    return 1.0f / (1.0f + exp_inside(-x));
}

// x · Φ(x), the exact GELU: Φ by Abramowitz & Stegun 7.1.26, whose absolute error is below 1e-7.
static inline float gelu(float x) {
    const float a = fabsf(x) * 0.707106781f, t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 0.5f * 1.061405429f;
    p = p * t + 0.5f * -1.453152027f;
    p = p * t + 0.5f * 1.421413741f;
    p = p * t + 0.5f * -0.284496736f;
    p = p * t + 0.5f * 0.254829592f;
    const float tail = p * t * exp_softmax(-a * a);  // Φ(-|x|)
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

// Rows that are far apart, such as one head's, escape the processor's own prefetching: ask for them early.
template <class T>
static inline void prefetch(const T *x, long stride, long R, long C) {
    for (long r = 0; r < R; r++)
        for (long c = 0; c < C; c += 64 / (long)sizeof(T)) __builtin_prefetch(x + r * stride + c);
}

// A row of float as data. Kernels compute CHUNK elements in float and convert them here at once, as the compiler does
// not know the instruction that rounds to bfloat16.
constexpr long CHUNK = 512;
static inline void put_row(float *to, const float *from, long n) { memcpy(to, from, n * 4); }
static inline void put_row(bf16 *to, const float *from, long n) {
    long i = 0;
#if defined(__AVX512BF16__)
    for (; i + 32 <= n; i += 32) {
        __m512bh x = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
        _mm512_storeu_si512(to + i, (__m512i)x);
    }
#endif
#pragma omp simd
    for (long j = i; j < n; j++) put(to[j], from[j]);
}

// Memory of this thread, kept between calls: fresh pages cost more than the work done in them.
template <int slot = 0>
static void *scratch(size_t bytes) {
    static thread_local void *memory = nullptr;
    static thread_local size_t size = 0;
    if (bytes > size) {
        free(memory);
        size = (bytes + (bytes >> 2) + 4095) / 4096 * 4096;
        if (posix_memalign(&memory, 64, size)) abort();
    }
    return memory;
}

#define EXPORT extern "C" __attribute__((visibility("default")))
