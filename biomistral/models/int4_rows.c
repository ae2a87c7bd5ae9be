/* Products of some bfloat16 rows with 4-bit weights, on processors with matrix units (AMX).
 *
 * Called by hybrid.py; the weights lie as int4.c says, in blocks of 64 outputs. Levels are multiplied
 * as the whole numbers -8 to 7 that they are, group by group, and summed in float32, where scale and
 * zero come to them; the sum is rounded once. A row's result depends on nothing but itself.
 */
#include "matrix_units.h"

typedef struct {
    const bfloat16 *rows;  /* (rows, inputs) */
    const uint8_t *levels; /* (outputs / 64, inputs, 32) */
    const bfloat16 *pairs; /* (groups, outputs, 2): scale and zero */
    bfloat16 *out;         /* (rows, outputs) */
    int64_t num_rows, inputs, outputs, group;
} Task;

#ifdef HAS_MATRIX_UNITS
enum { TILE = ROWS * PAIRS, BLOCK = 64, PARTS = BLOCK / 16 };
enum { AT_ONCE = 128, AHEAD = 2048 }; /* rows, which stay in the cache; bytes: half the time with one row */

int int4_rows_are_possible(void) { return matrix_units_are_possible(); }

/* Where the bytes of two inputs go: word i gets output i / 2 + 16 `part` of input i % 2. */
INLINE __m512i spread(int part) {
    uint8_t from[64];
    for (int i = 0; i < 64; i++) from[i] = (uint8_t)(i / 4 + 16 * part + 32 * (i / 2 % 2));
    return _mm512_loadu_si512(from);
}

/* The levels from -8 to 7 in bfloat16, twice: a lookup heeds five bits, a level has four. */
INLINE __m512i numbers(void) {
    bfloat16 each[32];
    for (int i = 0; i < 32; i++) {
        const float number = (float)(i % 16 - 8);
        uint32_t bits;
        memcpy(&bits, &number, sizeof bits);
        each[i] = (bfloat16)(bits >> 16);
    }
    return _mm512_loadu_si512(each);
}

/* Levels of some inputs, 64 outputs each, as tiles of 16 pairs of inputs by 16 outputs: (inputs / 32, 4). */
INLINE void unpack(const uint8_t *levels, int64_t inputs, __m512i low, __m512i high, __m512i values,
                   bfloat16 *to) {
    for (int64_t k = 0; k < inputs; k += 2) {
        bfloat16 *row = to + k / PAIRS * PARTS * TILE + k % PAIRS / 2 * PAIRS;
        _mm_prefetch((const char *)(levels + k * (BLOCK / 2)) + AHEAD, _MM_HINT_T0);
        const __m512i bytes = _mm512_loadu_si512(levels + k * (BLOCK / 2));
        const __m512i a = _mm512_permutexvar_epi8(low, bytes), b = _mm512_permutexvar_epi8(high, bytes);
        _mm512_store_si512(row, _mm512_permutexvar_epi16(a, values));
        _mm512_store_si512(row + TILE, _mm512_permutexvar_epi16(b, values));
        _mm512_store_si512(row + 2 * TILE, _mm512_permutexvar_epi16(_mm512_srli_epi16(a, 4), values));
        _mm512_store_si512(row + 3 * TILE, _mm512_permutexvar_epi16(_mm512_srli_epi16(b, 4), values));
    }
}

/* Rows as tiles of 16 rows by 32 inputs, those past the end zero: (rows / 16, inputs / 32). */
INLINE void pack_rows(const Task *t, bfloat16 *to) {
    for (int64_t first = 0; first < t->num_rows; first += ROWS)
        for (int64_t k = 0; k < t->inputs; k += PAIRS)
            for (int64_t r = first; r < first + ROWS; r++, to += PAIRS)
                _mm512_store_si512(to, r < t->num_rows ? _mm512_loadu_si512(t->rows + r * t->inputs + k)
                                                       : _mm512_setzero_si512());
}

/* Of each group of inputs the sum, row by row: (groups, rows). */
INLINE void add_up(const Task *t, float *to) {
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000);
    for (int64_t g = 0; g < t->inputs; g += t->group)
        for (int64_t r = 0; r < t->num_rows; r++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t k = g; k < g + t->group; k += PAIRS) {
                const __m512i pair = _mm512_loadu_si512(t->rows + r * t->inputs + k);
                sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
                sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_and_si512(pair, upper)));
            }
            *to++ = _mm512_reduce_add_ps(sum);
        }
}

/* 16 rows by 64 outputs over the inputs of a group. */
INLINE void multiply(const bfloat16 *rows, const bfloat16 *weights, int64_t steps, float *to) {
    WRITTEN;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t s = 0; s < steps; s++, rows += TILE, weights += PARTS * TILE) {
        _tile_loadd(4, rows, 64);
        _tile_loadd(5, weights, 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, weights + TILE, 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, weights + 2 * TILE, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, weights + 3 * TILE, 64);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, to, 256);
    _tile_stored(1, to + 16, 256);
    _tile_stored(2, to + 32, 256);
    _tile_stored(3, to + 48, 256);
}

/* Memory of one thread. */
typedef struct {
    bfloat16 *rows, *weights;
    float *sums, *found, *total;
} Scratch;

TARGET
static void block(const Task *t, const Scratch *s, int64_t b) {
    const __m512i low = spread(0), high = spread(1), values = numbers();
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000);
    const int64_t steps = t->group / PAIRS, all_steps = t->inputs / PAIRS;
    const uint8_t *levels = t->levels + b * t->inputs * (BLOCK / 2);
    memset(s->total, 0, sizeof(float) * (size_t)(t->num_rows * BLOCK));
    for (int64_t g = 0; g < t->inputs / t->group; g++) {
        unpack(levels + g * t->group * (BLOCK / 2), t->group, low, high, values, s->weights);
        __m512 scale[PARTS], zero[PARTS];
        for (int i = 0; i < PARTS; i++) { /* scale in the low half of each 32 bits, zero in the high one */
            const __m512i both =
                _mm512_loadu_si512(t->pairs + (g * t->outputs + b * BLOCK + i * 16) * 2);
            scale[i] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
            zero[i] = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
        }
        for (int64_t first = 0; first < t->num_rows; first += ROWS) {
            multiply(s->rows + (first / ROWS * all_steps + g * steps) * TILE, s->weights, steps, s->found);
            const int64_t left = t->num_rows - first, here = left < ROWS ? left : ROWS;
            for (int64_t r = 0; r < here; r++) {
                float *total = s->total + (first + r) * BLOCK;
                const __m512 sum = _mm512_set1_ps(s->sums[g * t->num_rows + first + r]);
                for (int i = 0; i < PARTS; i++) {
                    const __m512 product = _mm512_load_ps(s->found + r * BLOCK + i * 16);
                    __m512 x = _mm512_load_ps(total + i * 16);
                    x = _mm512_fmadd_ps(scale[i], product, x);
                    _mm512_store_ps(total + i * 16, _mm512_fmadd_ps(zero[i], sum, x));
                }
            }
        }
    }
    for (int64_t r = 0; r < t->num_rows; r++)
        for (int i = 0; i < PARTS; i += 2) {
            const float *total = s->total + r * BLOCK + i * 16;
            const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_load_ps(total + 16), _mm512_load_ps(total));
            _mm512_storeu_si512(t->out + r * t->outputs + b * BLOCK + i * 16, (__m512i)both);
        }
}

TARGET
static void blocks(const Task *t, const Scratch *s, int64_t first, int64_t last) {
    Tiles before;
    take_tiles(&before, 5, t->num_rows); /* sums and rows; the weights are whole */
    pack_rows(t, s->rows);
    add_up(t, s->sums);
    for (int64_t b = first; b < last; b++) block(t, s, b);
    give_back_tiles(&before);
}

/* Blocks first to last of the outputs; 0 if there is no memory. */
int int4_rows(const Task *t, int64_t first, int64_t last) {
    const int64_t most = t->num_rows < AT_ONCE ? t->num_rows : AT_ONCE;
    const size_t padded = (size_t)((most + ROWS - 1) / ROWS * ROWS);
    const size_t rows = padded * (size_t)t->inputs * sizeof(bfloat16);
    const size_t weights = (size_t)t->group * BLOCK * sizeof(bfloat16);
    const size_t totals = padded * BLOCK * sizeof(float), found = ROWS * BLOCK * sizeof(float);
    const size_t sums = (size_t)(t->inputs / t->group * most) * sizeof(float);
    char *memory = NULL;
    if (posix_memalign((void **)&memory, 64, rows + weights + totals + found + sums)) return 0;
    const Scratch s = {
        .rows = (bfloat16 *)memory,
        .weights = (bfloat16 *)(memory + rows),
        .total = (float *)(memory + rows + weights),
        .found = (float *)(memory + rows + weights + totals),
        .sums = (float *)(memory + rows + weights + totals + found),
    };
    for (int64_t start = 0; start < t->num_rows; start += AT_ONCE) {
        Task some = *t;
        some.rows += start * t->inputs;
        some.out += start * t->outputs;
        some.num_rows = t->num_rows - start < AT_ONCE ? t->num_rows - start : AT_ONCE;
        blocks(&some, &s, first, last);
    }
    free(memory);
    return 1;
}

#else

int int4_rows_are_possible(void) { return 0; }

int int4_rows(const Task *t, int64_t first, int64_t last) {
    (void)t, (void)first, (void)last;
    return 0;
}

#endif
