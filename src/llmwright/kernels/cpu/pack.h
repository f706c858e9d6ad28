// Bringing matrices of float or bfloat16 into the words of matmul.h, and results back.
//
// along_columns: word (r, w) holds columns w·P … of row r, as the left operand of a product over columns.
// along_rows: word (w, c) holds rows w·P … of column c, as an operand of a product over rows.
// transposed: along_columns, transposed, as the right operand of a product over columns.
// P is 2 for a pair and 1 for a float. What lies beyond the matrix is zero.
#pragma once
#include "matmul.h"

constexpr long AHEAD = 32;  // rows to ask for before they are packed

template <class W>
constexpr long per_word = 1;
template <>
constexpr long per_word<pair> = 2;

template <class T>
static void along_columns(const T *x, long stride, long R, long C, float *to, long ld) {
    for (long r = 0; r < R; r++) {
        for (long c = 0; c < C; c++) to[r * ld + c] = to_float(x[r * stride + c]);
        for (long c = C; c < ld; c++) to[r * ld + c] = 0;
    }
}
static void along_columns(const bf16 *x, long stride, long R, long C, pair *to, long ld) {
    for (long r = 0; r < R; r++) {
        memcpy((void *)(to + r * ld), x + r * stride, C * 2);
        memset((char *)(to + r * ld) + C * 2, 0, ld * 4 - C * 2);
    }
}

// `words` rows of words are filled, with zeros beyond R.
template <class T>
static void along_rows(const T *x, long stride, long R, long C, float *to, long ld, long words) {
    along_columns(x, stride, R, C, to, ld);
    memset(to + R * ld, 0, (words - R) * ld * 4);
}
static void along_rows(const bf16 *x, long stride, long R, long C, pair *to, long ld, long words) {
    for (long w = 0; w < words; w++) {
        const bf16 *first = x + 2 * w * stride, *second = first + stride;
        pair *row = to + w * ld;
        prefetch(first + AHEAD * stride, stride, 2, C);
        if (2 * w + 1 < R)
            for (long c = 0; c < C; c++) row[c].bits = first[c].bits | (uint32_t)second[c].bits << 16;
        else if (2 * w < R)
            for (long c = 0; c < C; c++) row[c].bits = first[c].bits;
        else
            memset((void *)row, 0, C * 4);
        memset((void *)(row + C), 0, (ld - C) * 4);
    }
}

// The left operand of a product over columns: the matrix itself where its rows already are words, else a copy in `to`.
template <class W, class T>
static const W *left(const T *x, long stride, long R, long C, W *to, long ld, long &step) {
    bool words = per_word<W> * sizeof(T) == 4 && C % per_word<W> == 0 && stride % per_word<W> == 0 && (size_t)x % 4 == 0;
    step = words ? stride / per_word<W> : ld;
    if (words) return (const W *)x;
    along_columns(x, stride, R, C, to, ld);
    return to;
}

#if defined(__AVX512F__) && defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
typedef uint32_t words16 __attribute__((vector_size(64)));

// 16 × 16 words: four rounds, each exchanging halves of blocks twice as small as the last.
static inline void transpose16(const uint32_t *from, long ldf, uint32_t *to, long ldt) {
    words16 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) memcpy(&a[i], from + i * ldf, 64);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        b[i] = __builtin_shufflevector(a[i], a[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
        b[i + 8] = __builtin_shufflevector(a[i], a[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int j = i / 4 * 8 + i % 4;
        a[j] = __builtin_shufflevector(b[j], b[j + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        a[j + 4] = __builtin_shufflevector(b[j], b[j + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int j = i / 2 * 4 + i % 2;
        b[j] = __builtin_shufflevector(a[j], a[j + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        b[j + 2] = __builtin_shufflevector(a[j], a[j + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int j = i * 2;
        a[j] = __builtin_shufflevector(b[j], b[j + 1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
        a[j + 1] = __builtin_shufflevector(b[j], b[j + 1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) memcpy(to + i * ldt, &a[i], 64);
}
#else
static inline void transpose16(const uint32_t *from, long ldf, uint32_t *to, long ldt) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) to[j * ldt + i] = from[i * ldf + j];
}
#endif

// `to` has `words` rows (a multiple of 16) of `ld` columns (a multiple of 16, at least R).
template <class W, class T>
static void transposed(const T *x, long stride, long R, long C, W *to, long ld, long words) {
    W *strip = (W *)scratch<1>(16 * words * 4);
    for (long r = 0; r < ld; r += 16) {
        long n = R - r < 16 ? (R > r ? R - r : 0) : 16, step = 0;
        const W *from = strip;
        prefetch(x + (r + AHEAD) * stride, stride, 16, C);
        if (n == 16 && C == words * per_word<W>) {
            from = left(x + r * stride, stride, n, C, strip, words, step);
        } else {
            along_columns(x + r * stride, stride, n, C, strip, step = words);
            memset((void *)(strip + n * words), 0, (16 - n) * words * 4);
        }
        for (long w = 0; w < words; w += 16)
            transpose16((const uint32_t *)from + w, step, (uint32_t *)to + w * ld + r, ld);
    }
}

// Rows of float as words along the columns, and two such rows, `from` and the one `stride` on, as words along the rows.
// n is a multiple of PAD.
static inline void columns_to_words(float *to, const float *from, long n) { memcpy(to, from, n * 4); }
static inline void rows_to_words(float *to, const float *from, long stride, long n) {
    memcpy(to, from, n * 4);
    memcpy(to + stride, from + stride, n * 4);
}
#if defined(__AVX512BF16__)
static inline void columns_to_words(pair *to, const float *from, long n) { put_row((bf16 *)to, from, n); }
static inline void rows_to_words(pair *to, const float *from, long stride, long n) {
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (long i = 0; i < n; i += 16) {
        __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + stride + i), _mm512_loadu_ps(from + i));
        _mm512_storeu_si512(to + i, _mm512_permutexvar_epi16(zip, (__m512i)both));
    }
}
#endif
