/* A bfloat16 matrix times a few float32 rows, summed in float32: the output head of generation.
 *
 * Called by head.py. Sums have a fixed order whatever the number of rows, so the results are the
 * same on any processor and in any company. Knows nothing about models.
 */
#include "bfloat16.h"

enum { LANES = 64, AT_ONCE = 4, OUTPUTS = 32 }; /* rows at once and outputs: both stay in the caches */

/* Sums of `number` rows, a constant where this is called, so that a weight is widened once for all. */
INLINE void sums(const float *restrict x, const bfloat16 *restrict w, float *restrict out, int number,
                 int64_t width, int64_t outputs) {
    float lanes[AT_ONCE][LANES] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES)
        for (int r = 0; r < number; r++)
            for (int j = 0; j < LANES; j++) lanes[r][j] += wide(w[i + j]) * x[r * width + i + j];
    for (int r = 0; r < number; r++) {
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++) lanes[r][j] += lanes[r][j + half];
        float sum = lanes[r][0];
        for (int64_t k = i; k < width; k++) sum += wide(w[k]) * x[r * width + k];
        out[r * outputs] = sum;
    }
}

/* out[r, v] = sum over h of weight[v, h] * hidden[r, h], for outputs v from first to last. */
FOR_EACH_CPU
void head_rows(const float *restrict hidden, const bfloat16 *restrict weight, float *restrict out,
               int64_t rows, int64_t width, int64_t outputs, int64_t first, int64_t last) {
    for (int64_t start = first; start < last; start += OUTPUTS) {
        const int64_t stop = start + OUTPUTS < last ? start + OUTPUTS : last;
        for (int64_t r = 0; r < rows; r += rows - r < AT_ONCE ? 1 : AT_ONCE)
            for (int64_t v = start; v < stop; v++) {
                const float *x = hidden + r * width;
                float *to = out + r * outputs + v;
                if (rows - r < AT_ONCE) sums(x, weight + v * width, to, 1, width, outputs);
                else sums(x, weight + v * width, to, AT_ONCE, width, outputs);
            }
    }
}
