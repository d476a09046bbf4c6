#include "host/gpu/gpu_cost.h"

#include <math.h>

/* Part of a dispatch's time that does not depend on its work. */
#define DISPATCH_NS 10e3
/* Before anything is measured: work per second of a slow device, taking the unit for a floating-point
 * operation. */
#define GUESS_CPU 2e9
#define GUESS_GPU 20e9

double gpu_cost_ns_per_work(const struct gpu *g, const struct gpu_kernel *k)
{
    return k && k->ns_per_work > 0 ? k->ns_per_work : 1e9 / (g->probe.info.caps & GPU_CAP_CPU ? GUESS_CPU : GUESS_GPU);
}

double gpu_cost_predict(const struct gpu *g, const struct gpu_kernel *k, double work)
{
    return DISPATCH_NS + work * gpu_cost_ns_per_work(g, k);
}

void gpu_cost_clear(struct gpu_cost *c)
{
    c->predicted_ns = c->transfer_ns = c->transfer_bytes = 0;
    c->n = 0;
}

bool gpu_cost_full(const struct gpu_cost *c)
{
    return c->n == sizeof c->kernels / sizeof c->kernels[0];
}

void gpu_cost_add(struct gpu_cost *c, struct gpu_kernel *k, double work, double ns)
{
    unsigned i = 0;
    while (i < c->n && c->kernels[i].kernel != k)
        i++;
    if (i == c->n) {
        c->kernels[i].kernel = k;
        c->kernels[i].dispatches = 0;
        c->kernels[i].work = c->kernels[i].ns = 0;
        c->n++;
    }
    c->kernels[i].dispatches++;
    c->kernels[i].work += work;
    c->kernels[i].ns += ns;
    c->predicted_ns += ns;
}

void gpu_cost_add_transfer(struct gpu_cost *c, double bytes, double ns_per_byte)
{
    c->transfer_bytes += bytes;
    c->transfer_ns += bytes * ns_per_byte;
    c->predicted_ns += bytes * ns_per_byte;
}

double gpu_cost_work(const struct gpu_cost *c, unsigned kernel)
{
    double work = 0;
    for (unsigned i = 0; i < c->n; i++)
        if (c->kernels[i].kernel->variant->kernel == kernel)
            work += c->kernels[i].work;
    return work;
}

/* The part of a measured time that grows with the work. */
static double ns_per_work(double ns, double dispatches, double work)
{
    return fmax(ns - dispatches * DISPATCH_NS, ns / 4) / work;
}

/* Moves a rate towards what a submission says of it: halfway where it made up the whole of it. Several
 * submissions are predicted before the first is measured, so the measured rate counts, not a correction of
 * the present one. */
static double blend(double rate, double measured, double share)
{
    return rate * pow(measured / rate, share / 2);
}

void gpu_cost_learn(const struct gpu_cost *c, double ns, double *ns_per_byte)
{
    if (!(ns > 0) || !(c->predicted_ns > 0))
        return;
    double ratio = fmin(fmax(ns / c->predicted_ns, 1e-4), 1e4);
    for (unsigned i = 0; i < c->n; i++) {
        struct gpu_kernel *k = c->kernels[i].kernel;
        double rate = ns_per_work(c->kernels[i].ns * ratio, c->kernels[i].dispatches, c->kernels[i].work);
        if (k->ns_per_work > 0)
            k->ns_per_work = blend(k->ns_per_work, rate, c->kernels[i].ns / c->predicted_ns);
        else /* measured alone */
            k->ns_per_work = rate;
    }
    if (c->transfer_bytes > 0)
        *ns_per_byte =
            blend(*ns_per_byte, c->transfer_ns * ratio / c->transfer_bytes, c->transfer_ns / c->predicted_ns);
}

void gpu_cost_learn_one(struct gpu_kernel *k, double ns, double work)
{
    if (ns > 0)
        k->ns_per_work = ns_per_work(ns, 1, work);
}
