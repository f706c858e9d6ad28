// Attention without the T × S matrix in memory, forward and backward (definition: reference.py).
//
// A block of queries meets all its keys in scratch memory that fits a cache: scores, softmax, weighted sum. The forward
// keeps one number a query, log(sum(exp(scores))); the backward makes the weights again from it (Dao et al. 2022,
// "FlashAttention", algorithm 4). Keys after the last query of a block, or outside what the mask lets it see, are not
// touched, so causal attention costs half and packed documents cost what they cost apart.
#include "pack.h"

#if defined(__AVX512BF16__)
template <class T> struct Word { typedef pair type; };
template <> struct Word<float> { typedef float type; };
#else
template <class T> struct Word { typedef float type; };
#endif

struct View {  // (B, T, H, C): strides in elements, the last dimension contiguous
    long b, t, h;
};
struct Shape {
    long B, T, S, H, K, C;
    View q, k, v, out;  // in the backward, `out` says where dO lies
    const uint8_t *mask;  // (B, H, T, S) by these strides, or none
    long mask_b, mask_h, mask_t;
    float scale;
    int causal, threads;
};

constexpr long BLOCK = 32;  // queries; of 24, 32, 36, 48 and 64 the fastest on Zen 4 from 64 to 2048 tokens
static long up(long n, long to) { return (n + to - 1) / to * to; }

// One query's view of the keys.
struct Sight {
    const uint8_t *mask;
    long end;  // keys from here on are hidden
};
static Sight sight(const Shape &p, long b, long h, long t) {
    long end = p.causal ? p.S - p.T + t + 1 : p.S;
    return {p.mask ? p.mask + b * p.mask_b + h * p.mask_h + t * p.mask_t : nullptr, end < 0 ? 0 : end};
}

// The keys [lo, hi) that the queries [t0, t1) see at all; lo is a multiple of PAD.
static void span(const Shape &p, long b, long h, long t0, long t1, long &lo, long &hi) {
    hi = sight(p, b, h, t1 - 1).end;
    lo = 0;
    if (!p.mask) return;
    long first = hi, last = 0;
    for (long t = t0; t < t1; t++) {
        Sight see = sight(p, b, h, t);
        const void *hit = see.end ? memchr(see.mask, 1, first < see.end ? first : see.end) : nullptr;
        if (hit) first = (const uint8_t *)hit - see.mask;
        long s = see.end;
        while (s > last && !see.mask[s - 1]) s--;
        if (s > last) last = s;
        if (p.mask_t == 0 && !p.causal) break;
    }
    lo = first / PAD * PAD, hi = last;
    if (lo > hi) lo = hi / PAD * PAD;
}

static void hide(float *row, Sight see, long lo, long n) {
    long end = see.end - lo < 0 ? 0 : see.end - lo < n ? see.end - lo : n;
    if (see.mask)
#pragma omp simd
        for (long s = 0; s < end; s++) row[s] = see.mask[lo + s] ? row[s] : -INFINITY;
    for (long s = end; s < n; s++) row[s] = -INFINITY;
}

// Work is split over batch, key-value head and, when those are few, `splits` shares of the query blocks.
template <class T>
static void forward(const Shape &p, const T *q, const T *k, const T *v, T *out, float *lse) {
    typedef typename Word<T>::type W;
    constexpr long P = per_word<W>;
    const long G = p.H / p.K, Cp = up(p.C, PAD), Ck = up(p.C, P) / P, Cw = up(Ck, PAD), Sp = up(p.S, 2 * PAD);
    const long n_blocks = (p.T + BLOCK - 1) / BLOCK;
    long splits = p.B * p.K >= 4 * p.threads ? 1 : (4 * p.threads + p.B * p.K - 1) / (p.B * p.K);
    splits = splits < n_blocks ? splits : n_blocks;
    if (p.threads == 1) splits = 1;
    const float scale = p.scale;
    const long words = Cw * Sp + Sp / P * Cp + BLOCK * (Cw + 2 * Sp + Cp);
#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (long item = 0; item < p.B * p.K * splits; item++) {
        const long b = item / splits / p.K, kh = item / splits % p.K;
        W *kt = (W *)scratch(words * 4), *vp = kt + Cw * Sp, *qn = vp + Sp / P * Cp, *weights = qn + BLOCK * Cw;
        float *scores = (float *)(weights + BLOCK * Sp), *sums = scores + BLOCK * Sp;
        transposed(k + b * p.k.b + kh * p.k.h, p.k.t, p.S, p.C, kt, Sp, Cw);
        along_rows(v + b * p.v.b + kh * p.v.h, p.v.t, p.S, p.C, vp, Cp, Sp / P);
        for (long h = kh * G; h < (kh + 1) * G; h++)
            for (long block = item % splits; block < n_blocks; block += splits) {
                const long t0 = block * BLOCK, n_t = p.T - t0 < BLOCK ? p.T - t0 : BLOCK;
                long lo, hi;
                span(p, b, h, t0, t0 + n_t, lo, hi);
                const long n = up(hi - lo, PAD);
                prefetch(q + b * p.q.b + h * p.q.h + (t0 + n_t) * p.q.t, p.q.t, BLOCK, p.C);
                long step;
                const W *ql = left(q + b * p.q.b + h * p.q.h + t0 * p.q.t, p.q.t, n_t, p.C, qn, Cw, step);
                matmul(n_t, n, Ck, ql, step, 1, kt + lo, Sp, scores, Sp, false);
                float inverse[BLOCK];
                for (long t = 0; t < n_t; t++) {
                    float *row = scores + t * Sp, max = -INFINITY, sum = 0;
                    hide(row, sight(p, b, h, t0 + t), lo, n);
#pragma omp simd reduction(max : max)
                    for (long s = 0; s < n; s++) max = row[s] > max ? row[s] : max;
                    max = max == -INFINITY ? 0 : max * scale;
#pragma omp simd reduction(+ : sum)
                    for (long s = 0; s < n; s++) {
                        row[s] = exp_softmax(row[s] * scale - max);
                        sum += row[s];
                    }
                    columns_to_words(weights + t * Sp, row, n);
                    inverse[t] = sum == 0 ? 0 : 1 / sum;  // a query that sees nothing gets zeros
                    if (lse) lse[(b * p.H + h) * p.T + t0 + t] = sum == 0 ? INFINITY : max + logf(sum);
                }
                matmul(n_t, Cp, n / P, weights, Sp, 1, vp + lo / P * Cp, Cp, sums, Cp, false);
                for (long t = 0; t < n_t; t++) {
                    T *to = out + b * p.out.b + h * p.out.h + (t0 + t) * p.out.t;
#pragma omp simd
                    for (long c = 0; c < p.C; c++) sums[t * Cp + c] *= inverse[t];
                    put_row(to, sums + t * Cp, p.C);
                }
            }
    }
}

// dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - rowsum(P dP)) scale, dQ = dS K, dK = dSᵀ Q; gradients are contiguous.
// (FlashAttention takes the row sum from dO · O; here the row is at hand, and the difference cancels better.)
// One key-value head belongs to one thread, so the sums have one order and the bits do not depend on the threads.
template <class T>
static void backward(const Shape &p, const T *q, const T *k, const T *v, const T *dout, const float *lse, T *dq,
                     T *dk, T *dv) {
    typedef typename Word<T>::type W;
    constexpr long P = per_word<W>;
    const long G = p.H / p.K, Cp = up(p.C, PAD), Ck = up(p.C, P) / P, Cw = up(Ck, PAD), Sp = up(p.S, 2 * PAD);
    const float scale = p.scale;
    const long words = 2 * Cw * Sp + Sp / P * Cp + 2 * Sp * Cp + BLOCK * (2 * Cw + 2 * Cp + 5 * Sp + Cp);
#pragma omp parallel for num_threads(p.threads) schedule(dynamic)
    for (long item = 0; item < p.B * p.K; item++) {
        const long b = item / p.K, kh = item % p.K;
        W *kt = (W *)scratch(words * 4), *vt = kt + Cw * Sp, *kp = vt + Cw * Sp, *qn = kp + Sp / P * Cp;
        W *on = qn + BLOCK * Cw, *qp = on + BLOCK * Cw, *op = qp + BLOCK * Cp;
        W *pt = op + BLOCK * Cp, *dn = pt + BLOCK * Sp, *dt = dn + BLOCK * Sp;
        float *scores = (float *)(dt + BLOCK * Sp), *grads = scores + BLOCK * Sp, *sums = grads + BLOCK * Sp;
        float *dk_sum = sums + BLOCK * Cp, *dv_sum = dk_sum + Sp * Cp;
        const T *k0 = k + b * p.k.b + kh * p.k.h, *v0 = v + b * p.v.b + kh * p.v.h;
        transposed(k0, p.k.t, p.S, p.C, kt, Sp, Cw);
        transposed(v0, p.v.t, p.S, p.C, vt, Sp, Cw);
        along_rows(k0, p.k.t, p.S, p.C, kp, Cp, Sp / P);
        memset(dk_sum, 0, 2 * Sp * Cp * 4);
        for (long h = kh * G; h < (kh + 1) * G; h++)
            for (long t0 = 0; t0 < p.T; t0 += BLOCK) {
                const long n_t = p.T - t0 < BLOCK ? p.T - t0 : BLOCK, tw = (n_t + P - 1) / P;
                long lo, hi;
                span(p, b, h, t0, t0 + n_t, lo, hi);
                const long n = up(hi - lo, PAD);
                const T *q0 = q + b * p.q.b + h * p.q.h + t0 * p.q.t;
                const T *g0 = dout + b * p.out.b + h * p.out.h + t0 * p.out.t;
                prefetch(q0 + n_t * p.q.t, p.q.t, BLOCK, p.C);
                prefetch(g0 + n_t * p.out.t, p.out.t, BLOCK, p.C);
                long q_step, g_step;
                const W *ql = left(q0, p.q.t, n_t, p.C, qn, Cw, q_step);
                const W *gl = left(g0, p.out.t, n_t, p.C, on, Cw, g_step);
                along_rows(q0, p.q.t, n_t, p.C, qp, Cp, tw);
                along_rows(g0, p.out.t, n_t, p.C, op, Cp, tw);
                matmul(n_t, n, Ck, ql, q_step, 1, kt + lo, Sp, scores, Sp, false);
                matmul(n_t, n, Ck, gl, g_step, 1, vt + lo, Sp, grads, Sp, false);
                for (long t = 0; t < n_t; t++) {
                    float *row = scores + t * Sp, *grad = grads + t * Sp;
                    hide(row, sight(p, b, h, t0 + t), lo, n);
                    const float whole = lse[(b * p.H + h) * p.T + t0 + t];
                    float mean = 0;
#pragma omp simd reduction(+ : mean)
                    for (long s = 0; s < n; s++) {
                        row[s] = exp_softmax(row[s] * scale - whole);
                        mean += row[s] * grad[s];
                    }
#pragma omp simd
                    for (long s = 0; s < n; s++) grad[s] = row[s] * (grad[s] - mean) * scale;
                }
                if (n_t % 2) {
                    memset(scores + n_t * Sp, 0, n * 4);
                    memset(grads + n_t * Sp, 0, n * 4);
                }
                for (long t = 0; t < n_t; t += 2) {
                    rows_to_words(pt + t / P * Sp, scores + t * Sp, Sp, n);
                    rows_to_words(dt + t / P * Sp, grads + t * Sp, Sp, n);
                }
                for (long t = 0; t < n_t; t++) columns_to_words(dn + t * Sp, grads + t * Sp, n);
                matmul(n, Cp, tw, pt, 1, Sp, op, Cp, dv_sum + lo * Cp, Cp, true);
                matmul(n, Cp, tw, dt, 1, Sp, qp, Cp, dk_sum + lo * Cp, Cp, true);
                matmul(n_t, Cp, n / P, dn, Sp, 1, kp + lo / P * Cp, Cp, sums, Cp, false);
                for (long t = 0; t < n_t; t++) {
                    T *to = dq + ((b * p.T + t0 + t) * p.H + h) * p.C;
                    put_row(to, sums + t * Cp, p.C);
                }
            }
        for (long s = 0; s < p.S; s++) {
            T *to_k = dk + ((b * p.S + s) * p.K + kh) * p.C, *to_v = dv + ((b * p.S + s) * p.K + kh) * p.C;
            put_row(to_k, dk_sum + s * Cp, p.C);
            put_row(to_v, dv_sum + s * Cp, p.C);
        }
    }
}

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void attention_forward_##name(const Shape *p, const T *q, const T *k, const T *v, T *out, float *lse) {     \
        forward(*p, q, k, v, out, lse);                                                                                \
    }                                                                                                                  \
    EXPORT void attention_backward_##name(const Shape *p, const T *q, const T *k, const T *v, const T *dout,           \
                                          const float *lse, T *dq, T *dk, T *dv) {                                     \
        backward(*p, q, k, v, dout, lse, dq, dk, dv);                                                                  \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
