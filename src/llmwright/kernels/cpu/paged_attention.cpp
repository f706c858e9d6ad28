// Attention of queries to texts whose keys and values lie in blocks (definition: reference.py).
//
// Up to four queries meet a key at a time: the heads that share it, and neighbours in a text that is being read. But
// each has its own sums, which grow from the first key that it sees to the last in the same steps whoever is beside it:
// a text's bits do not depend on the company, nor on the pieces it is read in. Keys and values are read where they lie.
#include "dots.h"
#include "tape.h"

struct Call {
    long N, H, K, C, size, blocks;  // blocks: of a text's table
    const int32_t *tables, *rows, *positions;
    long window;  // or 0
    float scale, softcap;  // or 0
    const float *bias;  // (H, P), or none
    long P;
};

constexpr long PIECE = 32, LANES = 16;  // queries of a text that one thread takes at a time
// Keys to ask for early, into the second cache: into the first, half as many come in the same time.
constexpr long AHEAD = 32;
static long up(long n, long to) { return (n + to - 1) / to * to; }

template <class T>
struct Query {  // of one head: it sees the positions from `first` to before `end`
    const T *q;
    T *out;
    const float *bias;
    long first, end;
};

// As exp_softmax of common.h.
static inline floats exp_lanes(floats x) {
    const float magic = 12582912.0f + 127.0f;
    floats n = x * 1.442695041f + magic;
    const words exponent = (words)n << 23;
    n = n - magic;
    const floats r = x - n * 0.693145752f - n * 1.42860677e-6f;
    floats p = r * (1.0f / 720) + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return x < -87.3f ? floats{} : p * (floats)exponent;
}

// Scores in `row`, from position lo on, become weights whose sum is returned; those that the query does not see are 0.
template <class T>
static float softmax(const Call &call, const Query<T> &query, float *row, long lo) {
    const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const long from = query.first / LANES * LANES;
    const floats none = floats{} - INFINITY;
    floats most = none, total = {};
    for (long s = from; s < query.end; s += LANES) {
        floats x;
        memcpy(&x, row + s - lo, 64);
        x = x * call.scale;
        if (call.softcap != 0) {
            const floats y = x / call.softcap, t = exp_lanes((y < 0 ? y : -y) * 2.0f), tanh = (1.0f - t) / (1.0f + t);
            x = (y < 0 ? -tanh : tanh) * call.softcap;
        }
        if (query.bias) x = x + (floats)load_words(query.bias + s, call.P - s);
        const ints place = lane + (int32_t)s;
        x = (place >= (int32_t)query.first) & (place < (int32_t)query.end) ? x : none;
        most = x > most ? x : most;
        memcpy(row + s - lo, &x, 64);
    }
    float max = -INFINITY, sum = 0;
    for (int i = 0; i < LANES; i++) max = most[i] > max ? most[i] : max;
    if (max == -INFINITY) max = 0;
    for (long s = from; s < query.end; s += LANES) {
        floats x;
        memcpy(&x, row + s - lo, 64);
        x = exp_lanes(x - max);
        total = total + x;
        memcpy(row + s - lo, &x, 64);
    }
    for (int i = 0; i < LANES; i++) sum += total[i];
    return sum;
}

// Weighted sums of values. Of float, a vector of values makes one vector of sums. Of bfloat16, two neighbouring positions
// go in one step, and a vector makes two: the even channels, then the odd.
template <class T>
struct Sums;

template <>
struct Sums<float> {
    static constexpr long keys = 1, each = 1;
    typedef float Weight;
    template <int R, int V>
    static inline void add(floats (*sum)[4], const float *const *weights, long lo, const float *values, const long *at,
                           long s, long, long left) {
        words v[V];
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) v[j] = load_words(values + at[s] + 16 * j, left - 16 * j);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const words w = (words)(floats{} + weights[r][s - lo]);
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) sum[r][j] = add_product<float>(sum[r][j], w, v[j]);
        }
    }
    static void put_sums(const floats *sum, int vectors, float inverse, float *out, long left) {
        for (int j = 0; j < vectors; j++) {
            const floats y = sum[j] * inverse;
            memcpy(out + 16 * j, &y, (left - 16 * j < 16 ? left - 16 * j : 16) * 4);
        }
    }
};

template <>
struct Sums<bf16> {
    static constexpr long keys = 2, each = 2;
    typedef bf16 Weight;
    template <int R, int V>
    static inline void add(floats (*sum)[4], const bf16 *const *weights, long lo, const bf16 *values, const long *at,
                           long s, long end, long left) {
        words even[V], odd[V];
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            const words a = load_words(values + at[s] + 32 * j, left - 32 * j);
            const words b = s + 1 < end ? load_words(values + at[s + 1] + 32 * j, left - 32 * j) : words{};
            even[j] = (a & 0xffffu) | (b << 16), odd[j] = (a >> 16) | (b & 0xffff0000u);
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            uint32_t two;
            memcpy(&two, weights[r] + s - lo, 4);
            const words w = words{} + two;
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) {
                sum[r][2 * j] = add_product<bf16>(sum[r][2 * j], w, even[j]);
                sum[r][2 * j + 1] = add_product<bf16>(sum[r][2 * j + 1], w, odd[j]);
            }
        }
    }
    static void put_sums(const floats *sum, int vectors, float inverse, bf16 *out, long left) {
        float row[64];
        for (int j = 0; j < vectors / 2; j++)
            for (int i = 0; i < 16; i++) {
                row[32 * j + 2 * i] = sum[2 * j][i] * inverse;
                row[32 * j + 2 * i + 1] = sum[2 * j + 1][i] * inverse;
            }
        put_row(out, row, left < 16 * vectors ? left : 16 * vectors);
    }
};

// The positions from `from` to before `to`: of these, `to` may cut a step short.
template <class T, int R, int V>
static void add_values(floats (*sums)[4], const typename Sums<T>::Weight *const *weights, long lo, const T *values,
                       const long *at, long from, long to, long left) {
    constexpr int n = V * Sums<T>::each;
    floats sum[R][4];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) sum[r][j] = sums[r][j];
    for (long s = from; s < to; s += Sums<T>::keys)
        Sums<T>::template add<R, V>(sum, weights, lo, values, at, s, to, left);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) sums[r][j] = sum[r][j];
}

template <class T, int R, int V>
static void mix(const Query<T> *queries, const typename Sums<T>::Weight *const *weights, const float *inverse, long lo,
                const T *values, const long *at, long c, long C) {
    const long step = Sums<T>::keys;
    long most = 0, least = queries[0].end;  // what all of them see
    for (int r = 0; r < R; r++) {
        most = queries[r].first > most ? queries[r].first : most;
        least = queries[r].end < least ? queries[r].end : least;
    }
    most = up(most, step), least = least / step * step;
    floats sum[R][4] = {};
    for (int r = 0; r < R; r++) {
        const long first = queries[r].first / step * step;
        const long to = least > most ? most : queries[r].end;
        add_values<T, 1, V>(sum + r, weights + r, lo, values + c, at, first, to, C - c);
    }
    if (least > most) {
        add_values<T, R, V>(sum, weights, lo, values + c, at, most, least, C - c);
        for (int r = 0; r < R; r++)
            add_values<T, 1, V>(sum + r, weights + r, lo, values + c, at, least, queries[r].end, C - c);
    }
    for (int r = 0; r < R; r++)
        Sums<T>::put_sums(sum[r], V * Sums<T>::each, inverse[r], queries[r].out + c, C - c);
}

// `at` says where in `keys` and `values` a position's row begins. `room`: for R rows of scores and of weights. `cold`:
// these are the first to meet the keys and values.
template <class T, int R>
static void attend(const Call &call, const Query<T> *queries, const T *keys, const T *values, const long *at,
                   float *room, long width, bool cold) {
    long lo = queries[0].first, hi = 0;
    const T *q[R];
    for (int r = 0; r < R; r++) {
        lo = queries[r].first < lo ? queries[r].first : lo;
        hi = queries[r].end > hi ? queries[r].end : hi;
        q[r] = queries[r].q;
    }
    lo = lo / LANES * LANES;
    for (long s = lo; s < hi; s += FOUR) {
        const T *k[FOUR];
        for (int i = 0; i < FOUR; i++) k[i] = keys + at[s + i];
        if (cold)
            for (int i = 0; i < FOUR; i++)
                for (long c = 0; c < call.C; c += WIDE<T>) {
                    __builtin_prefetch(keys + at[s + AHEAD + i] + c, 0, 2);
                    __builtin_prefetch(values + at[s + i] + c, 0, 2);
                }
        const floats scores = dots<T, R>(call.C, q, k);
        for (int r = 0; r < R; r++) memcpy(room + r * width + s - lo, (const float *)&scores + FOUR * r, 16);
    }
    typedef typename Sums<T>::Weight Weight;
    const Weight *weights[R];
    float inverse[R];
    for (int r = 0; r < R; r++) {
        float *row = room + r * width;
        const float sum = softmax(call, queries[r], row, lo);
        inverse[r] = sum == 0 ? 0 : 1 / sum;  // a query that sees nothing gets zeros
        weights[r] = (const Weight *)row;
        if (sizeof(Weight) == 2) {
            const long from = queries[r].first / LANES * LANES - lo;
            Weight *narrow = (Weight *)(room + (R + r) * width);
            put_row(narrow + from, row + from, up(queries[r].end - lo, LANES) - from);
            weights[r] = narrow;
        }
    }
    constexpr int full = 4 / Sums<T>::each;
    long c = 0;
    for (; c + full * WIDE<T> <= call.C; c += full * WIDE<T>)
        mix<T, R, full>(queries, weights, inverse, lo, values, at, c, call.C);
    for (; c < call.C; c += WIDE<T>) mix<T, R, 1>(queries, weights, inverse, lo, values, at, c, call.C);
}

// Queries n to before n + count, of one text and side by side there, and the heads of key-value head k.
template <class T>
static void piece(const Call &call, const T *q, long q_stride, const T *keys, const T *values, T *out, long n,
                  long count, long k) {
    const long G = call.H / call.K, end = call.positions[n + count - 1] + 1;
    long first = call.window ? call.positions[n] + 1 - call.window : 0;
    first = first < 0 ? 0 : first / LANES * LANES;
    const long beyond = up(end, LANES) + AHEAD, width = up(end, LANES) - first;
    long *at = (long *)scratch(beyond * 8);
    const int32_t *table = call.tables + call.rows[n] * call.blocks;
    for (long s = first; s < end;) {
        const long place = s % call.size, stop = s - place + call.size < end ? s - place + call.size : end;
        long row = ((long)table[s / call.size] * call.size + place) * call.K + k;
        for (; s < stop; s++, row += call.K) at[s] = row * call.C;
    }
    for (long s = end; s < beyond; s++) at[s] = at[end - 1];  // something to read that is not looked at
    float *room = (float *)scratch<1>(8 * width * 4);
    const long all = count * G;
    for (long i = 0; i < all; i += FOUR) {
        Query<T> four[FOUR];
        const int R = (int)(all - i < FOUR ? all - i : FOUR);
        for (int r = 0; r < R; r++) {
            const long m = n + (i + r) / G, h = k * G + (i + r) % G, seen = call.positions[m] + 1;
            four[r].q = q + m * q_stride + h * call.C;
            four[r].out = out + (m * call.H + h) * call.C;
            four[r].bias = call.bias ? call.bias + h * call.P : nullptr;
            four[r].first = call.window && seen > call.window ? seen - call.window : 0;
            four[r].end = seen;
        }
        switch (R) {
        case 1: attend<T, 1>(call, four, keys, values, at, room, width, i == 0); break;
        case 2: attend<T, 2>(call, four, keys, values, at, room, width, i == 0); break;
        case 3: attend<T, 3>(call, four, keys, values, at, room, width, i == 0); break;
        default: attend<T, 4>(call, four, keys, values, at, room, width, i == 0);
        }
    }
}

template <class T>
struct Attend {
    const T *q;
    long q_stride, H, K, C, layer, window;
    float scale, softcap;
    const float *bias;
    long P;
    T *out;
};

// An item is a piece of a text and one of the heads of keys.
static inline bool goes_on(const Step &step, long n) {
    return n && step.rows[n] == step.rows[n - 1] && step.positions[n] == step.positions[n - 1] + 1;
}
template <class T>
static long items(const Attend<T> &a, const Step &step) {
    long pieces = 0, begun = 0;
    for (long n = 0; n < step.N; n++)
        if (!goes_on(step, n) || n - begun == PIECE) begun = n, pieces++;
    return pieces * a.K;
}
template <class T>
static void run(const Attend<T> &a, const Step &step, long item) {
    const Call call{step.N, a.H, a.K, a.C, step.size, step.blocks, step.tables, step.rows, step.positions,
                    a.window, a.scale, a.softcap, a.bias, a.P};
    long wanted = item / a.K, begun = 0, end = 1;
    for (long n = 1; n <= step.N; n++) {
        end = n;
        if (n < step.N && goes_on(step, n) && n - begun != PIECE) continue;
        if (!wanted--) break;
        begun = n;
    }
    const long start = a.layer * step.layer * a.K * a.C;
    piece(call, a.q, a.q_stride, (const T *)step.keys + start, (const T *)step.values + start, a.out, begun, end - begun,
          item % a.K);
}

template <class T>
static void attention(const Attend<T> &what, Step &step, const T *keys, const T *values, long threads) {
    long work = 0;
    for (long n = 0; n < step.N; n++) work += step.positions[n];
    step.keys = (void *)keys, step.values = (void *)values;
    step.threads = work * what.H * what.C > 100000 ? threads : 1;
    const Operation one = operation(what);
    tape_run(&one, 1, &step);
}

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void paged_attention_##name(const T *q, long q_stride, const T *keys, const T *values,                      \
                                       const int32_t *tables, long blocks, const int32_t *rows,                        \
                                       const int32_t *positions, long N, long H, long K, long C, long size,            \
                                       float scale, long window, float softcap, const float *bias, long P, T *out,     \
                                       int threads) {                                                                  \
        const Attend<T> what{q, q_stride, H, K, C, 0, window, scale, softcap, bias, P, out};                           \
        Step step{};                                                                                                   \
        step.N = N, step.blocks = blocks, step.size = size;                                                            \
        step.tables = tables, step.rows = rows, step.positions = positions;                                            \
        attention(what, step, keys, values, threads);                                                                  \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
ON_TAPE(attend, Attend)
