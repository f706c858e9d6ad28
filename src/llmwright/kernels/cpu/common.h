// What the CPU kernels share: bfloat16, a vectorizable exp, threads, scratch memory.
//
// Plain C++ with no header of PyTorch, so it compiles in a second or two. Every loop over data is written for the
// compiler's vectorizer (`#pragma omp simd`); arithmetic is float32 whatever the data is.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

struct bf16 {
    uint16_t bits;
};

static inline float to_float(float x) { return x; }
static inline float to_float(bf16 x) {
    uint32_t u = (uint32_t)x.bits << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

// The upper half of a float, rounded to nearest even; a NaN stays one.
static inline uint32_t bf16_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return x != x ? 0x7fc0u : rounded;
}
static inline void put(float &to, float x) { to = x; }
static inline void put(bf16 &to, float x) { to.bits = (uint16_t)bf16_bits(x); }

// exp by 2^n · e^r with |r| <= ln2/2 and a Taylor polynomial of degree 6 (relative error below 2e-7). Zero below
// -87.3; held at e^88 above; NaN stays NaN. Needs strict arithmetic: the rounding trick dies under -ffast-math.
static inline float exp_(float x) {
    float y = x > 88.0f ? 88.0f : x;
    y = y < -87.3f ? -87.3f : y;
    float n = y * 1.442695041f + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &n, 4);
    n -= 12582912.0f;
    float r = y - n * 0.693145752f - n * 1.42860677e-6f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    bits = (int32_t)((uint32_t)bits + 127u) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return x < -87.3f ? 0.0f : p * scale;
}

// Memory of this thread, kept between calls: fresh pages cost more than the work done in them.
template <int slot = 0>
static void *scratch(size_t bytes) {
    static thread_local void *memory = nullptr;
    static thread_local size_t size = 0;
    if (bytes > size) {
        free(memory);
        size = (bytes + (bytes >> 2) + 4095) / 4096 * 4096;
        if (posix_memalign(&memory, 64, size)) abort();
    }
    return memory;
}

#define EXPORT extern "C" __attribute__((visibility("default")))
