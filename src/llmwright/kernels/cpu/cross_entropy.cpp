// Cross-entropy of rows of logits, and its gradient written over them (definition: reference.py).
#include "common.h"

// loss[i] = log(sum(exp(row))) - row[target], float32; 0 where the target is `ignore`. With `grad` the row becomes
// softmax(row) - onehot(target), or zeros where ignored.
template <class T>
static void cross_entropy(T *logits, long N, long V, long stride, const int64_t *targets, int64_t ignore, float *loss,
                          int grad, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 16) if (N * V > 8192)
    for (long i = 0; i < N; i++) {
        T *row = logits + i * stride;
        if (targets[i] == ignore) {
            loss[i] = 0;
            if (grad) memset((void *)row, 0, V * sizeof(T));
            continue;
        }
        float *e = (float *)scratch(V * sizeof(float)), max = -INFINITY, sum = 0;
#pragma omp simd reduction(max : max)
        for (long j = 0; j < V; j++) {
            float x = to_float(row[j]);
            max = x > max ? x : max;
        }
#pragma omp simd reduction(+ : sum)
        for (long j = 0; j < V; j++) {
            e[j] = exp_softmax(to_float(row[j]) - max);
            sum += e[j];
        }
        loss[i] = max + logf(sum) - to_float(row[targets[i]]);
        if (!grad) continue;
        float inverse = 1.0f / sum;
#pragma omp simd
        for (long j = 0; j < V; j++) e[j] *= inverse;
        e[targets[i]] -= 1.0f;
        put_row(row, e, V);
    }
}

#define EACH_TYPE(T, name)                                                                                             \
    EXPORT void cross_entropy_##name(T *logits, long N, long V, long stride, const int64_t *targets, int64_t ignore,   \
                                     float *loss, int grad, int threads) {                                             \
        cross_entropy(logits, N, V, stride, targets, ignore, loss, grad, threads);                                     \
    }
EACH_TYPE(float, float32)
EACH_TYPE(bf16, bfloat16)
