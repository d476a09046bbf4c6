/* The kernels of the backward pass: the references against differences of the forward pass, then every
 * variant that the device runs, on odd shapes, against the references. */
#include <float.h>

#include "host/base/num.h"
#include "host/quant/qkernels.h"
#include "tests/kernel_buffers.h"
#include "tests/ref/ref_backward.h"

static uint64_t random_state = 1;

static float *random_vector(size_t n, float size)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * test_normal(&random_state);
    return x;
}

static struct buffer upload_rounded(const double *x, size_t n)
{
    float *f = malloc(n * sizeof *f);
    assert_non_null(f);
    for (size_t i = 0; i < n; i++)
        f[i] = (float)x[i];
    struct buffer b = buffer_make(n, f);
    free(f);
    return b;
}

/* ---- the references against central differences of the forward ones ---- */

/* References take floats: inputs that are multiples of 2^-8 and steps of 2^-12 are exact. */
static const float step = 1.0f / 4096;

static float *random_grid(size_t n, float size)
{
    float *x = random_vector(n, size);
    for (size_t i = 0; i < n; i++)
        x[i] = roundf(x[i] * 256) / 256;
    return x;
}

/* want[n] against differences of loss(ctx), which looks at x[n]. */
static void differences(double (*loss)(void *ctx), void *ctx, float *x, size_t n, const double *want)
{
    double size = 0;
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs(want[i]));
    for (size_t i = 0; i < n; i++) {
        float was = x[i];
        x[i] = was + step;
        double up = loss(ctx);
        x[i] = was - step;
        double down = loss(ctx);
        x[i] = was;
        double slope = (up - down) / (2 * (double)step);
        if (!(fabs(slope - want[i]) <= 1e-5 * fabs(want[i]) + 1e-6 * size))
            fail_msg("element %zu of %zu: %.9g, differences say %.9g", i, n, want[i], slope);
    }
}

enum { REF_COLS = 23 };

struct rmsnorm_case {
    float *x, *w, *dy;
};

static double rmsnorm_loss(void *ctx)
{
    const struct rmsnorm_case *c = ctx;
    double y[REF_COLS], loss = 0;
    ref_rmsnorm(c->x, c->w, REF_COLS, 0.125, y);
    for (uint32_t i = 0; i < REF_COLS; i++)
        loss += c->dy[i] * y[i];
    return loss;
}

static void test_rmsnorm_reference(void **state)
{
    (void)state;
    struct rmsnorm_case c = {random_grid(REF_COLS, 1), random_vector(REF_COLS, 1),
                             random_vector(REF_COLS, 1)};
    double dx[REF_COLS], mag[REF_COLS];
    ref_rmsnorm_bwd(c.x, c.w, c.dy, REF_COLS, 0.125, dx, mag);
    differences(rmsnorm_loss, &c, c.x, REF_COLS, dx);
    free(c.x);
    free(c.w);
    free(c.dy);
}

struct swiglu_case {
    float gate, up, dact;
};

static double swiglu_loss(void *ctx)
{
    const struct swiglu_case *c = ctx;
    return c->dact * ref_swiglu(c->gate, c->up);
}

static void test_swiglu_reference(void **state)
{
    (void)state;
    for (float gate = -9; gate <= 9; gate += 0.75f) {
        struct swiglu_case c = {gate, -1.5f, 0.7f};
        struct ref_swiglu_bwd want = ref_swiglu_bwd(c.gate, c.up, c.dact);
        differences(swiglu_loss, &c, &c.gate, 1, &want.dgate);
        differences(swiglu_loss, &c, &c.up, 1, &want.dup);
    }
}

struct kl_case {
    float *ref, *logits;
};

static double kl_loss(void *ctx)
{
    const struct kl_case *c = ctx;
    return 2.5 * ref_kl(c->ref, c->logits, REF_COLS);
}

static void test_kl_reference(void **state)
{
    (void)state;
    struct kl_case c = {random_vector(REF_COLS, 2), random_grid(REF_COLS, 2)};
    double want[REF_COLS], mag[REF_COLS];
    ref_kl_bwd(c.ref, c.logits, REF_COLS, 2.5, want, mag);
    differences(kl_loss, &c, c.logits, REF_COLS, want);
    free(c.ref);
    free(c.logits);
}

/* ---- rows and elements ---- */

static const uint32_t row_counts[] = {1, 7, 33};
static const uint32_t col_counts[] = {1, 3, 5, 64, 172, 300};
enum { N_ROWS = sizeof row_counts / sizeof *row_counts, N_COLS = sizeof col_counts / sizeof *col_counts };

/* Shape i of N_ROWS * N_COLS. */
static size_t matrix_shape(unsigned i, uint32_t *rows, uint32_t *cols, char name[64])
{
    *rows = row_counts[i / N_COLS];
    *cols = col_counts[i % N_COLS];
    snprintf(name, 64, "%ux%u", *rows, *cols);
    return (size_t)*rows * *cols;
}

static double *doubles(size_t n)
{
    double *x = malloc(n * sizeof *x);
    assert_non_null(x);
    return x;
}

static void rmsnorm_bwd(void)
{
    for (unsigned s = 0; s < N_ROWS * N_COLS; s++) {
        uint32_t rows, cols;
        char shape[64];
        size_t n = matrix_shape(s, &rows, &cols, shape);
        const float eps = 1e-5f;
        float *x0 = random_vector(n, 3), *w0 = random_vector(cols, 1), *dy0 = random_vector(n, 0.1f);
        double *want = doubles(n), *mag = doubles(n);
        for (size_t at = 0; at < n; at += cols)
            ref_rmsnorm_bwd(x0 + at, w0, dy0 + at, cols, eps, want + at, mag + at);
        struct buffer x = buffer_make(n, x0), w = buffer_make(cols, w0), dy = buffer_make(n, dy0),
                      dx = buffer_make(n, NULL);
        struct rmsnorm_bwd_args a = {
            .x = x.view, .w = w.view, .dy = dy.view, .dx = dx.view, .rows = rows, .cols = cols, .eps = eps};
        run_rmsnorm_bwd(cmd, gpu_rows(rows), &a);
        a.dx = dy.view;
        run_rmsnorm_bwd(cmd, gpu_rows(rows), &a);
        float *got = buffer_read(&dx), *same = buffer_read(&dy);
        for (size_t i = 0; i < n; i++) {
            check(KERNEL_ID_rmsnorm_bwd, shape, i, got[i], want[i], (cols + 32) * FLT_EPSILON * mag[i]);
            check(KERNEL_ID_rmsnorm_bwd, "in place", i, same[i], got[i], 0);
        }
        free(x0);
        free(w0);
        free(dy0);
        free(want);
        free(mag);
        free(got);
        free(same);
        buffers_reset();
    }
}

/* What overlaps what: dgate is a buffer of its own, gate or dact; dup is one of its own or up. */
static void swiglu_bwd_case(uint32_t n, unsigned gate_is, bool up_is)
{
    char shape[64];
    snprintf(shape, sizeof shape, "%u, dgate %u, dup %d", n, gate_is, up_is);
    float *g0 = random_vector(n, 10), *u0 = random_vector(n, 1), *d0 = random_vector(n, 1);
    struct buffer g = buffer_make(n, g0), u = buffer_make(n, u0), d = buffer_make(n, d0);
    struct buffer dg = gate_is == 0 ? buffer_make(n, NULL) : gate_is == 1 ? g : d;
    struct buffer du = up_is ? u : buffer_make(n, NULL);
    run_swiglu_bwd(
        cmd, gpu_items(cmd, KERNEL_ID_swiglu_bwd, n),
        &(struct swiglu_bwd_args){
            .gate = g.view, .up = u.view, .dact = d.view, .dgate = dg.view, .dup = du.view, .n = n});
    float *dgate = buffer_read(&dg), *dup = buffer_read(&du);
    for (size_t i = 0; i < n; i++) {
        struct ref_swiglu_bwd want = ref_swiglu_bwd(g0[i], u0[i], d0[i]);
        double relative = (16 + 2 * fabs(g0[i])) * FLT_EPSILON;
        check(KERNEL_ID_swiglu_bwd, shape, i, dgate[i], want.dgate, relative * want.gate_mag + 1e-30);
        check(KERNEL_ID_swiglu_bwd, shape, i, dup[i], want.dup, relative * want.up_mag + 1e-30);
    }
    free(g0);
    free(u0);
    free(d0);
    free(dgate);
    free(dup);
    buffers_reset();
}

static const uint32_t sizes[] = {1, 3, 64, 172, 1001};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void swiglu_bwd(void)
{
    for (unsigned s = 0; s < N_SIZES; s++)
        for (unsigned i = 0; i < 6; i++)
            swiglu_bwd_case(sizes[s], i % 3, i >= 3);
}

static void kl_bwd(void)
{
    for (unsigned s = 0; s < N_ROWS * N_COLS; s++) {
        uint32_t rows, cols;
        char shape[64];
        size_t n = matrix_shape(s, &rows, &cols, shape);
        const float factor = 0.3f;
        float *p0 = random_vector(n, 3), *q0 = random_vector(n, 1);
        for (size_t i = 0; i < n; i++) {
            p0[i] += 100; /* only differences count */
            q0[i] += p0[i];
        }
        memcpy(q0, p0, cols * sizeof *q0); /* row 0 is equal: exactly 0 */
        double *want = doubles(n), *mag = doubles(n);
        for (size_t at = 0; at < n; at += cols)
            ref_kl_bwd(p0 + at, q0 + at, cols, factor, want + at, mag + at);
        struct buffer p = buffer_make(n, p0), q = buffer_make(n, q0), d = buffer_make(n, NULL);
        struct kl_bwd_args a = {
            .ref = p.view, .logits = q.view, .dlogits = d.view, .rows = rows, .cols = cols, .factor = factor};
        run_kl_bwd(cmd, gpu_rows(rows), &a);
        a.dlogits = q.view;
        run_kl_bwd(cmd, gpu_rows(rows), &a);
        float *got = buffer_read(&d), *same = buffer_read(&q);
        for (size_t i = 0; i < n; i++) {
            /* A sum of cols terms, each exp good to 3 + 2|x| ulp (Vulkan's bound) of x down to -30. */
            double relative = i < cols ? 0 : (cols + 4 * 30 + 32) * FLT_EPSILON;
            check(KERNEL_ID_kl_bwd, shape, i, got[i], want[i], relative * mag[i]);
            check(KERNEL_ID_kl_bwd, "in place", i, same[i], got[i], 0);
        }
        free(p0);
        free(q0);
        free(want);
        free(mag);
        free(got);
        free(same);
        buffers_reset();
    }
}

static void reduce_sum(void)
{
    static const uint32_t lengths[] = {1, 3, 5, 127, 129, 1000, 100003, 5000001};
    for (size_t s = 0; s < sizeof lengths / sizeof *lengths; s++) {
        uint32_t n = lengths[s];
        char shape[64];
        snprintf(shape, sizeof shape, "%u", n);
        float *x0 = random_vector(n, 1), out0[5] = {1, 2, 3, 4, 5};
        double sum = 0, mag = 0;
        for (size_t i = 0; i < n; i++) {
            if (n > 1000)
                x0[i] = 0.1f; /* equal numbers: what additions lose does not cancel */
            sum += x0[i];
            mag += fabs(x0[i]);
        }
        struct buffer x = buffer_make(n, x0), out = buffer_make(5, out0);
        run_reduce_sum(
            cmd, gpu_rows(1),
            &(struct reduce_sum_args){.x = x.view, .result = out.view, .n = n, .at = 3, .factor = -0.5f});
        float *got = buffer_read(&out);
        for (size_t i = 0; i < 5; i++)
            check(KERNEL_ID_reduce_sum, shape, i, got[i], i == 3 ? 4 - 0.5 * sum : out0[i],
                  i == 3 ? FLT_EPSILON * (4 + 6 * mag) : 0);
        free(x0);
        free(got);
        buffers_reset();
    }
}

/* ---- scales ---- */

static void scale_grad(void)
{
    static const uint32_t group_sizes[] = {1, 3, 4, 32, 64, 300};
    enum { N_GROUPS = sizeof group_sizes / sizeof *group_sizes };
    for (unsigned k = 0; k < 2 * N_ROWS * N_COLS * N_GROUPS; k++) {
        unsigned s = k / 2, offsets = k % 2, planes = 1 + offsets;
        uint32_t rows, cols, group = group_sizes[s % N_GROUPS];
        char shape[64];
        size_t n = matrix_shape(s / N_GROUPS, &rows, &cols, shape);
        if (group > cols && group != 300) /* one that is larger will do */
            continue;
        snprintf(shape, sizeof shape, "%ux%u, groups of %u%s", rows, cols, group, offsets ? ", offsets" : "");
        uint32_t groups = (uint32_t)div_up(cols, group), ldc = (uint32_t)div_up(cols, 4);
        size_t n_scales = (size_t)rows * planes * groups, n_codes = (size_t)rows * ldc;
        float *grad0 = random_vector(n, 1), *out0 = random_vector(n_scales, 1);
        int8_t *codes0 = malloc(n_codes * 4);
        double *want = doubles(n_scales), *mag = doubles(n_scales);
        assert_non_null(codes0);
        for (size_t i = 0; i < n_codes * 4; i++) /* pads, too: they must not count */
            codes0[i] = (int8_t)(test_random(&random_state) & 0xff);
        for (size_t i = 0; i < n_scales; i++) {
            want[i] = out0[i];
            mag[i] = fabs(out0[i]);
        }
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < cols; c++) {
                size_t at = (size_t)r * planes * groups + c / group;
                double g = grad0[(size_t)r * cols + c], p = g * codes0[(size_t)r * ldc * 4 + c];
                want[at] += p;
                mag[at] += fabs(p);
                if (offsets) {
                    want[at + groups] += g;
                    mag[at + groups] += fabs(g);
                }
            }
        struct buffer grad = buffer_make(n, grad0), codes = buffer_make(n_codes, codes0),
                      out = buffer_make(n_scales, out0);
        q_scale_grad(cmd, &(struct scale_grad_args){.grad = grad.view,
                                                    .codes = codes.view,
                                                    .dscales = out.view,
                                                    .rows = rows,
                                                    .cols = cols,
                                                    .group = group,
                                                    .groups = groups,
                                                    .ldc = ldc,
                                                    .offsets = offsets});
        float *got = buffer_read(&out);
        for (size_t i = 0; i < n_scales; i++)
            check(KERNEL_ID_scale_grad, shape, i, got[i], want[i], (group + 4) * FLT_EPSILON / 2 * mag[i]);
        free(grad0);
        free(out0);
        free(codes0);
        free(want);
        free(mag);
        free(got);
        buffers_reset();
    }
}

static void adam_step(void)
{
    const struct ref_adam_rates r = {0.01f, 0.9f, 0.99f, 1 / (1 - 0.81f), 1 / (1 - 0.9801f), 1e-8f, 0.1f};
    for (unsigned s = 0; s < N_SIZES; s++) {
        uint32_t n = sizes[s];
        char shape[64];
        snprintf(shape, sizeof shape, "%u", n);
        float *param0 = random_vector(n, 1), *m0 = random_vector(n, 0.1f), *v0 = random_vector(n, 0.1f),
              *grad0 = random_vector(n, 0.1f), *size0 = random_vector(n, 1);
        for (size_t i = 0; i < n; i++) {
            size0[i] = fabsf(size0[i]);
            v0[i] *= v0[i];
        }
        m0[0] = v0[0] = grad0[0] = 0; /* a scale that nothing depends on: only eps is there to divide by */
        struct buffer param = buffer_make(n, param0), m = buffer_make(n, m0), v = buffer_make(n, v0),
                      grad = buffer_make(n, grad0), size = buffer_make(n, size0);
        q_adam_step(cmd, &(struct adam_step_args){.param = param.view,
                                                  .m = m.view,
                                                  .v = v.view,
                                                  .grad = grad.view,
                                                  .size = size.view,
                                                  .n = n,
                                                  .lr = (float)r.lr,
                                                  .beta1 = (float)r.beta1,
                                                  .beta2 = (float)r.beta2,
                                                  .correct1 = (float)r.correct1,
                                                  .correct2 = (float)r.correct2,
                                                  .eps = (float)r.eps,
                                                  .decay = (float)r.decay});
        float *got_param = buffer_read(&param), *got_m = buffer_read(&m), *got_v = buffer_read(&v);
        for (size_t i = 0; i < n; i++) {
            struct ref_adam want = {param0[i], m0[i], v0[i]};
            ref_adam_step(&want, grad0[i], size0[i], &r);
            /* m may cancel; what is left of it is divided by a root that does not. */
            double m_error = 4 * FLT_EPSILON * (fabs(m0[i]) + fabs(grad0[i])),
                   root = sqrt(want.v * r.correct2);
            double moved = fabs(want.param - param0[i]);
            check(KERNEL_ID_adam_step, shape, i, got_m[i], want.m, m_error);
            check(KERNEL_ID_adam_step, shape, i, got_v[i], want.v, 8 * FLT_EPSILON * want.v);
            check(KERNEL_ID_adam_step, shape, i, got_param[i], want.param,
                  2 * FLT_EPSILON * fabs(want.param) + 32 * FLT_EPSILON * moved +
                      r.lr * size0[i] * r.correct1 * m_error / (root + r.eps));
        }
        free(param0);
        free(m0);
        free(v0);
        free(grad0);
        free(size0);
        free(got_param);
        free(got_m);
        free(got_v);
        buffers_reset();
    }
}

/* ---- attention
 * ------------------------------------------------------------------------------------------------- */

/* What one shape needs; filled with random numbers by attn_case_make. */
struct attn_case {
    const struct ref_attn *p;
    char name[96];
    size_t n, nq, nk; /* elements of lse; of q; of k */
    float *q, *k, *v, *dout;
    struct ref_attn_bwd want;
};

static void attn_case_make(struct attn_case *c, const struct ref_attn *p,
                           float *(*random)(size_t n, float size))
{
    size_t rows = (size_t)p->windows * p->ctx;
    *c = (struct attn_case){
        .p = p, .n = rows * p->heads, .nq = rows * p->heads * p->dim, .nk = rows * p->kv_heads * p->dim};
    snprintf(c->name, sizeof c->name, "windows %u ctx %u heads %u/%u dim %u sliding %u", p->windows, p->ctx,
             p->heads, p->kv_heads, p->dim, p->sliding);
    c->q = random(c->nq, 2);
    c->k = random(c->nk, 1);
    c->v = random(c->nk, 1);
    c->dout = random(c->nq, 1);
    assert_true(ref_attn_bwd(p, c->q, c->k, c->v, c->dout, &c->want));
}

static void attn_case_free(struct attn_case *c)
{
    free(c->q);
    free(c->k);
    free(c->v);
    free(c->dout);
    ref_attn_bwd_free(&c->want);
}

/* sum dout * out in double precision. */
static double attn_loss(void *ctx)
{
    const struct attn_case *c = ctx;
    const struct ref_attn *p = c->p;
    double loss = 0, out[256], lse, mag;
    for (size_t i = 0; i < c->n; i++) {
        ref_attn_row(p, c->q, c->k, c->v, (uint32_t)(i / p->heads / p->ctx),
                     (uint32_t)(i / p->heads % p->ctx), (uint32_t)(i % p->heads), out, &lse, &mag);
        for (uint32_t d = 0; d < p->dim; d++)
            loss += c->dout[i * p->dim + d] * out[d];
    }
    return loss;
}

static void test_attn_reference(void **state)
{
    (void)state;
    static const struct ref_attn shapes[] = {
        {2, 6, 4, 2, 6, 0, 0.4}, {1, 9, 2, 1, 4, 3, 0.5}, {1, 1, 1, 1, 2, 0, 0.7}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct attn_case c;
        attn_case_make(&c, &shapes[s], random_grid);
        differences(attn_loss, &c, c.q, c.nq, c.want.dq);
        differences(attn_loss, &c, c.k, c.nk, c.want.dk);
        differences(attn_loss, &c, c.v, c.nk, c.want.dv);
        attn_case_free(&c);
    }
}

/* One result: error of a sum of `terms` with products of dim in each. */
static void attn_check(const struct attn_case *c, unsigned kernel, const struct buffer *got, const char *what,
                       const double *want, const double *mag, uint32_t terms)
{
    char shape[128];
    snprintf(shape, sizeof shape, "%s, %s", what, c->name);
    float *x = buffer_read(got);
    for (size_t i = 0; i < got->words; i++)
        check(kernel, shape, i, x[i], want[i], (c->p->dim + terms + 32) * (FLT_EPSILON / 2) * mag[i]);
    free(x);
}

/* An argument struct of any of the attention kernels: its views, then the push constants that all have in common. */
static const char *attn_args(const struct ref_attn *p, const struct gpu_view *views, unsigned n_views)
{
    static char args[8 * sizeof(struct gpu_view) + 7 * sizeof(uint32_t)];
    float scale = (float)p->scale;
    uint32_t push[] = {p->windows, p->ctx, p->heads, p->kv_heads, p->dim, p->sliding, 0};
    memcpy(&push[6], &scale, sizeof scale);
    memcpy(args, views, n_views * sizeof *views);
    memcpy(args + n_views * sizeof *views, push, sizeof push);
    return args;
}

static void attn_dispatch(const struct ref_attn *p, unsigned kernel, uint32_t heads,
                          const struct gpu_view *views, unsigned n_views)
{
    const char *args = attn_args(p, views, n_views);
    gpu_dispatch(cmd, kernel, gpu_tiles(cmd, kernel, args, (uint64_t)p->windows * heads, p->ctx), views,
                 n_views, args + n_views * sizeof *views, 7 * sizeof(uint32_t));
}

/* The shapes with a kernel that computes this. */
enum attn_result { ATTN_DQ, ATTN_DK_DV, ATTN_DV };

static void attn_bwd(unsigned kernel, enum attn_result result, const struct ref_attn *shapes, size_t n_shapes)
{
    static const struct gpu_view none[8];
    unsigned taken = 0;
    for (size_t s = 0; s < n_shapes; s++) {
        const struct ref_attn *p = &shapes[s];
        if (!variant_takes(kernel, attn_args(p, none, kernel_decls[kernel].n_buffers)))
            continue;
        taken++;
        struct attn_case c;
        attn_case_make(&c, p, random_vector);
        uint32_t queries = p->ctx * (p->heads / p->kv_heads);
        struct gpu_view q = buffer_make(c.nq, c.q).view, k = buffer_make(c.nk, c.k).view,
                        v = buffer_make(c.nk, c.v).view, dout = buffer_make(c.nq, c.dout).view,
                        lse = upload_rounded(c.want.lse, c.n).view,
                        delta = upload_rounded(c.want.delta, c.n).view;
        struct buffer dq = buffer_make(c.nq, NULL), dk = buffer_make(c.nk, NULL),
                      dv = buffer_make(c.nk, NULL);
        switch (result) {
        case ATTN_DQ:
            attn_dispatch(p, kernel, p->heads, (const struct gpu_view[]){q, k, v, dout, lse, delta, dq.view},
                          7);
            attn_check(&c, kernel, &dq, "dq", c.want.dq, c.want.mag_q, p->ctx);
            break;
        case ATTN_DK_DV:
            attn_dispatch(p, kernel, p->kv_heads,
                          (const struct gpu_view[]){q, k, v, dout, lse, delta, dk.view, dv.view}, 8);
            attn_check(&c, kernel, &dk, "dk", c.want.dk, c.want.mag_k, queries);
            attn_check(&c, kernel, &dv, "dv", c.want.dv, c.want.mag_v, queries);
            break;
        case ATTN_DV:
            attn_dispatch(p, kernel, p->kv_heads, (const struct gpu_view[]){q, k, dout, lse, dv.view}, 5);
            attn_check(&c, kernel, &dv, "dv", c.want.dv, c.want.mag_v, queries);
            break;
        }
        attn_case_free(&c);
        buffers_reset();
    }
    assert_true(taken > 0);
}

static const struct ref_attn attn_shapes[] = {
    {1, 1, 1, 1, 2, 0, 0.7},    {2, 5, 2, 1, 8, 0, 0.35},     {3, 5, 5, 5, 6, 7, 0.4},
    {1, 33, 4, 2, 64, 0, 0.13}, {1, 100, 2, 2, 128, 7, 0.09}, {1, 33, 3, 1, 256, 0, 0.06},
    {2, 33, 6, 2, 20, 7, 0.22}, {1, 100, 8, 4, 16, 0, 0.25},  {1, 65, 2, 1, 250, 64, 0.06},
    {3, 33, 7, 1, 2, 0, 0.7},   {1, 100, 2, 1, 72, 7, 0.12},  {2, 100, 8, 2, 8, 33, 0.35},
    {1, 40, 2, 1, 136, 1, 0.1}, {1, 67, 1, 1, 34, 0, 0.2},    {1, 1, 1, 1, 4, 0, 0.7},
    {3, 5, 5, 5, 8, 7, 0.35},   {1, 33, 4, 2, 16, 0, 0.25},   {1, 100, 6, 2, 12, 7, 0.3},
    {2, 100, 8, 4, 8, 0, 0.35}, {1, 70, 7, 1, 16, 33, 0.25},
};
#define ATTN_TEST(kernel, result)                                                                            \
    static void kernel(void)                                                                                 \
    {                                                                                                        \
        attn_bwd(KERNEL_ID_##kernel, result, attn_shapes, sizeof attn_shapes / sizeof *attn_shapes);         \
    }
ATTN_TEST(attn_bwd_q, ATTN_DQ)
ATTN_TEST(attn_bwd_kv, ATTN_DK_DV)
ATTN_TEST(attn_bwd_v, ATTN_DV)

/* As in training: lse of the forward kernel, delta of row_dot. */
static void test_attn_chain(void **state)
{
    (void)state;
    static const struct ref_attn shape = {2, 50, 4, 2, 16, 0, 0.25};
    struct attn_case c;
    attn_case_make(&c, &shape, random_vector);
    struct buffer q = buffer_make(c.nq, c.q), k = buffer_make(c.nk, c.k), v = buffer_make(c.nk, c.v),
                  dout = buffer_make(c.nq, c.dout);
    struct buffer out = buffer_make(c.nq, NULL), lse = buffer_make(c.n, NULL), delta = buffer_make(c.n, NULL),
                  dq = buffer_make(c.nq, NULL);
    attn_dispatch(&shape, KERNEL_ID_attn_fwd, shape.heads,
                  (const struct gpu_view[]){q.view, k.view, v.view, out.view, lse.view}, 5);
    q_row_dot(
        cmd, &(struct row_dot_args){
                 .a = dout.view, .b = out.view, .out = delta.view, .rows = (uint32_t)c.n, .cols = shape.dim});
    attn_dispatch(&shape, KERNEL_ID_attn_bwd_q, shape.heads,
                  (const struct gpu_view[]){q.view, k.view, v.view, dout.view, lse.view, delta.view, dq.view},
                  7);
    attn_check(&c, KERNEL_ID_attn_bwd_q, &dq, "dq", c.want.dq, c.want.mag_q, shape.ctx);
    attn_case_free(&c);
    buffers_reset();
}

#define TEST(name, function)                                                                                 \
    static void test_##name(void **state)                                                                    \
    {                                                                                                        \
        (void)state;                                                                                         \
        each_variant(KERNEL_ID_##name, function);                                                            \
    }
TEST(rmsnorm_bwd, rmsnorm_bwd)
TEST(swiglu_bwd, swiglu_bwd)
TEST(kl_bwd, kl_bwd)
TEST(reduce_sum, reduce_sum)
TEST(scale_grad, scale_grad)
TEST(adam_step, adam_step)
TEST(attn_bwd_q, attn_bwd_q)
TEST(attn_bwd_kv, attn_bwd_kv)
TEST(attn_bwd_v, attn_bwd_v)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_reference), cmocka_unit_test(test_swiglu_reference),
        cmocka_unit_test(test_kl_reference),      cmocka_unit_test(test_rmsnorm_bwd),
        cmocka_unit_test(test_swiglu_bwd),        cmocka_unit_test(test_kl_bwd),
        cmocka_unit_test(test_reduce_sum),        cmocka_unit_test(test_scale_grad),
        cmocka_unit_test(test_adam_step),         cmocka_unit_test(test_attn_reference),
        cmocka_unit_test(test_attn_bwd_q),

        cmocka_unit_test(test_attn_bwd_kv),

        cmocka_unit_test(test_attn_bwd_v),        cmocka_unit_test(test_attn_chain),
    };
    return device_done(cmocka_run_group_tests_name("backward", tests, device_setup, NULL));
}
