// A linear layer in 8 bits (definition: reference.py). The weights are signed bytes since the load; each row of x
// becomes unsigned bytes as it comes; products are summed in 32-bit integers, four at a time (AVX-512 VNNI); what leaves
// is scaled, biased and, where asked, goes through GELU, in one pass.
//
// Weights lie in panels of 64 outputs, [panel][input / 4][64][4], so that a panel of a narrow layer stays in the first
// cache while all rows of a block meet it.
#include "common.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
constexpr int HERE = 1;
constexpr long PANEL = 64, STRIP = 6, ROWS = 96;  // outputs; rows of a tile; rows of a block: a multiple of STRIP
static long up(long n, long to) { return (n + to - 1) / to * to; }

// M rows of bytes meet a panel: c (M × 64) = a (M × 4·quads) · panel.
template <int M>
static void tile(long quads, const uint8_t *a, long lda, const int8_t *panel, float *c) {
    __m512i sum[M][4];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++) sum[m][n] = _mm512_setzero_si512();
    for (long k = 0; k < quads; k++, a += 4, panel += 4 * PANEL) {
        __m512i w[4];
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++) w[n] = _mm512_loadu_si512(panel + 64 * n);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            int four;
            memcpy(&four, a + m * lda, 4);
            const __m512i x = _mm512_set1_epi32(four);
            // not the intrinsic: GCC 12 would read the panel again for each row and copy each sum
#pragma GCC unroll 4
            for (int n = 0; n < 4; n++) asm("vpdpbusd %2, %1, %0" : "+v"(sum[m][n]) : "v"(x), "v"(w[n]));
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++) _mm512_storeu_ps(c + m * PANEL + 16 * n, _mm512_cvtepi32_ps(sum[m][n]));
}

static void strip(int M, long quads, const uint8_t *a, long lda, const int8_t *panel, float *c) {
    switch (M) {
    case 1: return tile<1>(quads, a, lda, panel, c);
    case 2: return tile<2>(quads, a, lda, panel, c);
    case 3: return tile<3>(quads, a, lda, panel, c);
    case 4: return tile<4>(quads, a, lda, panel, c);
    case 5: return tile<5>(quads, a, lda, panel, c);
    default: return tile<STRIP>(quads, a, lda, panel, c);
    }
}

static inline __mmask16 inside(long left) { return (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1); }
static inline __m512 load(const float *x, __mmask16 there) { return _mm512_maskz_loadu_ps(there, x); }
static inline __m512 load(const bf16 *x, __mmask16 there) {
    const __m256i bits = _mm256_maskz_loadu_epi16(there, x);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// A row of x as bytes: 0 and 255 stand for its least and greatest number, 0 among them; `zero` stands for 0. `to` has
// room for a multiple of 16.
template <class T>
static void quantize(const T *x, long K, uint8_t *to, float &step, float &zero) {
    __m512 low = _mm512_setzero_ps(), high = low;
    for (long k = 0; k < K; k += 16) {
        const __m512 v = load(x + k, inside(K - k));
        low = _mm512_min_ps(low, v), high = _mm512_max_ps(high, v);
    }
    const float least = _mm512_reduce_min_ps(low), range = _mm512_reduce_max_ps(high) - least;
    const float inverse = range > 0 ? 255.0f * (1.0f / range) : 0.0f;  // rounded as the reference does
    step = range / 255.0f;
    zero = nearbyintf(-least * inverse);
    const __m512i shift = _mm512_set1_epi32((int)zero), none = _mm512_setzero_si512();
    for (long k = 0; k < K; k += 16) {
        const __m512 v = _mm512_mul_ps(load(x + k, inside(K - k)), _mm512_set1_ps(inverse));
        const __m512i q = _mm512_max_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(v), shift), none);
        const __m128i bytes = _mm512_cvtusepi32_epi8(q);
        memcpy(to + k, &bytes, 16);
    }
}

// `sums` are those of each output's weights. The panels are filled up with zeros, K to a multiple of 4, F to one of 64;
// so are `scale`, `sums` and `bias`.
template <class T>
static void linear(const T *x, long stride, long N, long K, const int8_t *w, const float *scale, const float *sums,
                   const float *bias, long F, int with_gelu, T *y, int threads) {
    const long blocks = (N + ROWS - 1) / ROWS, panels = up(F, PANEL) / PANEL, quads = up(K, 4) / 4, lda = up(K, 16);
    // the outputs are split too, where rows are few
    long splits = blocks >= 2 * threads ? 1 : (2 * threads + blocks - 1) / blocks;
    splits = threads == 1 ? 1 : splits < panels ? splits : panels;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (N * K * F > 1000000)
    for (long item = 0; item < blocks * splits; item++) {
        const long first = item / splits * ROWS, part = item % splits, n = N - first < ROWS ? N - first : ROWS;
        uint8_t *bytes = (uint8_t *)scratch(ROWS * lda);
        float step[ROWS], zero[ROWS], sum[STRIP * PANEL], value[PANEL];
        for (long i = 0; i < n; i++) quantize(x + (first + i) * stride, K, bytes + i * lda, step[i], zero[i]);
        for (long p = panels * part / splits; p < panels * (part + 1) / splits; p++) {
            const float *s = scale + p * PANEL, *z = sums + p * PANEL, *b = bias + p * PANEL;
            const long wide = F - p * PANEL < PANEL ? F - p * PANEL : PANEL;
            for (long i = 0; i < n; i += STRIP) {
                const int height = (int)(n - i < STRIP ? n - i : STRIP);
                strip(height, quads, bytes + i * lda, lda, w + p * PANEL * quads * 4, sum);
                for (int m = 0; m < height; m++) {
                    const float *c = sum + m * PANEL, a = step[i + m], o = zero[i + m];
#pragma omp simd
                    for (long j = 0; j < PANEL; j++) value[j] = (c[j] - o * z[j]) * (a * s[j]) + b[j];
                    if (with_gelu)
#pragma omp simd
                        for (long j = 0; j < PANEL; j++) value[j] = gelu(value[j]);
                    put_row(y + (first + i + m) * F + p * PANEL, value, wide);
                }
            }
        }
    }
}
#else
constexpr int HERE = 0;
template <class T>
static void linear(const T *, long, long, long, const int8_t *, const float *, const float *, const float *, long, int,
                   T *, int) {}
#endif

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void vnni_##name(int32_t *here) { *here = HERE; }                                               \
    EXPORT void linear_int8_##name(const T *x, long stride, long N, long K, const int8_t *w, const float *scale,       \
                                   const float *sums, const float *bias, long F, int with_gelu, T *y, int threads) {   \
        linear(x, stride, N, K, w, scale, sums, bias, F, with_gelu, y, threads);                                       \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
