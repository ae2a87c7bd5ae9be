/* The inner loops of merging: read tensors, compute, write the result, a cache-sized block at a time.
 *
 * Each function does for a range of elements of one tensor what the functions of methods/ do, with
 * the same float32 operations in the same order, so that both give the same bits on any machine:
 * nothing is fused (-ffp-contract=off), and sums have a fixed order (see sums below). Ranges start
 * at a multiple of CHUNK. Knows nothing about names, layers or settings; holds no state.
 *
 * Compiled and called by kernels.py. All functions return the inputs that hold NaN or infinity as
 * bits (bit i: input i, in the order of the arguments; bit 62: a result that its type cannot hold),
 * or a negative errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian, and so must be the machine"
#endif

#include "../models/bfloat16.h"

enum { BFLOAT16, FLOAT16, FLOAT32 };            /* types of elements */
enum { KEEP_ALL, KEEP_LARGEST, KEEP_RANDOM };   /* ways to make a task vector sparse */
enum { MAX_INPUTS = 32, CHUNK = 4096, LANES = 64, STEP = 2048, WORKSPACE_BYTES = 3 << 19 };

static const int64_t RESULT_OVERFLOW = (int64_t)1 << 62;
static const float TINY = 1e-8f;

typedef struct {
    int32_t file; /* descriptor */
    int32_t type;
    int64_t offset_bytes; /* of element 0 */
} Place;

typedef struct {
    Place place;
    uint64_t key;        /* KEEP_RANDOM: stream of random numbers */
    int64_t num_equal;   /* KEEP_LARGEST: elements of the range equal to the threshold to keep */
    uint32_t keep_below; /* KEEP_RANDOM: 32-bit numbers below this are kept */
    int32_t sparsity;
    float threshold; /* KEEP_LARGEST: larger magnitudes are kept */
    float factor;    /* of what is kept */
    float weight;
} Share;

/* --- blocks of files --------------------------------------------------------------------------- */

static _Thread_local _Alignas(64) uint8_t workspace[WORKSPACE_BYTES];

INLINE int64_t bytes_of(int type) { return type == FLOAT32 ? 4 : 2; }

/* Elements per block, so that a block of each tensor fits into the workspace. */
INLINE int64_t block_elements(const Place *places, int num) {
    int64_t bytes = 0;
    for (int i = 0; i < num; i++) bytes += bytes_of(places[i].type);
    return WORKSPACE_BYTES / bytes / CHUNK * CHUNK;
}

static int64_t read_block(Place place, int64_t start, int64_t num, uint8_t *raw) {
    const int64_t width = bytes_of(place.type);
    int64_t left = num * width, offset = place.offset_bytes + start * width;
    while (left > 0) {
        const ssize_t got = pread(place.file, raw, left, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? -errno : -ENODATA; /* the file became shorter */
        raw += got, offset += got, left -= got;
    }
    return 0;
}

static int64_t write_block(Place place, int64_t start, int64_t num, const uint8_t *raw) {
    const int64_t width = bytes_of(place.type), begin = place.offset_bytes + start * width;
    int64_t left = num * width, offset = begin;
    while (left > 0) {
        const ssize_t put = pwrite(place.file, raw, left, offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -errno;
        raw += put, offset += put, left -= put;
    }
#ifdef __linux__ /* begin to write to the disk now; who closes the file waits for less */
    sync_file_range(place.file, begin, num * width, SYNC_FILE_RANGE_WRITE);
#endif
    return 0;
}

/* --- types of elements ------------------------------------------------------------------------- */

/* Whether the compiler has the type: GCC from 12 on, Clang for some processors. */
int merge_has_float16(void) {
#ifdef __FLT16_MAX__
    return 1;
#else
    return 0;
#endif
}

/* Round to nearest, ties to even; NaN becomes the quiet one, as in PyTorch. */
INLINE uint16_t bfloat16_of(uint32_t bits) {
    const uint16_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded;
}

/* Whether one of num elements of 16 bits is NaN or infinite; magnitudes order as their bits do. */
INLINE int reaches(const uint16_t *bits, int64_t num, uint16_t infinity) {
    uint16_t largest = 0;
    for (int64_t i = 0; i < num; i++) {
        const uint16_t magnitude = bits[i] & 0x7FFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest >= infinity;
}

INLINE int is_bad(int type, const uint8_t *raw, int64_t num) {
    if (type != FLOAT32)
        return reaches((const uint16_t *)raw, num, type == BFLOAT16 ? 0x7F80 : 0x7C00);
    const uint32_t *bits = (const uint32_t *)raw;
    uint32_t largest = 0;
    for (int64_t i = 0; i < num; i++) {
        const uint32_t magnitude = bits[i] & 0x7FFFFFFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest >= 0x7F800000;
}

/* Convert num elements to float32; return whether one of them is NaN or infinite. */
INLINE int to_float(int type, const uint8_t *raw, int64_t num, float *values) {
    if (type == BFLOAT16) {
        uint32_t *bits = (uint32_t *)values;
        const uint16_t *from = (const uint16_t *)raw;
        for (int64_t i = 0; i < num; i++) bits[i] = (uint32_t)from[i] << 16;
#ifdef __FLT16_MAX__
    } else if (type == FLOAT16) {
        const _Float16 *from = (const _Float16 *)raw;
        for (int64_t i = 0; i < num; i++) values[i] = (float)from[i];
#endif
    } else {
        memcpy(values, raw, num * 4);
    }
    return is_bad(type, raw, num);
}

/* Convert num float32 values to a type; return whether one of the results is NaN or infinite. */
INLINE int from_float(int type, const float *values, int64_t num, uint8_t *raw) {
    if (type == BFLOAT16) {
        const uint32_t *bits = (const uint32_t *)values;
        for (int64_t i = 0; i < num; i++) ((uint16_t *)raw)[i] = bfloat16_of(bits[i]);
#ifdef __FLT16_MAX__
    } else if (type == FLOAT16) {
        for (int64_t i = 0; i < num; i++) ((_Float16 *)raw)[i] = (_Float16)values[i];
#endif
    } else {
        memcpy(raw, values, num * 4);
    }
    return is_bad(type, raw, num);
}

/* --- the loop over blocks ---------------------------------------------------------------------- */

/* Tensors are read and written in blocks that stay in a core's cache, and computed in steps of a few
 * arrays that stay next to it. */
typedef struct {
    int64_t elements;
    uint8_t *raw[MAX_INPUTS + 1];
} Blocks;

INLINE Blocks lay_out(const Place *places, int num) {
    Blocks blocks = {.elements = block_elements(places, num)};
    uint8_t *next = workspace;
    for (int i = 0; i < num; i++) {
        blocks.raw[i] = next;
        next += blocks.elements * bytes_of(places[i].type);
    }
    return blocks;
}

INLINE int64_t read_blocks(const Place *places, int num, int64_t at, int64_t n, Blocks *blocks) {
    for (int i = 0; i < num; i++) {
        const int64_t failed = read_block(places[i], at, n, blocks->raw[i]);
        if (failed) return failed;
    }
    return 0;
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* --- linear: also SLERP, passthrough ----------------------------------------------------------- */

/* Write (x0*w0 + x1*w1 + ...) / divisor. places: the inputs, then the output. */
FOR_EACH_CPU
int64_t merge_linear(const Place *places, const float *weights, int num, float divisor,
                     int64_t start, int64_t stop) {
    float value[STEP], total[STEP];
    int64_t bad = 0;
    Blocks blocks = lay_out(places, num + 1);
    for (int64_t at = start; at < stop; at += blocks.elements) {
        const int64_t in_block = least(blocks.elements, stop - at);
        int64_t failed = read_blocks(places, num, at, in_block, &blocks);
        if (failed) return failed;
        for (int64_t from = 0; from < in_block; from += STEP) {
            const int64_t n = least(STEP, in_block - from);
            for (int i = 0; i < num; i++) {
                const float weight = weights[i];
                const uint8_t *raw = blocks.raw[i] + from * bytes_of(places[i].type);
                bad |= (int64_t)to_float(places[i].type, raw, n, value) << i;
                if (i == 0)
                    for (int64_t j = 0; j < n; j++) total[j] = value[j] * weight;
                else
                    for (int64_t j = 0; j < n; j++) total[j] += value[j] * weight;
            }
            if (divisor != 1.0f)
                for (int64_t j = 0; j < n; j++) total[j] /= divisor;
            uint8_t *raw = blocks.raw[num] + from * bytes_of(places[num].type);
            if (from_float(places[num].type, total, n, raw)) bad |= RESULT_OVERFLOW;
        }
        failed = write_block(places[num], at, in_block, blocks.raw[num]);
        if (failed) return failed;
    }
    return bad;
}

/* --- sums over a tensor ------------------------------------------------------------------------ */

/* Sums are made in float64. In a chunk of CHUNK elements, lane j of 64 adds the elements j, 64+j,
 * 128+j, ... in order; then the lanes are folded by halves. A last chunk is padded with zeros. The
 * caller adds the sums of the chunks, in order, with merge_add. */
INLINE double fold(double *lanes) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

double merge_add(const double *sums, int64_t num, int64_t stride) {
    double total = 0.0;
    for (int64_t i = 0; i < num; i++) total += sums[i * stride];
    return total;
}

/* For each chunk: the sums of a*b, a*a, b*b, (a-b)*(a-b), and of 1 where the signs are equal. */
FOR_EACH_CPU
int64_t merge_compare(const Place *places, int64_t start, int64_t stop, int difference,
                      double *sums) {
    float a[CHUNK], b[CHUNK];
    double dot[LANES], aa[LANES], bb[LANES], dd[LANES];
    int64_t bad = 0;
    Blocks blocks = lay_out(places, 2);
    for (int64_t at = start; at < stop; at += blocks.elements) {
        const int64_t in_block = least(blocks.elements, stop - at);
        const int64_t failed = read_blocks(places, 2, at, in_block, &blocks);
        if (failed) return failed;
        for (int64_t from = 0; from < in_block; from += CHUNK, sums += 5) {
            const int64_t n = least(CHUNK, in_block - from);
            const uint8_t *raw_a = blocks.raw[0] + from * bytes_of(places[0].type);
            const uint8_t *raw_b = blocks.raw[1] + from * bytes_of(places[1].type);
            bad |= to_float(places[0].type, raw_a, n, a);
            bad |= to_float(places[1].type, raw_b, n, b) << 1;
            for (int64_t j = n; j < CHUNK; j++) a[j] = b[j] = 0.0f;
            for (int j = 0; j < LANES; j++) dot[j] = aa[j] = bb[j] = dd[j] = 0.0;
            for (int64_t i = 0; i < CHUNK; i += LANES)
                for (int j = 0; j < LANES; j++) {
                    const double x = a[i + j], y = b[i + j];
                    dot[j] += x * y;
                    aa[j] += x * x;
                    bb[j] += y * y;
                }
            sums[0] = fold(dot), sums[1] = fold(aa), sums[2] = fold(bb);
            if (!difference) continue;
            for (int64_t i = 0; i < CHUNK; i += LANES)
                for (int j = 0; j < LANES; j++) {
                    const double d = (double)a[i + j] - (double)b[i + j];
                    dd[j] += d * d;
                }
            int same = 0;
            for (int64_t j = 0; j < n; j++)
                same += ((a[j] > 0) - (a[j] < 0)) == ((b[j] > 0) - (b[j] < 0));
            sums[3] = fold(dd), sums[4] = same;
        }
    }
    return bad;
}

/* --- task vectors ------------------------------------------------------------------------------ */

/* Count the magnitudes of model - base by their bits, which order as the magnitudes do: how many
 * are at or above `high`, and how many there are of each from `low` up to it. places: base, model.
 * Only chunks at a multiple of `every` are looked at, which is how a sample is taken; `shift` drops
 * bits on the right before counting. */
FOR_EACH_CPU
int64_t merge_count(const Place *places, int64_t start, int64_t stop, int64_t every, int shift,
                    uint32_t low, uint32_t high, int64_t *num_above, uint32_t *counts) {
    float base[STEP], value[STEP];
    uint32_t inside[STEP];
    int64_t bad = 0, above = 0;
    Blocks blocks = lay_out(places, 2);
    if (every > 1) blocks.elements = CHUNK;
    const int64_t stride = blocks.elements * every;
    for (int64_t at = start; at < stop; at += stride) {
        const int64_t in_block = least(blocks.elements, stop - at);
        const int64_t failed = read_blocks(places, 2, at, in_block, &blocks);
        if (failed) return failed;
        for (int64_t from = 0; from < in_block; from += STEP) {
            const int64_t n = least(STEP, in_block - from);
            const uint8_t *raw_base = blocks.raw[0] + from * bytes_of(places[0].type);
            const uint8_t *raw_value = blocks.raw[1] + from * bytes_of(places[1].type);
            bad |= to_float(places[0].type, raw_base, n, base);
            bad |= to_float(places[1].type, raw_value, n, value) << 1;
            uint32_t *bits = (uint32_t *)value;
            for (int64_t j = 0; j < n; j++) value[j] = value[j] - base[j];
            for (int64_t j = 0; j < n; j++) bits[j] = (bits[j] & 0x7FFFFFFF) >> shift;
            int32_t more = 0;
            for (int64_t j = 0; j < n; j++) more += bits[j] >= high;
            above += more;
            int64_t num_inside = 0;
            for (int64_t j = 0; j < n; j++) {
                inside[num_inside] = bits[j] - low;
                num_inside += bits[j] - low < high - low;
            }
            for (int64_t j = 0; j < num_inside; j++) counts[inside[j]]++;
        }
    }
    *num_above += above;
    return bad;
}

/* Of counts by size, in several parts that belong together, find the element that is `rank`-th
 * from the top (1: the largest): its index, and in *left its rank among those of that index.
 * -1: there are fewer, and *left says how many. */
int64_t merge_rank(const uint32_t *counts, int parts, int64_t size, int64_t rank, int64_t *left) {
    int64_t above = 0;
    for (int64_t i = size - 1; i >= 0; i--) {
        int64_t here = 0;
        for (int part = 0; part < parts; part++) here += counts[part * size + i];
        if (above + here >= rank) {
            *left = rank - above;
            return i;
        }
        above += here;
    }
    *left = above;
    return -1;
}

/* Zero what a share drops of its task vector v (STEP elements from index `at` at most). */
INLINE void sparsify(Share *share, int64_t at, int64_t n, float *v) {
    if (share->sparsity == KEEP_RANDOM) { /* SplitMix64, as in dropping.py; `at` is even */
        uint64_t words[STEP / 2];
        const uint64_t first = share->key + ((uint64_t)at / 2 + 1) * 0x9E3779B97F4A7C15u;
        for (int64_t j = 0; j < STEP / 2; j++) {
            uint64_t z = first + (uint64_t)j * 0x9E3779B97F4A7C15u;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
            words[j] = z ^ (z >> 31);
        }
        const uint32_t *numbers = (const uint32_t *)words, below = share->keep_below;
        for (int64_t j = 0; j < n; j++) v[j] = numbers[j] < below ? v[j] : 0.0f;
    } else if (share->sparsity == KEEP_LARGEST) {
        const float threshold = share->threshold;
        int32_t num_equal = 0;
        for (int64_t j = 0; j < n; j++) num_equal += fabsf(v[j]) == threshold;
        if (num_equal <= share->num_equal) {
            for (int64_t j = 0; j < n; j++) v[j] = fabsf(v[j]) >= threshold ? v[j] : 0.0f;
            share->num_equal -= num_equal;
        } else if (share->num_equal == 0) {
            for (int64_t j = 0; j < n; j++) v[j] = fabsf(v[j]) > threshold ? v[j] : 0.0f;
        } else { /* the first of the equal ones are kept */
            for (int64_t j = 0; j < n; j++) {
                const int equal = fabsf(v[j]) == threshold && share->num_equal > 0;
                share->num_equal -= equal;
                v[j] = fabsf(v[j]) > threshold || equal ? v[j] : 0.0f;
            }
        }
    }
    if (share->factor != 1.0f)
        for (int64_t j = 0; j < n; j++) v[j] *= share->factor;
}

/* For each chunk: the sums of the magnitudes of a task vector, whole and sparse. */
FOR_EACH_CPU
int64_t merge_magnitudes(Place base_place, const Share *given, int64_t start, int64_t stop,
                         double *sums) {
    float base[CHUNK], value[CHUNK];
    double lanes[LANES];
    Share share = *given;
    const Place places[2] = {base_place, share.place};
    int64_t bad = 0;
    Blocks blocks = lay_out(places, 2);
    for (int64_t at = start; at < stop; at += blocks.elements) {
        const int64_t in_block = least(blocks.elements, stop - at);
        const int64_t failed = read_blocks(places, 2, at, in_block, &blocks);
        if (failed) return failed;
        for (int64_t from = 0; from < in_block; from += CHUNK, sums += 2) {
            const int64_t n = least(CHUNK, in_block - from);
            const uint8_t *raw_base = blocks.raw[0] + from * bytes_of(places[0].type);
            const uint8_t *raw_value = blocks.raw[1] + from * bytes_of(places[1].type);
            bad |= to_float(places[0].type, raw_base, n, base);
            bad |= to_float(places[1].type, raw_value, n, value) << 1;
            for (int64_t j = 0; j < n; j++) value[j] = value[j] - base[j];
            for (int64_t j = n; j < CHUNK; j++) value[j] = 0.0f;
            for (int which = 0; which < 2; which++) {
                if (which == 1)
                    for (int64_t i = 0; i < n; i += STEP)
                        sparsify(&share, at + from + i, least(STEP, n - i), value + i);
                for (int j = 0; j < LANES; j++) lanes[j] = 0.0;
                for (int64_t i = 0; i < CHUNK; i += LANES)
                    for (int j = 0; j < LANES; j++) lanes[j] += fabsf(value[i + j]);
                sums[which] = fold(lanes);
            }
        }
    }
    return bad;
}

/* Add up vectors (num_shares times STEP) in order. */
INLINE void plain_sum(const float *vectors, int num_shares, int64_t n, float *total) {
    memcpy(total, vectors, n * sizeof(float));
    for (int i = 1; i < num_shares; i++)
        for (int64_t j = 0; j < n; j++) total[j] += vectors[i * STEP + j];
}

/* Add up, element by element, the vectors that have the sign of the sum of all; zero is positive. */
INLINE void elected_sum(const float *vectors, const Share *shares, int num_shares, int normalize,
                        int64_t n, float *total) {
    float sum[STEP], divisor[STEP];
    plain_sum(vectors, num_shares, n, sum);
    for (int i = 0; i < num_shares; i++) {
        const float *v = vectors + i * STEP, weight = shares[i].weight;
        for (int64_t j = 0; j < n; j++) {
            const int agrees = sum[j] >= 0.0f ? v[j] > 0.0f : v[j] < 0.0f;
            const float part = agrees ? v[j] : 0.0f, share = agrees ? weight : 0.0f;
            total[j] = i ? total[j] + part : part;
            divisor[j] = i ? divisor[j] + share : share;
        }
    }
    if (!normalize) return;
    for (int64_t j = 0; j < n; j++)
        total[j] /= fabsf(divisor[j]) >= TINY ? divisor[j] : 1.0f;
}

/* Write base + scale * (sum of weight * sparse task vector) / divisor. places: base, the models in
 * the order of the shares, output. An elected sum has its own divisor for each element. */
FOR_EACH_CPU
int64_t merge_task_vectors(const Place *places, const Share *given, int num_shares, int elect,
                           int normalize, float divisor, float scale, int64_t start,
                           int64_t stop) {
    static _Thread_local _Alignas(64) float vectors[MAX_INPUTS * STEP];
    float base[STEP], total[STEP];
    Share shares[MAX_INPUTS];
    int64_t bad = 0;
    const int num = num_shares + 1; /* with the base; also the index of the output */
    memcpy(shares, given, num_shares * sizeof(Share));
    Blocks blocks = lay_out(places, num + 1);
    for (int64_t at = start; at < stop; at += blocks.elements) {
        const int64_t in_block = least(blocks.elements, stop - at);
        int64_t failed = read_blocks(places, num, at, in_block, &blocks);
        if (failed) return failed;
        for (int64_t from = 0; from < in_block; from += STEP) {
            const int64_t n = least(STEP, in_block - from);
            const uint8_t *raw_base = blocks.raw[0] + from * bytes_of(places[0].type);
            bad |= to_float(places[0].type, raw_base, n, base);
            for (int i = 0; i < num_shares; i++) {
                float *v = vectors + i * STEP;
                const uint8_t *raw = blocks.raw[i + 1] + from * bytes_of(places[i + 1].type);
                bad |= (int64_t)to_float(places[i + 1].type, raw, n, v) << (i + 1);
                for (int64_t j = 0; j < n; j++) v[j] = v[j] - base[j];
                sparsify(&shares[i], at + from, n, v);
                const float weight = shares[i].weight;
                for (int64_t j = 0; j < n; j++) v[j] *= weight;
            }
            if (elect) {
                elected_sum(vectors, shares, num_shares, normalize, n, total);
            } else {
                plain_sum(vectors, num_shares, n, total);
                if (normalize)
                    for (int64_t j = 0; j < n; j++) total[j] /= divisor;
            }
            for (int64_t j = 0; j < n; j++) total[j] = base[j] + total[j] * scale;
            uint8_t *out = blocks.raw[num] + from * bytes_of(places[num].type);
            if (from_float(places[num].type, total, n, out)) bad |= RESULT_OVERFLOW;
        }
        failed = write_block(places[num], at, in_block, blocks.raw[num]);
        if (failed) return failed;
    }
    return bad;
}
