// Small matrix products out of packed scratch memory, for attention.
//
// An operand is a matrix of 32-bit words along the summed dimension: one float, or a pair of neighbouring bfloat16
// where the processor multiplies such pairs (AVX-512 BF16). Elsewhere bfloat16 is widened to float when packed.
#pragma once
#include "common.h"
#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 6, TILE_VECTORS = 4;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE_ROWS = 4, TILE_VECTORS = 2;
#else
constexpr int LANES = 4, TILE_ROWS = 4, TILE_VECTORS = 4;
#endif
constexpr long PAD = 16;  // packed rows are a multiple of this many words, and of the lanes

typedef float vector __attribute__((vector_size(LANES * 4)));

struct pair {
    uint32_t bits;
};

static inline vector multiply_add(vector sum, float a, vector b) { return sum + a * b; }
static inline vector load(const float *p) {
    vector v;
    memcpy(&v, p, sizeof v);
    return v;
}
#if defined(__AVX512BF16__)
static inline vector multiply_add(vector sum, pair a, __m512i b) {
    return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a.bits), (__m512bh)b);
}
static inline __m512i load(const pair *p) { return _mm512_loadu_si512(p); }
#endif

// C[M rows][N vectors] (+)= A·B, A[m][k] at a[m·am + k·ak], B[k] a row of words.
template <class W, int M, int N>
static void tile(long K, const W *a, long am, long ak, const W *b, long ldb, float *c, long ldc, bool add) {
    vector sum[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) sum[m][n] = add ? load(c + m * ldc + n * LANES) : vector{};
    for (long k = 0; k < K; k++, a += ak, b += ldb) {
        decltype(load(b)) row[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) row[n] = load(b + n * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) sum[m][n] = multiply_add(sum[m][n], a[m * am], row[n]);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) memcpy(c + m * ldc + n * LANES, &sum[m][n], sizeof(vector));
}

template <class W, int N>
static void rows(int M, long K, const W *a, long am, long ak, const W *b, long ldb, float *c, long ldc, bool add) {
    switch (M) {
    case 1: return tile<W, 1, N>(K, a, am, ak, b, ldb, c, ldc, add);
    case 2: return tile<W, 2, N>(K, a, am, ak, b, ldb, c, ldc, add);
    case 3: return tile<W, 3, N>(K, a, am, ak, b, ldb, c, ldc, add);
    case 4: return tile<W, 4, N>(K, a, am, ak, b, ldb, c, ldc, add);
    case 5: return tile<W, 5, N>(K, a, am, ak, b, ldb, c, ldc, add);
    default: return tile<W, TILE_ROWS, N>(K, a, am, ak, b, ldb, c, ldc, add);
    }
}

// C (M × N) (+)= A (M × K words) · B (K words × N); N is a multiple of LANES.
template <class W>
static void matmul(long M, long N, long K, const W *a, long am, long ak, const W *b, long ldb, float *c, long ldc,
                   bool add) {
    long strips = (M + TILE_ROWS - 1) / TILE_ROWS;
    for (long n = 0; n < N; n += TILE_VECTORS * LANES) {
        int vectors = (int)((N - n) / LANES);
        for (long i = 0; i < strips; i++) {  // strips of equal height: a last thin one would starve the units
            long m = M * i / strips;
            int height = (int)(M * (i + 1) / strips - m);
            auto run = vectors >= TILE_VECTORS ? rows<W, TILE_VECTORS> : vectors == 3 ? rows<W, 3>
                       : vectors == 2 ? rows<W, 2> : rows<W, 1>;
            run(height, K, a + m * am, am, ak, b + n, ldb, c + m * ldc + n, ldc, add);
        }
    }
}
