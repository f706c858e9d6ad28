// The tape itself, and its operations that are of rows alone; the others stand with their kernels.
#include "tape.h"

#include <atomic>
#include <climits>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rows.h"

// ---- threads -------------------------------------------------------------------------------------------------------

static inline void pause_thread() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Of each operation of the tape that runs, one word: which run it is of, how many items it has, and the next to be
// taken. A thread that comes late finds another run's number there, or nothing to take, and so can do no harm.
constexpr uint64_t BITS = 20, MANY = 1ull << BITS, MOST = 4096;
static uint64_t word(uint64_t run, uint64_t items) { return run << (2 * BITS) | items << BITS; }
static uint64_t run_of(uint64_t word) { return word >> (2 * BITS); }
static long items_of(uint64_t word) { return (long)(word >> BITS & (MANY - 1)); }
static long next_of(uint64_t word) { return (long)(word & (MANY - 1)); }

struct Place {  // a line of the cache each
    alignas(64) std::atomic<uint64_t> taken{0};
    std::atomic<long> done{0};
};

struct Team {
    Place places[MOST];
    alignas(64) std::atomic<uint32_t> current{0};  // the number of the run; 24 bits of it are in the words
    std::atomic<int> asleep{0};
    std::atomic<const Operation *> operations{nullptr};
    std::atomic<long> count{0};
    std::atomic<const Step *> step{nullptr};
    std::atomic<long> wanted{0};  // threads of this run, with the caller
    pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;
    long threads = 1;
    pid_t owner = getpid();
};
static Team *team = new Team;

// A part of a run: all items that nobody else takes. `run`: only while it is the current one.
static void help(Team &t, uint32_t run, const Operation *operations, long count, const Step *step) {
    for (long k = 0; k < count; k++) {
        Place &place = t.places[k];
        uint64_t seen = place.taken.load(std::memory_order_acquire);
        for (;;) {
            if (run_of(seen) != (run & 0xffffff)) return;
            if (next_of(seen) >= items_of(seen)) break;
            if (place.taken.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) {
                operations[k].run(operations[k].what, *step, next_of(seen));
                place.done.fetch_add(1, std::memory_order_acq_rel);
                seen = place.taken.load(std::memory_order_acquire);
            }
        }
        for (long turns = 0; place.done.load(std::memory_order_acquire) < items_of(seen); turns++) {
            if (t.current.load(std::memory_order_acquire) != run) return;
            if (turns < 2000)
                pause_thread();
            else
                sched_yield();  // who has the last item may need this very core
        }
    }
}

static void futex(std::atomic<uint32_t> &at, int what, uint32_t value) {
    syscall(SYS_futex, (uint32_t *)&at, what | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

struct Member {
    Team *team;
    long number;
};

static void *member(void *given) {
    const Member me = *(Member *)given;
    delete (Member *)given;
    Team &t = *me.team;
    for (uint32_t last = 0;;) {
        uint32_t run = t.current.load(std::memory_order_acquire);
        for (long turns = 0; run == last && turns < 3000; turns++) {  // the next step comes soon
            pause_thread();
            run = t.current.load(std::memory_order_acquire);
        }
        if (run == last) {
            t.asleep.fetch_add(1);
            futex(t.current, FUTEX_WAIT, last);
            t.asleep.fetch_sub(1);
            continue;
        }
        last = run;
        const Operation *operations = t.operations.load();
        const long count = t.count.load();
        const Step *step = t.step.load();
        if (me.number < t.wanted.load()) help(t, run, operations, count, step);
    }
    return nullptr;
}

static void grow(Team &t, long threads) {
    for (; t.threads < threads; t.threads++) {
        pthread_t thread;
        Member *made = new Member{&t, t.threads};
        if (pthread_create(&thread, nullptr, member, made)) {
            delete made;
            return;
        }
        pthread_detach(thread);
    }
}

static void alone(const Operation *operations, long count, const Step *step) {
    for (long k = 0; k < count; k++) {
        const long n = operations[k].items(operations[k].what, *step);
        for (long i = 0; i < n; i++) operations[k].run(operations[k].what, *step, i);
    }
}

EXPORT void tape_run(const Operation *operations, long count, const Step *step) {
    if (team->owner != getpid()) team = new Team;  // a fork has no threads but the one that forked
    Team &t = *team;
    if (step->threads <= 1 || count > (long)MOST || pthread_mutex_trylock(&t.busy)) return alone(operations, count, step);
    bool many = false;
    for (long k = 0; k < count; k++) many |= operations[k].items(operations[k].what, *step) >= (long)MANY;
    if (many) {
        pthread_mutex_unlock(&t.busy);
        return alone(operations, count, step);
    }
    grow(t, step->threads);
    const uint32_t run = t.current.load() + 1;
    t.operations.store(operations), t.count.store(count), t.step.store(step), t.wanted.store(step->threads);
    for (long k = 0; k < count; k++) {
        t.places[k].done.store(0, std::memory_order_relaxed);
        t.places[k].taken.store(word(run & 0xffffff, operations[k].items(operations[k].what, *step)),
                                std::memory_order_release);
    }
    t.current.store(run, std::memory_order_seq_cst);
    if (t.asleep.load()) futex(t.current, FUTEX_WAKE, INT_MAX);
    help(t, run, operations, count, step);
    pthread_mutex_unlock(&t.busy);
}

// ---- operations ----------------------------------------------------------------------------------------------------

static long chunks(long n, long each) { return (n + each - 1) / each; }

// y = norm(x) or, with `add`, y += norm(x): `heads` of `width` numbers side by side in each row, each by itself.
template <class T>
struct Norm {
    const T *x;
    long stride, heads, width;
    const float *w, *b;
    float eps;
    long layer;  // layer norm; else RMS norm
    T *y;
    long y_stride, add;
};
constexpr long NORMS = 8;  // rows of an item

template <class T>
static long items(const Norm<T> &, const Step &step) {
    return chunks(step.N, NORMS);
}
template <class T>
static void run(const Norm<T> &n, const Step &step, long item) {
    const long end = (item + 1) * NORMS < step.N ? (item + 1) * NORMS : step.N;
    float *room = (float *)scratch(2 * n.width * 4), *made = room + n.width, mean, rstd;
    for (long row = item * NORMS; row < end; row++)
        for (long head = 0; head < n.heads; head++) {
            const T *x = n.x + row * n.stride + head * n.width;
            T *y = n.y + row * n.y_stride + head * n.width, *to = n.add ? (T *)made : y;
            if (n.layer)
                layer_norm_row(x, (const T *)nullptr, n.width, n.w, n.b, n.eps, to, (T *)nullptr, room, &mean, &rstd);
            else
                rms_norm_row(x, n.width, n.w, n.eps, to);
            if (n.add) {
                for (long d = 0; d < n.width; d++) room[d] = to_float(to[d]);
                add_row(y, room, n.width);
            }
        }
}

// Queries and keys are turned to their places, and keys and values kept. `x`: in each row H queries, K keys and K values
// of C numbers; of each, the first 2·half turn. `kind`: which of the step's angles.
template <class T>
struct Keep {
    T *x;
    long stride, H, K, C, half, kind, layer;
};
constexpr long KEPT = 8;

template <class T>
static long items(const Keep<T> &, const Step &step) {
    return chunks(step.N, KEPT);
}
template <class T>
static void run(const Keep<T> &p, const Step &step, long item) {
    const long heads = p.H + p.K, start = p.layer * step.layer * p.K * p.C;
    const long end = (item + 1) * KEPT < step.N ? (item + 1) * KEPT : step.N;
    for (long n = item * KEPT; n < end; n++) {
        T *x = p.x + n * p.stride;
        if (p.half) {
            const float *cos = step.cos[p.kind] + n * p.half, *sin = step.sin[p.kind] + n * p.half;
            for (long h = 0; h < heads; h++) rotary_row(x + h * p.C, p.half, cos, sin, 1.0f, x + h * p.C);
        }
        const long at = start + step.slots[n] * p.K * p.C, bytes = p.K * p.C * (long)sizeof(T);
        memcpy((T *)step.keys + at, x + p.H * p.C, bytes);
        memcpy((T *)step.values + at, x + heads * p.C, bytes);
    }
}

// y = activation(gate) · up, or of gate alone. `kind`: 0 SiLU, 1 GELU, 2 GELU by tanh, 3 ReLU.
template <class T>
struct Activate {
    const T *gate, *up;
    long stride, F, kind;
    T *y;
};
constexpr long PART = 1024;  // so that one row is work for several

template <class T>
static long items(const Activate<T> &a, const Step &step) {
    return step.N * chunks(a.F, PART);
}
template <class T>
static void run(const Activate<T> &a, const Step &, long item) {
    const long parts = chunks(a.F, PART), n = item / parts, c = item % parts * PART;
    const long width = a.F - c < PART ? a.F - c : PART;
    const T *gate = a.gate + n * a.stride + c, *up = a.up ? a.up + n * a.stride + c : nullptr;
    T *y = a.y + n * a.F + c;
    switch (a.kind) {
    case 0: activation_row<Silu>(gate, up, width, y); break;
    case 1: activation_row<Gelu>(gate, up, width, y); break;
    case 2: activation_row<GeluTanh>(gate, up, width, y); break;
    default: activation_row<Relu>(gate, up, width, y);
    }
}

ON_TAPE(norm, Norm)
ON_TAPE(keep, Keep)
ON_TAPE(activate, Activate)
