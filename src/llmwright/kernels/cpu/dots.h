// Products of rows with rows as they lie in memory, for what must give the same bits in any company.
//
// A vector runs along a row. Each pair of rows has sixteen sums of its own, one a lane, which grow from the row's
// beginning to its end; only then are the lanes added, in one order. So a product depends on its two rows alone.
#pragma once
#include "common.h"

typedef float floats __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));  // 16 float or 32 bfloat16, as they lie

template <class T>
constexpr long WIDE = 64 / sizeof(T);  // numbers in a vector

// `left` numbers are there to be read; zeros stand for the others.
template <class T>
static inline words load_words(const T *x, long left) {
    words w;
    if (left >= WIDE<T>) {
        memcpy(&w, x, 64);
        return w;
    }
    w = words{};
    memcpy(&w, x, left * sizeof(T));
    return w;
}

// sum + a·b, lane by lane; a lane of bfloat16 holds two numbers.
template <class T>
static inline floats add_product(floats sum, words a, words b);
template <>
inline floats add_product<float>(floats sum, words a, words b) {
#if defined(__AVX512F__) && defined(__AVX512BF16__)  // where immintrin.h is at hand
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#else
    return sum + (floats)a * (floats)b;
#endif
}
template <>
inline floats add_product<bf16>(floats sum, words a, words b) {
#if defined(__AVX512BF16__)
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    sum = sum + (floats)(a << 16) * (floats)(b << 16);
    return sum + (floats)(a & 0xffff0000u) * (floats)(b & 0xffff0000u);
#endif
}

// Lane i of the result is the sum of the lanes of x[i].
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLE
#endif
#endif
#ifdef HAS_SHUFFLE
static inline floats add_lanes(const floats *x) {
    floats a[8], b[4], c[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const floats p = x[2 * i], q = x[2 * i + 1];
        a[i] = __builtin_shufflevector(p, q, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
               __builtin_shufflevector(p, q, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const floats p = a[2 * i], q = a[2 * i + 1];
        b[i] = __builtin_shufflevector(p, q, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               __builtin_shufflevector(p, q, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const floats p = b[2 * i], q = b[2 * i + 1];
        c[i] = __builtin_shufflevector(p, q, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               __builtin_shufflevector(p, q, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    }
    return __builtin_shufflevector(c[0], c[1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           __builtin_shufflevector(c[0], c[1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
#else
static inline floats add_lanes(const floats *x) {
    floats y;
    for (int i = 0; i < 16; i++) {
        y[i] = 0;
        for (int j = 0; j < 16; j++) y[i] += x[i][j];
    }
    return y;
}
#endif

constexpr int FOUR = 4;

template <class T, int R>
static inline void products(floats *sum, const T *const *a, const T *const *b, long at, long left) {
    words y[FOUR];
#pragma GCC unroll 4
    for (int k = 0; k < FOUR; k++) y[k] = load_words(b[k] + at, left);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const words x = load_words(a[r] + at, left);
#pragma GCC unroll 4
        for (int k = 0; k < FOUR; k++) sum[FOUR * r + k] = add_product<T>(sum[FOUR * r + k], x, y[k]);
    }
}

// R rows `a` (at most four) with four rows `b`, all of n numbers: lane 4r + k is a[r]·b[k].
template <class T, int R>
static inline floats dots(long n, const T *const *a, const T *const *b) {
    floats sum[FOUR * FOUR] = {};
    long i = 0;
    for (; i + WIDE<T> <= n; i += WIDE<T>) products<T, R>(sum, a, b, i, WIDE<T>);
    if (i < n) products<T, R>(sum, a, b, i, n - i);
    return add_lanes(sum);
}
