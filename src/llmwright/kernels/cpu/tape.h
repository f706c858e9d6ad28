// A tape is a list of operations that a team of threads does one after the other: the blocks of a decoder in one call.
//
// An operation is cut into items. A thread takes the next item of an operation that nobody has taken; when all items are
// done, whoever is there goes on with the next operation. So nobody waits for a thread that the machine has given to
// somebody else, unless it left in the middle of an item: on a busy machine the others do its work, where threads that
// meet at a barrier would stand still.
#pragma once
#include "common.h"

// What changes from step to step; all else was written down when the tape was made.
struct Step {
    long N;             // tokens
    long blocks, size;  // of a text's table; positions in a block
    const int32_t *tables, *rows, *positions;
    const long *slots;             // where each token's keys and values are kept
    void *keys, *values;           // (layers, slots, K, C)
    long layer;                    // slots in a layer
    const float *cos[2], *sin[2];  // (N, half): angles of both kinds of layers
    long threads;
};

struct Operation {
    long (*items)(const void *what, const Step &step);
    void (*run)(const void *what, const Step &step, long item);
    const void *what;
};

EXPORT void tape_run(const Operation *operations, long count, const Step *step);

// What `What<T>` is to an operation: functions of the same arguments for each type, and how Python finds them.
template <class What>
static Operation operation(const What &what) {
    return {[](const void *w, const Step &step) { return items(*(const What *)w, step); },
            [](const void *w, const Step &step, long item) { run(*(const What *)w, step, item); }, &what};
}
#define ON_TAPE(name, What)                                                                                            \
    EXPORT void tape_##name##_float32(const What<float> *what, Operation *to) { *to = operation(*what); }              \
    EXPORT void tape_##name##_bfloat16(const What<bf16> *what, Operation *to) { *to = operation(*what); }

// to += from, both rounded to what `to` holds, as when two tensors are added.
static inline void add_row(float *to, const float *from, long n) {
#pragma omp simd
    for (long i = 0; i < n; i++) to[i] += from[i];
}
static inline void add_row(bf16 *to, const float *from, long n) {
#pragma omp simd
    for (long i = 0; i < n; i++) {
        bf16 rounded;
        put(rounded, from[i]);
        put(to[i], to_float(to[i]) + to_float(rounded));
    }
}
