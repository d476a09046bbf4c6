/* The yardstick of scripts/bench-gemm.sh: OpenBLAS's sgemm on the product that `gsq bench` measures, best of
 * some runs. Prints GFLOP/s. Link with -lopenblas; OPENBLAS_NUM_THREADS=1 for one thread. */
#define _POSIX_C_SOURCE 199309L
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N = 1024, RUNS = 10 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(void)
{
    float *x = malloc(3 * (size_t)N * N * sizeof *x);
    double best = 1e30;
    if (!x)
        return 1;
    for (size_t i = 0; i < 3 * (size_t)N * N; i++)
        x[i] = (float)(i % 17) * 0.125f - 1;
    for (int run = 0; run < RUNS; run++) {
        double start = now();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, N, N, N, 1, x, N, x + N * N, N, 0, x + 2 * N * N, N);
        double t = now() - start;
        best = t < best ? t : best;
    }
    printf("%.2f\n", 2e-9 * N * N * N / best);
    free(x);
    return 0;
}
