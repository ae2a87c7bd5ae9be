/* Element-wise steps of training a decoder on bfloat16, and their gradients: one pass each where
 * PyTorch makes many, float32 inside, rounded once.
 *
 * Called by fused_steps.py on contiguous arrays. Sums have a fixed order, so the results are the
 * same on any processor and with any number of threads. Knows nothing about models.
 */
#include <math.h>

#include "../models/bfloat16.h"

enum { LANES = 64 };

INLINE float folded(float *lanes) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* e^x for |x| <= 80, to 2e-7 of its value: 2^k times a polynomial (Taylor's) on [-ln2/2, ln2/2]. */
INLINE float exponential(float x) {
    const float scaled = x * 1.44269504f, shifted = scaled + 12582912.0f; /* 1.5 * 2^23: rounds */
    const float r = (scaled - (shifted - 12582912.0f)) * 0.693147181f;
    union { float number; int32_t bits; } power = {
        .number = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f
                  + r * (0.00833333333f + r * 0.00138888889f)))))}, k = {.number = shifted};
    power.bits += (int32_t)((uint32_t)k.bits << 23);
    return power.number;
}

/* A gate; below -40 silu lets nothing through. */
INLINE float gate_at(bfloat16 gate) {
    const float value = wide(gate);
    return value < -40.0f ? -40.0f : value;
}

/* 1 / (1 + e^-x) for x >= -40. Beyond 40 it is 1. */
INLINE float sigmoid(float x) {
    x = x > 40.0f ? 40.0f : x;
    return 1.0f / (1.0f + exponential(-x));
}

/* out = round(x / sqrt(mean(x^2) + eps)) * weight for each of the rows, as Transformers has it. */
FOR_EACH_CPU
void norm_forward(const bfloat16 *restrict x, const bfloat16 *restrict weight,
                  bfloat16 *restrict out, int64_t rows, int64_t width, float eps) {
    for (int64_t row = 0; row < rows; row++, x += width, out += width) {
        float squares[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES)
            for (int j = 0; j < LANES; j++) squares[j] += wide(x[i + j]) * wide(x[i + j]);
        float sum = folded(squares);
        for (; i < width; i++) sum += wide(x[i]) * wide(x[i]);
        const float factor = 1.0f / sqrtf(sum / width + eps);
        for (i = 0; i < width; i++)
            out[i] = narrow(wide(narrow(wide(x[i]) * factor)) * wide(weight[i]));
    }
}

/* Gradients of the norm. That of the weight is added up over these rows in `weight_gradient`. */
FOR_EACH_CPU
void norm_backward(const bfloat16 *restrict x, const bfloat16 *restrict weight,
                   const bfloat16 *restrict gradient, bfloat16 *restrict x_gradient,
                   float *restrict weight_gradient, int64_t rows, int64_t width, float eps) {
    for (int64_t row = 0; row < rows; row++, x += width, gradient += width, x_gradient += width) {
        float squares[LANES] = {0}, products[LANES] = {0};
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES)
            for (int j = 0; j < LANES; j++) {
                const float value = wide(x[i + j]);
                squares[j] += value * value;
                products[j] += value * (wide(gradient[i + j]) * wide(weight[i + j]));
            }
        float sum = folded(squares), along = folded(products);
        for (; i < width; i++) {
            sum += wide(x[i]) * wide(x[i]);
            along += wide(x[i]) * (wide(gradient[i]) * wide(weight[i]));
        }
        const float factor = 1.0f / sqrtf(sum / width + eps);
        const float back = along * factor * factor * factor / width;
        for (i = 0; i < width; i++) {
            const float value = wide(x[i]), given = wide(gradient[i]);
            x_gradient[i] = narrow(given * wide(weight[i]) * factor - value * back);
            weight_gradient[i] += given * wide(narrow(value * factor));
        }
    }
}

/* out = silu(gate) * up. */
FOR_EACH_CPU
void gate_forward(const bfloat16 *restrict gate, const bfloat16 *restrict up,
                  bfloat16 *restrict out, int64_t num) {
    for (int64_t i = 0; i < num; i++) {
        const float value = gate_at(gate[i]);
        out[i] = narrow(value * sigmoid(value) * wide(up[i]));
    }
}

/* Gradients of the gate and of what it lets through; `out` is silu(gate) * up once more. */
FOR_EACH_CPU
void gate_backward(const bfloat16 *restrict gate, const bfloat16 *restrict up,
                   const bfloat16 *restrict gradient, bfloat16 *restrict gate_gradient,
                   bfloat16 *restrict up_gradient, bfloat16 *restrict out, int64_t num) {
    for (int64_t i = 0; i < num; i++) {
        const float value = gate_at(gate[i]), other = wide(up[i]), given = wide(gradient[i]);
        const float share = sigmoid(value);
        out[i] = narrow(value * share * other);
        up_gradient[i] = narrow(given * value * share);
        gate_gradient[i] = narrow(given * other * share * (1.0f + value * (1.0f - share)));
    }
}

/* Turn vectors (rows, heads, width) by the angles of their row, or back; cosine and sine are (rows,
 * width). `out` may be `x`. */
FOR_EACH_CPU
void turn(const bfloat16 *x, bfloat16 *out, const bfloat16 *restrict cosine,
          const bfloat16 *restrict sine, int64_t rows, int64_t heads, int64_t width, int back) {
    const int64_t half = width / 2;
    const float sign = back ? -1.0f : 1.0f;
    for (int64_t row = 0; row < rows; row++, cosine += width, sine += width)
        for (int64_t head = 0; head < heads; head++, x += width, out += width)
            for (int64_t j = 0; j < half; j++) {
                const float a = wide(x[j]), b = wide(x[j + half]);
                out[j] = narrow(a * wide(cosine[j]) - sign * b * wide(sine[j]));
                out[j + half] = narrow(b * wide(cosine[j + half]) + sign * a * wide(sine[j + half]));
            }
}

/* Turn each row of logits into the gradient of its cross-entropy with a label, which goes to `nats`.
 * `scratch` has room for a row. A row with something that is not finite becomes not a number. */
FOR_EACH_CPU
void logits_to_gradients(bfloat16 *restrict logits, const int64_t *restrict labels,
                         float *restrict nats, float *restrict scratch, int64_t rows,
                         int64_t width) {
    for (int64_t row = 0; row < rows; row++, logits += width) {
        float tops[LANES], nothings[LANES] = {0}; /* nought, or not a number */
        for (int j = 0; j < LANES; j++) tops[j] = -INFINITY;
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES)
            for (int j = 0; j < LANES; j++) {
                const float value = wide(logits[i + j]);
                tops[j] = value > tops[j] ? value : tops[j];
                nothings[j] += value - value;
            }
        float largest = -INFINITY, nothing = folded(nothings);
        for (int j = 0; j < LANES; j++) largest = tops[j] > largest ? tops[j] : largest;
        for (; i < width; i++) {
            const float value = wide(logits[i]);
            largest = value > largest ? value : largest;
            nothing += value - value;
        }
        const int is_wrong = nothing != 0.0f;
        float lanes[LANES] = {0};
        for (i = 0; i + LANES <= width; i += LANES)
            for (int j = 0; j < LANES; j++) {
                float below = wide(logits[i + j]) - largest;
                below = below < -80.0f ? -80.0f : below;
                lanes[j] += scratch[i + j] = exponential(below);
            }
        float sum = folded(lanes);
        for (; i < width; i++) {
            float below = wide(logits[i]) - largest;
            below = below < -80.0f ? -80.0f : below;
            sum += scratch[i] = exponential(below);
        }
        const float factor = is_wrong ? NAN : 1.0f / sum;
        const int64_t label = labels[row];
        nats[row] = is_wrong ? NAN : logf(sum) - (wide(logits[label]) - largest);
        for (i = 0; i < width; i++) logits[i] = narrow(scratch[i] * factor);
        logits[label] = narrow(scratch[label] * factor - 1.0f);
    }
}
