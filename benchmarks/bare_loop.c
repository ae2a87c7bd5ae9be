/* The bound for merging: read two tensors' worth of bytes, one fused operation, write the result.
 *
 *     bare_loop OUT THREADS A B      (A, B: lists of files of equal sizes, separated by commas)
 *
 * No headers, no checks, no names: every file is taken for bfloat16 numbers from end to end, and
 * OUT/0, OUT/1, ... are a + t * (b - a). Threads take a file's blocks in turn.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 18 };
static int a, b, out, threads;
static int64_t elements;

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
static void lerp(const uint16_t *x, const uint16_t *y, uint16_t *z, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        union { uint32_t bits; float value; } p = {(uint32_t)x[i] << 16}, q = {(uint32_t)y[i] << 16};
        p.value += 0.3f * (q.value - p.value);
        z[i] = (p.bits + 0x7FFF + (p.bits >> 16 & 1)) >> 16;
    }
}

static void *work(void *argument) {
    uint16_t *x = aligned_alloc(64, 3 * BLOCK * 2), *y = x + BLOCK, *z = y + BLOCK;
    for (int64_t at = (intptr_t)argument * BLOCK; at < elements; at += (int64_t)threads * BLOCK) {
        const int64_t n = elements - at < BLOCK ? elements - at : BLOCK;
        if (pread(a, x, n * 2, at * 2) != n * 2 || pread(b, y, n * 2, at * 2) != n * 2) exit(1);
        lerp(x, y, z, n);
        if (pwrite(out, z, n * 2, at * 2) != n * 2) exit(1);
    }
    free(x);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    char *left_a, *left_b, name[4096];
    char *file_a = strtok_r(argv[3], ",", &left_a), *file_b = strtok_r(argv[4], ",", &left_b);
    threads = atoi(argv[2]);
    for (int file = 0; file_a; file++) {
        struct stat facts;
        snprintf(name, sizeof name, "%s/%d", argv[1], file);
        a = open(file_a, O_RDONLY), b = open(file_b, O_RDONLY);
        out = open(name, O_RDWR | O_CREAT | O_TRUNC, 0666);
        if (a < 0 || b < 0 || out < 0 || fstat(a, &facts)) return 1;
        elements = facts.st_size / 2;
        if (ftruncate(out, elements * 2)) return 1;
        pthread_t running[64];
        for (intptr_t i = 0; i < threads; i++) pthread_create(&running[i], NULL, work, (void *)i);
        for (int i = 0; i < threads; i++) pthread_join(running[i], NULL);
        close(a), close(b), close(out);
        file_a = strtok_r(NULL, ",", &left_a), file_b = strtok_r(NULL, ",", &left_b);
    }
    return 0;
}
