// A linear layer whose weights are 8 or 4 bits in groups of 32 inputs (definition: reference.py). Each row of x becomes
// signed bytes, group by group; a group's products are summed in 32-bit integers, four at a time (AVX-512 VNNI), and
// scaled into the row's float32 sums, group after group: so a row's bits do not depend on the rows beside it.
//
// Weights lie in panels of 32 outputs, a panel's groups one after the other in one stream:
//   8 bits: 32 scales (float16), then [input / 4][32 outputs][4] bytes, 128 + the weight
//   4 bits: 32 scales, 32 minima, then four lines of [32 outputs][4]: in the low halves inputs 4j …, in the high 16 + 4j …
//
// Half bytes are taken apart as they meet some rows: that runs beside the products and costs them next to nothing, less
// than to take a panel apart once for all rows.
#include "tape.h"

// Rows of x, in 8 bits, and what they are multiplied with then.
template <class T>
struct Quantize {
    const T *x;
    long stride, K;
    char *room;
};
template <class T>
struct Linear {
    long K;
    const uint8_t *w;
    const float *bias;  // as many numbers as the panels have outputs
    long F, bits;
    T *y;
    long add;  // to what is in y
    const char *room;
};

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
constexpr long PANEL = 32, GROUP = 32, QUADS = 8, HEAD = 2 * PANEL, STRIP = 6, ROWS = 96;
constexpr long BYTES = GROUP * PANEL;
static long up(long n, long to) { return (n + to - 1) / to * to; }

constexpr long block_of(int bits) { return bits == 8 ? HEAD + BYTES : 2 * HEAD + BYTES / 2; }

// Rows of x in 8 bits. `step` is what 1 stands for in a group, `low` what the weights' minimum is to be multiplied by (4
// bits), `start` what makes up for the 128 (8 bits).
struct Row {
    int8_t *bytes;
    float *step, *low;
    int32_t *start;
};

static inline __mmask16 inside(long left) { return (__mmask16)(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1); }
static inline __m512 load(const float *x, __mmask16 there) { return _mm512_maskz_loadu_ps(there, x); }
static inline __m512 load(const bf16 *x, __mmask16 there) {
    const __m256i bits = _mm256_maskz_loadu_epi16(there, x);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

template <class T>
static void quantize(const T *x, long K, const Row &to) {
    const __m512i sign_off = _mm512_set1_epi32(0x7fffffff);
    for (long k = 0, g = 0; k < K; k += GROUP, g++) {
        const __m512 a = load(x + k, inside(K - k)), b = load(x + k + 16, inside(K - k - 16));
        const __m512i magnitudes = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), sign_off),
                                                    _mm512_and_si512(_mm512_castps_si512(b), sign_off));
        const int32_t most = _mm512_reduce_max_epi32(magnitudes);  // compared as whole numbers, so that a NaN stays one
        float largest;
        memcpy(&largest, &most, 4);
        // 127 / largest, rounded as the reference does
        const __m512 inverse = _mm512_set1_ps(largest > 1e-30f ? 127.0f * (1.0f / largest) : 0.0f);
        const __m512i p = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
        _mm_store_si128((__m128i *)(to.bytes + k), _mm512_cvtsepi32_epi8(p));
        _mm_store_si128((__m128i *)(to.bytes + k + 16), _mm512_cvtsepi32_epi8(q));
        const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(p, q));
        to.step[g] = largest / 127.0f;
        to.low[g] = to.step[g] * (float)sum;
        to.start[g] = -128 * sum;
    }
}

// Not the intrinsic: GCC 12 would read the panel again for each row and copy each sum.
#define MULTIPLY_ADD(sum, w, x) asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x))

// M rows meet a panel: c (M × 32).
template <int M, int bits>
static void tile(long groups, const uint8_t *panel, Row row, long lda, float *c) {
    __m512 y[M][2];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) y[m][0] = y[m][1] = _mm512_setzero_ps();
    for (long g = 0; g < groups; g++, panel += block_of(bits), row.bytes += GROUP, row.step++, row.low++, row.start++) {
        __m512i sum[M][2];
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            sum[m][0] = sum[m][1] =
                bits == 8 ? _mm512_set1_epi32(row.start[m * lda / GROUP]) : _mm512_setzero_si512();
        const uint8_t *w = panel + (bits == 8 ? HEAD : 2 * HEAD);
        if (bits == 4) {
            const __m512i half = _mm512_set1_epi8(15);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const __m512i both[2] = {_mm512_loadu_si512(w + 128 * j), _mm512_loadu_si512(w + 128 * j + 64)};
                const __m512i low[2] = {_mm512_and_si512(both[0], half), _mm512_and_si512(both[1], half)};
                const __m512i high[2] = {_mm512_and_si512(_mm512_srli_epi16(both[0], 4), half),
                                         _mm512_and_si512(_mm512_srli_epi16(both[1], 4), half)};
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) {
                    int first, second;
                    memcpy(&first, row.bytes + m * lda + 4 * j, 4);
                    memcpy(&second, row.bytes + m * lda + 16 + 4 * j, 4);
                    const __m512i a = _mm512_set1_epi32(first), b = _mm512_set1_epi32(second);
                    MULTIPLY_ADD(sum[m][0], low[0], a);
                    MULTIPLY_ADD(sum[m][1], low[1], a);
                    MULTIPLY_ADD(sum[m][0], high[0], b);
                    MULTIPLY_ADD(sum[m][1], high[1], b);
                }
            }
        } else {
#pragma GCC unroll 8
            for (int j = 0; j < QUADS; j++) {
                const __m512i left = _mm512_loadu_si512(w + 128 * j), right = _mm512_loadu_si512(w + 128 * j + 64);
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) {
                    int four;
                    memcpy(&four, row.bytes + m * lda + 4 * j, 4);
                    const __m512i x = _mm512_set1_epi32(four);
                    MULTIPLY_ADD(sum[m][0], left, x);
                    MULTIPLY_ADD(sum[m][1], right, x);
                }
            }
        }
        const __m256i *head = (const __m256i *)panel;
        const __m512 s[2] = {_mm512_cvtph_ps(_mm256_loadu_si256(head)), _mm512_cvtph_ps(_mm256_loadu_si256(head + 1))};
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const __m512 d = _mm512_set1_ps(row.step[m * lda / GROUP]);
#pragma GCC unroll 2
            for (int n = 0; n < 2; n++)
                y[m][n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[m][n]), _mm512_mul_ps(s[n], d), y[m][n]);
        }
        if (bits == 4) {
            const __m512 z[2] = {_mm512_cvtph_ps(_mm256_loadu_si256(head + 2)),
                                 _mm512_cvtph_ps(_mm256_loadu_si256(head + 3))};
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                const __m512 d = _mm512_set1_ps(row.low[m * lda / GROUP]);
#pragma GCC unroll 2
                for (int n = 0; n < 2; n++) y[m][n] = _mm512_fmadd_ps(z[n], d, y[m][n]);
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int n = 0; n < 2; n++) _mm512_storeu_ps(c + m * PANEL + 16 * n, y[m][n]);
}

template <int bits>
static void strip(int M, long groups, const uint8_t *panel, const Row &row, long lda, float *c) {
    switch (M) {
    case 1: return tile<1, bits>(groups, panel, row, lda, c);
    case 2: return tile<2, bits>(groups, panel, row, lda, c);
    case 3: return tile<3, bits>(groups, panel, row, lda, c);
    case 4: return tile<4, bits>(groups, panel, row, lda, c);
    case 5: return tile<5, bits>(groups, panel, row, lda, c);
    default: return tile<STRIP, bits>(groups, panel, row, lda, c);
    }
}

static long room_for(long N, long K) { return N * (up(K, GROUP) + 12 * (up(K, GROUP) / GROUP)); }
static Row row_in(const char *room, long N, long K, long n) {
    const long groups = up(K, GROUP) / GROUP, lda = groups * GROUP;
    float *step = (float *)(room + N * lda);
    return {(int8_t *)room + n * lda, step + n * groups, step + (N + n) * groups, (int32_t *)step + (2 * N + n) * groups};
}

constexpr long QUANTIZED = 8;  // rows of an item

template <class T>
static long items(const Quantize<T> &, const Step &step) {
    return (step.N + QUANTIZED - 1) / QUANTIZED;
}
template <class T>
static void run(const Quantize<T> &q, const Step &step, long item) {
    const long end = (item + 1) * QUANTIZED < step.N ? (item + 1) * QUANTIZED : step.N;
    for (long n = item * QUANTIZED; n < end; n++) quantize(q.x + n * q.stride, q.K, row_in(q.room, step.N, q.K, n));
}

// Some outputs, for some rows.
static long splits(long F, const Step &step) {
    const long panels = up(F, PANEL) / PANEL, blocks = (step.N + ROWS - 1) / ROWS;
    const long wanted = step.threads == 1 ? 1 : (4 * step.threads + blocks - 1) / blocks;
    return wanted < panels ? wanted : panels;
}
template <class T>
static long items(const Linear<T> &l, const Step &step) {
    return (step.N + ROWS - 1) / ROWS * splits(l.F, step);
}
template <class T, int bits>
static void part(const Linear<T> &l, const Step &step, long item) {
    const long N = step.N, F = l.F, panels = up(F, PANEL) / PANEL, groups = up(l.K, GROUP) / GROUP, parts = splits(F, step);
    const long first = item / parts * ROWS, at = item % parts, n = N - first < ROWS ? N - first : ROWS;
    const long strips = (n + STRIP - 1) / STRIP;
    float sum[STRIP * PANEL];
    for (long p = panels * at / parts; p < panels * (at + 1) / parts; p++) {
        const uint8_t *panel = l.w + p * groups * block_of(bits);
        const float *b = l.bias + p * PANEL;
        const long wide = F - p * PANEL < PANEL ? F - p * PANEL : PANEL;
        for (long i = 0; i < strips; i++) {  // of equal height, as near as can be
            const long m = first + n * i / strips;
            const int height = (int)(first + n * (i + 1) / strips - m);
            strip<bits>(height, groups, panel, row_in(l.room, N, l.K, m), groups * GROUP, sum);
            for (int r = 0; r < height; r++) {
                float *value = sum + r * PANEL;
#pragma omp simd
                for (long j = 0; j < PANEL; j++) value[j] += b[j];
                T *to = l.y + (m + r) * F + p * PANEL;
                if (l.add)
                    add_row(to, value, wide);
                else
                    put_row(to, value, wide);
            }
        }
    }
}
template <class T>
static void run(const Linear<T> &l, const Step &step, long item) {
    l.bits == 8 ? part<T, 8>(l, step, item) : part<T, 4>(l, step, item);
}
#else
static long room_for(long, long) { return 0; }
template <class What>
static long items(const What &, const Step &) {
    return 0;
}
template <class What>
static void run(const What &, const Step &, long) {}
#endif

template <class T>
static void linear(const T *x, long stride, long N, long K, const uint8_t *w, const float *bias, long F, int bits, T *y,
                   long threads) {
    char *room = (char *)scratch<1>(room_for(N, K));
    const Quantize<T> first{x, stride, K, room};
    const Linear<T> then{K, w, bias, F, bits, y, 0, room};
    const Operation both[2] = {operation(first), operation(then)};
    Step step{};
    step.N = N, step.threads = K * F * (N + 7) > 500000 ? threads : 1;
    tape_run(both, 2, &step);
}

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void linear_quantized_##name(const T *x, long stride, long N, long K, const uint8_t *w, const float *bias,  \
                                        long F, int bits, T *y, int threads) {                                         \
        linear(x, stride, N, K, w, bias, F, bits, y, threads);                                                         \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
ON_TAPE(quantize, Quantize)
ON_TAPE(linear_quantized, Linear)
