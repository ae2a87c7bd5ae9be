/* What C files for processors with matrix units (AMX) share; HAS_MATRIX_UNITS, where it can be built. */
#include <stdint.h>

typedef uint16_t bfloat16;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#define HAS_MATRIX_UNITS
#include <cpuid.h>
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TARGET __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512bf16")))
#define INLINE static inline __attribute__((always_inline)) TARGET
/* gcc is not told that loading tiles reads memory: what is to be read is written by here. */
#define WRITTEN __asm__ volatile("" ::: "memory")

enum { ROWS = 16, PAIRS = 32 }; /* a tile is 16 rows of 16 floats or 32 bfloat16 */

/* Whether this processor can, and the system lets this process. */
static int matrix_units_are_possible(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return 0;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512bf16"))
        return 0;
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) Tiles;

/* Take all 8 tiles, the first `num_short` of them with fewer rows, and note how they were.
 * gcc believes that only eight bytes of a set-up are read or written: it is told of all. */
INLINE void take_tiles(Tiles *before, int num_short, int64_t rows) {
    Tiles own = {.palette = 1};
    for (int tile = 0; tile < 8; tile++)
        own.row_bytes[tile] = 64, own.rows[tile] = tile < num_short && rows < ROWS ? (uint8_t)rows : ROWS;
    _tile_storeconfig(before);
    __asm__ volatile("" : "+m"(*before) : "m"(own));
    _tile_loadconfig(&own);
}

INLINE void give_back_tiles(const Tiles *before) {
    __asm__ volatile("" ::"m"(*before));
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}
#endif
