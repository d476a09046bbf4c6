/* How numbers are spread: what a mean does not say. */
#ifndef EVAL_SPREAD_H
#define EVAL_SPREAD_H

#include <stdint.h>

/* The value that a share of the numbers is below, and where it lies with 95 % confidence if they are independent. */
struct quantile {
    double share, value, low, high;
};

/* Sorts n numbers, smallest first; NaN is larger than any. */
void spread_sort(float *x, uint64_t n);
/* Of sorted numbers, n > 0: between two neighbours linearly, as llama-perplexity and NumPy have it. low and high: the numbers whose
 * ranks are 1.96 standard deviations of Binomial(n, share) away, within the n. */
struct quantile spread_quantile(const float *sorted, uint64_t n, double share);

/* Sums of numbers as they come. */
struct moments {
    double sum, squares;
    uint64_t n;
};
void moments_add(struct moments *m, double x);
double moments_mean(const struct moments *m);
/* Of the mean, if the numbers are independent; 0 of a single one. */
double moments_error(const struct moments *m);

#endif
