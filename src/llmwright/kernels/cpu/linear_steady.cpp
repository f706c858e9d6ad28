// A linear layer whose rows do not depend on each other (definition: reference.py): each number of the result is the
// product of a row of x with a row of weights, summed as dots.h does whatever else is computed.
#include "dots.h"
#include "tape.h"

constexpr long OUTPUTS = 32, ROWS = 128;  // of an item of work: weights that stay in the second cache meet some rows of x

template <class T, int R>
static void strip(const T *const *x, long K, const T *w, long F, long from, long to, const float *bias, T *y, bool add) {
    for (long f = from; f < to; f += FOUR) {
        const T *rows[FOUR];
        for (int k = 0; k < FOUR; k++) rows[k] = w + (f + k < F ? f + k : F - 1) * K;
        const floats sums = dots<T, R>(K, x, rows);
        const int n = (int)(F - f < FOUR ? F - f : FOUR);
        for (int r = 0; r < R; r++) {
            float four[FOUR] = {};
            for (int k = 0; k < n; k++) four[k] = sums[FOUR * r + k] + (bias ? bias[f + k] : 0.0f);
            if (add)
                add_row(y + r * F + f, four, n);
            else
                put_row(y + r * F + f, four, n);
        }
    }
}

template <class T>
struct Linear {
    const T *x;
    long stride, K;
    const T *w;
    const float *bias;  // or none
    long F;
    T *y;
    long add;  // to what is in y
};

// Some outputs, for some rows.
template <class T>
static long items(const Linear<T> &l, const Step &step) {
    return (l.F + OUTPUTS - 1) / OUTPUTS * ((step.N + ROWS - 1) / ROWS);
}
template <class T>
static void run(const Linear<T> &l, const Step &step, long item) {
    const long N = step.N, F = l.F, parts = (F + OUTPUTS - 1) / OUTPUTS;
    const long from = item % parts * OUTPUTS, to = from + OUTPUTS < F ? from + OUTPUTS : F;
    const long first = item / parts * ROWS, end = first + ROWS < N ? first + ROWS : N;
    for (long n = first; n < end; n += FOUR) {
        const T *rows[FOUR];
        for (int r = 0; r < FOUR; r++) rows[r] = l.x + (n + r < end ? n + r : n) * l.stride;
        T *y = l.y + n * F;
        switch (end - n) {
        case 1: strip<T, 1>(rows, l.K, l.w, F, from, to, l.bias, y, l.add); break;
        case 2: strip<T, 2>(rows, l.K, l.w, F, from, to, l.bias, y, l.add); break;
        case 3: strip<T, 3>(rows, l.K, l.w, F, from, to, l.bias, y, l.add); break;
        default: strip<T, 4>(rows, l.K, l.w, F, from, to, l.bias, y, l.add);
        }
    }
}

template <class T>
static void linear(const T *x, long stride, long N, long K, const T *w, const float *bias, long F, T *y, long threads) {
    const Linear<T> what{x, stride, K, w, bias, F, y, 0};
    const Operation one = operation(what);
    Step step{};
    step.N = N, step.threads = N * K * F > 200000 ? threads : 1;
    tape_run(&one, 1, &step);
}

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void linear_steady_##name(const T *x, long stride, long N, long K, const T *w, const float *bias, long F,   \
                                     T *y, int threads) {                                                              \
        linear(x, stride, N, K, w, bias, F, y, threads);                                                               \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
ON_TAPE(linear_steady, Linear)
