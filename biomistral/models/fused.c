/* Element-wise steps of a decoder layer on bfloat16, each in one pass: float32 inside, rounded once.
 *
 * Called by fused.py on contiguous arrays. Sums have a fixed order, so the results are the same on
 * any processor. Knows nothing about models.
 */
#include <math.h>

#include "bfloat16.h"

enum { LANES = 64 };

/* out = round(x / sqrt(mean(x^2) + eps)) * weight for each of the rows, as Transformers has it. */
FOR_EACH_CPU
void fused_rms_norm(const bfloat16 *restrict x, const bfloat16 *restrict weight,
                    bfloat16 *restrict out, int64_t rows, int64_t width, float eps) {
    for (int64_t row = 0; row < rows; row++, x += width, out += width) {
        float lanes[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES)
            for (int j = 0; j < LANES; j++) lanes[j] += wide(x[i + j]) * wide(x[i + j]);
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
        float sum = lanes[0];
        for (; i < width; i++) sum += wide(x[i]) * wide(x[i]);
        const float factor = 1.0f / sqrtf(sum / width + eps);
        for (i = 0; i < width; i++)
            out[i] = narrow(wide(narrow(wide(x[i]) * factor)) * wide(weight[i]));
    }
}

/* e^x for |x| <= 40, to 2e-7 of its value: 2^k times a polynomial (Taylor's) on [-ln2/2, ln2/2]. */
INLINE float exponential(float x) {
    const float scaled = x * 1.44269504f, shifted = scaled + 12582912.0f; /* 1.5 * 2^23: rounds */
    const float r = (scaled - (shifted - 12582912.0f)) * 0.693147181f;
    union { float number; int32_t bits; } power = {
        .number = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f
                  + r * (0.00833333333f + r * 0.00138888889f)))))}, k = {.number = shifted};
    power.bits += (int32_t)((uint32_t)k.bits << 23);
    return power.number;
}

/* gate = silu(gate) * up. Beyond 40 the sigmoid is 1, or so small that nothing is left. */
FOR_EACH_CPU
void fused_gate(bfloat16 *restrict gate, const bfloat16 *restrict up, int64_t num) {
    for (int64_t i = 0; i < num; i++) {
        float value = wide(gate[i]);
        value = value < -40.0f ? -40.0f : value;
        const float bounded = value > 40.0f ? 40.0f : value;
        gate[i] = narrow(value / (1.0f + exponential(-bounded)) * wide(up[i]));
    }
}

/* Turn vectors (rows, heads, width) by the angles of their row, in place. `stride` is the distance
 * of two rows of vectors; cosine and sine are (rows, width). */
FOR_EACH_CPU
void fused_turn(bfloat16 *restrict x, const float *restrict cosine, const float *restrict sine,
                int64_t rows, int64_t heads, int64_t width, int64_t stride) {
    const int64_t half = width / 2;
    for (int64_t row = 0; row < rows; row++, cosine += width, sine += width, x += stride) {
        bfloat16 *at = x;
        for (int64_t head = 0; head < heads; head++, at += width)
            for (int64_t j = 0; j < half; j++) {
                const float a = wide(at[j]), b = wide(at[j + half]);
                at[j] = narrow(a * cosine[j] - b * sine[j]);
                at[j + half] = narrow(b * cosine[j + half] + a * sine[j + half]);
            }
    }
}
