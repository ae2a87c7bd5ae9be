/* 4-bit weights, as PyTorch's int4 kernel for CPUs keeps them, written out as bfloat16.
 *
 * Called by hybrid.py. A block is `width` outputs (64 or 32): byte j of input k holds output j in its
 * low half and output j + width/2 in its high half. A weight is (level - 8) * scale + zero, computed
 * in float32 and rounded once. Knows nothing about models.
 */
#include <string.h>

#include "bfloat16.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 10
#define HAS_BFLOAT16_UNIT
#endif

FOR_EACH_CPU
static void block(const uint8_t *restrict packed, const bfloat16 *restrict pairs,
                  bfloat16 *restrict out, int64_t inputs, int64_t outputs, int64_t group,
                  int64_t stride, int half) {
    float scale[64], zero[64];
    for (int64_t k = 0; k < inputs; k++, packed += half, out += stride) {
        if (k % group == 0) {
            const bfloat16 *pair = pairs + k / group * outputs * 2;
            for (int j = 0; j < 2 * half; j++) {
                scale[j] = wide(pair[2 * j]);
                zero[j] = wide(pair[2 * j + 1]) - 8.0f * scale[j];
            }
        }
        for (int j = 0; j < half; j++) {
            out[j] = narrow((float)(packed[j] & 15) * scale[j] + zero[j]);
            out[j + half] = narrow((float)(packed[j] >> 4) * scale[j + half] + zero[j + half]);
        }
    }
}

#ifdef HAS_BFLOAT16_UNIT
#include <immintrin.h>

/* The same for blocks of 64, to the bit (for weights that are no denormal numbers). */
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
static void block_64(const uint8_t *restrict packed, const bfloat16 *restrict pairs,
                     bfloat16 *restrict out, int64_t inputs, int64_t outputs, int64_t group,
                     int64_t stride) {
    const __m256i low = _mm256_set1_epi8(15);
    __m512 scale[4], zero[4];
    for (int64_t k = 0; k < inputs; k++, packed += 32, out += stride) {
        if (k % group == 0)
            for (int i = 0; i < 4; i++) {
                /* scale in the low half of each 32 bits, zero in the high half */
                const __m512i both =
                    _mm512_loadu_si512(pairs + k / group * outputs * 2 + 32 * i);
                scale[i] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
                zero[i] = _mm512_castsi512_ps(
                    _mm512_and_si512(both, _mm512_set1_epi32((int)0xFFFF0000)));
                zero[i] = _mm512_sub_ps(zero[i],
                                        _mm512_mul_ps(_mm512_set1_ps(8.0f), scale[i]));
            }
        const __m256i bytes = _mm256_loadu_si256((const __m256i *)packed);
        const __m256i halves[2] = {
            _mm256_and_si256(bytes, low),
            _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)};
        for (int i = 0; i < 2; i++) {
            const __m512 first = _mm512_cvtepi32_ps(
                _mm512_cvtepu8_epi32(_mm256_castsi256_si128(halves[i])));
            const __m512 second = _mm512_cvtepi32_ps(
                _mm512_cvtepu8_epi32(_mm256_extracti128_si256(halves[i], 1)));
            const __m512bh rounded = _mm512_cvtne2ps_pbh(
                _mm512_add_ps(_mm512_mul_ps(second, scale[2 * i + 1]), zero[2 * i + 1]),
                _mm512_add_ps(_mm512_mul_ps(first, scale[2 * i]), zero[2 * i]));
            _mm512_storeu_si512(out + 32 * i, (__m512i)rounded);
        }
    }
}
#endif

/* Blocks first to last of a matrix, to out: (inputs, (last - first) * width), row by row.
 * pairs: (groups, outputs, 2), scale and zero. */
void int4_blocks(const uint8_t *packed, const bfloat16 *pairs, bfloat16 *out, int64_t inputs,
                 int64_t outputs, int64_t group, int64_t width, int64_t first, int64_t last,
                 int64_t stride) {
    for (int64_t b = first; b < last; b++, out += width) {
        const uint8_t *from = packed + b * inputs * (width / 2);
#ifdef HAS_BFLOAT16_UNIT
        if (width == 64 && __builtin_cpu_supports("avx512bf16")) {
            block_64(from, pairs + b * width * 2, out, inputs, outputs, group, stride);
            continue;
        }
#endif
        if (width == 64)
            block(from, pairs + b * width * 2, out, inputs, outputs, group, stride, 32);
        else
            block(from, pairs + b * width * 2, out, inputs, outputs, group, stride, 16);
    }
}
