/* A bfloat16 matrix times a few float32 rows, summed in float32: the output head of generation.
 *
 * Called by head.py. Sums have a fixed order whatever the number of rows, so the results are the
 * same on any processor and in any company. Knows nothing about models.
 */
#include <stdint.h>

#if !defined(__x86_64__) || !defined(__linux__) || !defined(__GLIBC__) || defined(__clang__)
#define FOR_EACH_CPU
#elif __GNUC__ >= 12
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else /* does not know how to choose among these */
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#endif

enum { LANES = 64 };
typedef uint16_t bfloat16;

static inline __attribute__((always_inline)) float wide(bfloat16 value) {
    const union { uint32_t bits; float number; } x = {.bits = (uint32_t)value << 16};
    return x.number;
}

/* out[r, v] = sum over h of weight[v, h] * hidden[r, h], for outputs v from first to last. */
FOR_EACH_CPU
void head_rows(const float *restrict hidden, const bfloat16 *restrict weight, float *restrict out,
               int64_t rows, int64_t width, int64_t outputs, int64_t first, int64_t last) {
    for (int64_t v = first; v < last; v++) {
        const bfloat16 *w = weight + v * width;
        for (int64_t r = 0; r < rows; r++) {
            const float *x = hidden + r * width;
            float lanes[LANES] = {0};
            int64_t i = 0;
            for (; i + LANES <= width; i += LANES)
                for (int j = 0; j < LANES; j++) lanes[j] += wide(w[i + j]) * x[i + j];
            for (int half = LANES / 2; half > 0; half /= 2)
                for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
            float sum = lanes[0];
            for (; i < width; i++) sum += wide(w[i]) * x[i];
            out[r * outputs + v] = sum;
        }
    }
}
