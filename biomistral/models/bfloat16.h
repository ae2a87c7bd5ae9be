/* What C files share: one loop for several processors, and bfloat16 to float and back. */
#include <stdint.h>

#if !defined(__x86_64__) || !defined(__linux__) || !defined(__GLIBC__) || defined(__clang__)
#define FOR_EACH_CPU
#elif __GNUC__ >= 12
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else /* does not know how to choose among these */
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#endif
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bfloat16;

INLINE float wide(bfloat16 value) {
    const union { uint32_t bits; float number; } x = {.bits = (uint32_t)value << 16};
    return x.number;
}

/* To nearest, ties to even. NaN stays NaN, for its upper half is not zero. */
INLINE bfloat16 narrow(float value) {
    const union { float number; uint32_t bits; } x = {.number = value};
    const uint32_t rounded = (x.bits + 0x7FFF + ((x.bits >> 16) & 1)) >> 16;
    return (x.bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded;
}
