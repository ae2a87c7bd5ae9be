/* Attention of bfloat16 queries to the first so many keys, on processors with matrix units (AMX).
 *
 * Called by attention.py. Scores and sums are float32; probabilities are rounded to bfloat16 before
 * they meet the values, as a matrix product wants them. What a query finds depends on nothing but
 * itself and the keys that it sees: neither on the other queries nor on how many there are.
 */
#include "matrix_units.h"

/* Strides are in elements. Query i sees keys 0 to limits[i] - 1; limits are at least 1. */
typedef struct {
    const bfloat16 *queries, *keys, *values; /* (Q, heads, D); (groups, capacity, D) each */
    bfloat16 *out;                           /* (Q, heads, D) */
    const int32_t *limits;                   /* (Q,) */
    int64_t num_queries, num_keys;
    int64_t num_heads, num_sharing; /* as many heads share keys */
    int64_t width, capacity;
    float scaling;
} Task;

#ifdef HAS_MATRIX_UNITS
enum { TILE = ROWS * 16 }; /* floats */
static const float HIDDEN = -1e30f;

int attention_is_possible(void) { return matrix_units_are_possible(); }

/* 2^x for x <= 0, to 4e-6 of its value; 0 where x is far below. */
INLINE __m512 power_of_two(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(0.00133335581f); /* ln2^n / n! */
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.00961812911f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.0555041087f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.240226507f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.693147181f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

/* Turn 16 rows of 16 numbers of 32 bits (two dimensions of a key each) round. */
INLINE void transpose(const bfloat16 *from, int64_t stride, int64_t num_rows, bfloat16 *to) {
    __m512i r[16], a[16], b[16];
    for (int i = 0; i < 16; i++)
        r[i] = i < num_rows ? _mm512_loadu_si512(from + i * stride) : _mm512_setzero_si512();
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        const __m512i even = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
        const __m512i odd = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
        const __m512i even_too = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        const __m512i odd_too = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
        _mm512_store_si512(to + PAIRS * j, _mm512_shuffle_i32x4(even, even_too, 0x88));
        _mm512_store_si512(to + PAIRS * (4 + j), _mm512_shuffle_i32x4(odd, odd_too, 0x88));
        _mm512_store_si512(to + PAIRS * (8 + j), _mm512_shuffle_i32x4(even, even_too, 0xdd));
        _mm512_store_si512(to + PAIRS * (12 + j), _mm512_shuffle_i32x4(odd, odd_too, 0xdd));
    }
}

/* Keys as tiles of 16 keys by 32 dimensions, turned round: (N / 16, D / 32, 16, 32). */
INLINE void pack_keys(const Task *t, const bfloat16 *keys, int64_t num_tiles, bfloat16 *to) {
    for (int64_t tile = 0; tile < num_tiles; tile++)
        for (int64_t d = 0; d < t->width; d += PAIRS, to += ROWS * PAIRS)
            transpose(keys + tile * ROWS * t->width + d, t->width, t->num_keys - tile * ROWS, to);
}

/* Values as tiles of 32 keys, two by two, by 16 dimensions: (N / 32, D / 16, 16, 32). */
INLINE void pack_values(const Task *t, const bfloat16 *values, int64_t num_keys, bfloat16 *to) {
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    const __m512i zero = _mm512_setzero_si512();
    for (int64_t key = 0; key < num_keys; key += 2)
        for (int64_t d = 0; d < t->width; d += PAIRS) {
            const bfloat16 *from = values + key * t->width + d;
            const __m512i one = key < t->num_keys ? _mm512_loadu_si512(from) : zero;
            const __m512i other = key + 1 < t->num_keys ? _mm512_loadu_si512(from + t->width) : zero;
            const __m512i low = _mm512_unpacklo_epi16(one, other), high = _mm512_unpackhi_epi16(one, other);
            bfloat16 *at = to + ((key / PAIRS * (t->width / 16) + d / 16) * ROWS + key % PAIRS / 2) * PAIRS;
            _mm512_store_si512(at, _mm512_permutex2var_epi64(low, first, high));
            _mm512_store_si512(at + ROWS * PAIRS, _mm512_permutex2var_epi64(low, second, high));
        }
}

/* Memory of one thread; sizes are in tiles of 1 KB. */
typedef struct {
    bfloat16 *keys, *values, *probabilities, *queries;
    float *scores, *found;
} Scratch;

/* Scores of 16 queries by 16 keys at a time, in tiles; returns the largest of each query. */
INLINE void score(const Task *t, const Scratch *s, const int32_t *limits, int64_t num_tiles, float *most) {
    const int64_t depth = t->width / PAIRS;
    int32_t least = limits[0];
    for (int r = 1; r < ROWS; r++) least = limits[r] < least ? limits[r] : least;
    __m512 largest[ROWS];
    for (int r = 0; r < ROWS; r++) largest[r] = _mm512_set1_ps(HIDDEN);
    WRITTEN;
    _tile_loadd(4, s->queries, 64);
    if (depth > 1) _tile_loadd(5, s->queries + ROWS * PAIRS, 64);
    if (depth > 2) _tile_loadd(6, s->queries + 2 * ROWS * PAIRS, 64);
    if (depth > 3) _tile_loadd(7, s->queries + 3 * ROWS * PAIRS, 64);
    for (int64_t tile = 0; tile < num_tiles; tile++) {
        const bfloat16 *keys = s->keys + tile * depth * ROWS * PAIRS;
        float *scores = s->scores + tile * TILE;
        _tile_zero(0);
        _tile_loadd(1, keys, 64);
        _tile_dpbf16ps(0, 4, 1);
        if (depth > 1) {
            _tile_loadd(2, keys + ROWS * PAIRS, 64);
            _tile_dpbf16ps(0, 5, 2);
        }
        if (depth > 2) {
            _tile_loadd(1, keys + 2 * ROWS * PAIRS, 64);
            _tile_dpbf16ps(0, 6, 1);
        }
        if (depth > 3) {
            _tile_loadd(2, keys + 3 * ROWS * PAIRS, 64);
            _tile_dpbf16ps(0, 7, 2);
        }
        _tile_stored(0, scores, 64);
        if ((tile + 1) * ROWS > least) /* some query does not see some of these keys */
            for (int r = 0; r < ROWS; r++) {
                const int64_t num_seen = limits[r] - tile * ROWS;
                const __mmask16 seen = num_seen >= 16 ? 0xffff : num_seen <= 0 ? 0 : (1 << num_seen) - 1;
                const __m512 row = _mm512_load_ps(scores + r * 16);
                _mm512_store_ps(scores + r * 16, _mm512_mask_blend_ps(seen, _mm512_set1_ps(HIDDEN), row));
            }
        for (int r = 0; r < ROWS; r++)
            largest[r] = _mm512_max_ps(largest[r], _mm512_load_ps(scores + r * 16));
    }
    for (int r = 0; r < ROWS; r++) most[r] = _mm512_reduce_max_ps(largest[r]);
}

/* Scores to what they are to the largest one, in bfloat16; returns the sum of each query. */
INLINE void weigh(const Task *t, const Scratch *s, int64_t num_tiles, const float *most, float *sums) {
    const float factor = t->scaling * 1.44269504f; /* 1 / ln2 */
    const __m512 factors = _mm512_set1_ps(factor);
    __m512 sum[ROWS];
    float shift[ROWS];
    for (int r = 0; r < ROWS; r++) sum[r] = _mm512_setzero_ps(), shift[r] = most[r] * factor;
    for (int64_t tile = 0; tile < num_tiles; tile += 2)
        for (int r = 0; r < ROWS; r++) {
            const float *scores = s->scores + tile * TILE + r * 16;
            const __m512 of_row = _mm512_set1_ps(shift[r]);
            const __m512 one = power_of_two(_mm512_fmsub_ps(_mm512_load_ps(scores), factors, of_row));
            const __m512 other = power_of_two(_mm512_fmsub_ps(_mm512_load_ps(scores + TILE), factors, of_row));
            sum[r] = _mm512_add_ps(sum[r], _mm512_add_ps(one, other));
            const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(other, one);
            _mm512_store_si512(s->probabilities + tile / 2 * ROWS * PAIRS + r * PAIRS, both);
        }
    for (int r = 0; r < ROWS; r++) sums[r] = _mm512_reduce_add_ps(sum[r]);
}

/* Probabilities times values: (16, D), 64 dimensions at a time, in tiles. */
INLINE void mix(const Task *t, const Scratch *s, int64_t num_tiles) {
    const int64_t across = t->width / 16;
    WRITTEN;
    for (int64_t start = 0; start < across; start += 4) {
        const int is_half = across - start < 4;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t tile = 0; tile < num_tiles / 2; tile++) {
            const bfloat16 *values = s->values + (tile * across + start) * ROWS * PAIRS;
            _tile_loadd(4, s->probabilities + tile * ROWS * PAIRS, 64);
            _tile_loadd(5, values, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, values + ROWS * PAIRS, 64);
            _tile_dpbf16ps(1, 4, 6);
            if (is_half) continue;
            _tile_loadd(5, values + 2 * ROWS * PAIRS, 64);
            _tile_dpbf16ps(2, 4, 5);
            _tile_loadd(6, values + 3 * ROWS * PAIRS, 64);
            _tile_dpbf16ps(3, 4, 6);
        }
        _tile_stored(0, s->found + start * TILE, 64);
        _tile_stored(1, s->found + (start + 1) * TILE, 64);
        if (is_half) continue;
        _tile_stored(2, s->found + (start + 2) * TILE, 64);
        _tile_stored(3, s->found + (start + 3) * TILE, 64);
    }
}

/* What 16 queries of a head, or those that are left, find. */
INLINE void attend_rows(const Task *t, const Scratch *s, int64_t first, int64_t head) {
    const int64_t left = t->num_queries - first, num_rows = left < ROWS ? left : ROWS;
    const int64_t row_stride = t->num_heads * t->width, start = first * row_stride + head * t->width;
    int32_t limits[ROWS], furthest = 1;
    for (int r = 0; r < ROWS; r++) {
        limits[r] = r < num_rows ? t->limits[first + r] : limits[0];
        furthest = limits[r] > furthest ? limits[r] : furthest;
        for (int64_t d = 0; d < t->width; d += PAIRS)
            _mm512_store_si512(s->queries + (d / PAIRS * ROWS + r) * PAIRS,
                               r < num_rows ? _mm512_loadu_si512(t->queries + start + r * row_stride + d)
                                            : _mm512_setzero_si512());
    }
    const int64_t num_tiles = (furthest + PAIRS - 1) / PAIRS * 2;
    float most[ROWS], sums[ROWS];
    score(t, s, limits, num_tiles, most);
    weigh(t, s, num_tiles, most, sums);
    mix(t, s, num_tiles);
    for (int64_t r = 0; r < num_rows; r++) {
        const __m512 factor = _mm512_set1_ps(1.0f / sums[r]);
        for (int64_t d = 0; d < t->width; d += 16) {
            const __m512 row = _mm512_mul_ps(_mm512_load_ps(s->found + d / 16 * TILE + r * 16), factor);
            _mm256_storeu_si256((__m256i *)(t->out + start + r * row_stride + d),
                                (__m256i)_mm512_cvtneps_pbh(row));
        }
    }
}

/* What all queries find, of the groups of heads from first to last. Returns 0 if memory ran out. */
TARGET int attention_rows(const Task *t, int64_t first, int64_t last) {
    const int64_t num_keys = (t->num_keys + PAIRS - 1) / PAIRS * PAIRS, bytes = 2 * num_keys * t->width;
    const int64_t of_rows = 64 * num_keys, of_queries = 2 * ROWS * t->width;
    char *memory = aligned_alloc(64, 2 * bytes + of_rows + of_rows / 2 + 3 * of_queries);
    if (!memory) return 0;
    const Scratch s = {
        .keys = (bfloat16 *)memory,
        .values = (bfloat16 *)(memory + bytes),
        .scores = (float *)(memory + 2 * bytes),
        .probabilities = (bfloat16 *)(memory + 2 * bytes + of_rows),
        .queries = (bfloat16 *)(memory + 2 * bytes + of_rows + of_rows / 2),
        .found = (float *)(memory + 2 * bytes + of_rows + of_rows / 2 + of_queries),
    };
    Tiles before;
    take_tiles(&before, 0, ROWS);
    for (int64_t group = first; group < last; group++) {
        pack_keys(t, t->keys + group * t->capacity * t->width, num_keys / ROWS, s.keys);
        pack_values(t, t->values + group * t->capacity * t->width, num_keys, s.values);
        for (int64_t head = group * t->num_sharing; head < (group + 1) * t->num_sharing; head++)
            for (int64_t row = 0; row < t->num_queries; row += ROWS) attend_rows(t, &s, row, head);
    }
    give_back_tiles(&before);
    free(memory);
    return 1;
}

#else

int attention_is_possible(void) { return 0; }
int attention_rows(const Task *t, int64_t first, int64_t last) { return t && first > last; }

#endif
