/* The kernels of the backward pass: the references against differences of the forward pass, then every
 * variant that the device runs, on odd shapes, against the references. */
#include "host/gpu/gpu_pipeline_internal.h"
#include "tests/kernel_cases.h"
#include "tests/ref/ref_backward.h"

static uint64_t random_state = 1;

static float *random_vector(size_t n, float size)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * kernel_case_normal(&random_state);
    return x;
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
    struct rmsnorm_case c = {random_grid(REF_COLS, 1), random_vector(REF_COLS, 1), random_vector(REF_COLS, 1)};
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

static double geglu_loss(void *ctx)
{
    const struct swiglu_case *c = ctx;
    return c->dact * ref_geglu(c->gate, c->up);
}

static double clamped_loss(void *ctx)
{
    const struct swiglu_case *c = ctx;
    return c->dact * ref_clamped(c->gate, c->up);
}

static void test_swiglu_reference(void **state)
{
    (void)state;
    for (float gate = -9; gate <= 9; gate += 0.75f) {
        struct swiglu_case c = {gate, -1.5f, 0.7f};
        struct ref_swiglu_bwd want = ref_swiglu_bwd(c.gate, c.up, c.dact);
        differences(swiglu_loss, &c, &c.gate, 1, &want.dgate);
        differences(swiglu_loss, &c, &c.up, 1, &want.dup);
        c.gate = gate + 0.375f; /* beside the kinks and the minimum */
        for (float up = -10; up < 10; up += 4) {
            c.up = up;
            want = ref_clamped_bwd(c.gate, c.up, c.dact);
            differences(clamped_loss, &c, &c.gate, 1, &want.dgate);
            differences(clamped_loss, &c, &c.up, 1, &want.dup);
        }
        c.gate = gate;
        c.up = -1.5f;
        if (fabsf(gate) > 5) /* beyond, gelu is 0 or the gate to the last bit */
            continue;
        want = ref_geglu_bwd(c.gate, c.up, c.dact);
        differences(geglu_loss, &c, &c.gate, 1, &want.dgate);
        differences(geglu_loss, &c, &c.up, 1, &want.dup);
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

struct attn_case {
    const struct ref_attn *p;
    size_t n, nq, nk; /* elements of lse; of q; of k */
    float *q, *k, *v, *dout;
    struct ref_attn_bwd want;
};

static void attn_case_make(struct attn_case *c, const struct ref_attn *p)
{
    size_t rows = (size_t)p->windows * p->ctx;
    *c = (struct attn_case){
        .p = p, .n = rows * p->heads, .nq = rows * p->heads * p->dim, .nk = rows * p->kv_heads * p->dim};
    c->q = random_grid(c->nq, 2);
    c->k = random_grid(c->nk, 1);
    c->v = random_grid(c->nk, 1);
    c->dout = random_grid(c->nq, 1);
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
        ref_attn_row(p, c->q, c->k, c->v, (uint32_t)(i / p->heads / p->ctx), (uint32_t)(i / p->heads % p->ctx),
                     (uint32_t)(i % p->heads), out, &lse, &mag);
        for (uint32_t d = 0; d < p->dim; d++)
            loss += c->dout[i * p->dim + d] * out[d];
    }
    return loss;
}

static void test_attn_reference(void **state)
{
    (void)state;
    static const struct ref_attn shapes[] = {{2, 6, 4, 2, 6, 0, 0.4, 0},
                                             {1, 9, 2, 1, 4, 3, 0.5, 0},
                                             {1, 1, 1, 1, 2, 0, 0.7, 0},
                                             {1, 9, 2, 1, 4, 3, 0.5, 0.6}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct attn_case c;
        attn_case_make(&c, &shapes[s]);
        differences(attn_loss, &c, c.q, c.nq, c.want.dq);
        differences(attn_loss, &c, c.k, c.nk, c.want.dk);
        differences(attn_loss, &c, c.v, c.nk, c.want.dv);
        attn_case_free(&c);
    }
}

/* ---- rows and elements ---- */

#define MATRIX(r, c)                                                                                                   \
    {                                                                                                                  \
        .rows = r, .cols = c                                                                                           \
    }
#define ROWS_OF(c) MATRIX(1, c), MATRIX(7, c), MATRIX(33, c)
static const struct kernel_shape matrix_shapes[] = {ROWS_OF(1),  ROWS_OF(3),   ROWS_OF(5),
                                                    ROWS_OF(64), ROWS_OF(172), ROWS_OF(300)};
static const struct kernel_shape element_shapes[] = {{.n = 1}, {.n = 3}, {.n = 64}, {.n = 172}, {.n = 1001}};

static void compare_rmsnorm(struct kernel_test *t)
{
    const float *x = t->in[0], *dy = t->in[2], *got = kernel_out(t, 3);
    uint32_t cols = t->s.cols;
    double want[300], mag[300];
    for (uint64_t i = 0; i < t->b[0].n; i++) {
        if (i % cols == 0)
            ref_rmsnorm_bwd(x + i, t->in[1], dy + i, cols, t->s.eps, want, mag);
        expect(t, i, got[i], want[i % cols], (cols + 32) * FLT_EPSILON * mag[i % cols]);
    }
    IN_PLACE(t, {3, 2});
}
CASES(rmsnorm_bwd, rmsnorm_bwd, matrix_shapes, NULL, compare_rmsnorm)

/* dgate may be a buffer of its own, gate or dact; dup one of its own or up. */
static void compare_swiglu(struct kernel_test *t)
{
    const float *gate = t->in[0], *up = t->in[1], *dact = t->in[2];
    const float *dgate = kernel_out(t, 3), *dup = kernel_out(t, 4);
    for (uint32_t i = 0; i < t->s.n; i++) {
        struct ref_swiglu_bwd want = ref_swiglu_bwd(gate[i], up[i], dact[i]);
        double relative = (16 + 2 * fabs(gate[i])) * FLT_EPSILON;
        expect(t, i, dgate[i], want.dgate, relative * want.gate_mag + 1e-30);
        expect(t, i, dup[i], want.dup, relative * want.up_mag + 1e-30);
    }
    IN_PLACE(t, {3, 0});
    IN_PLACE(t, {3, 2});
    IN_PLACE(t, {4, 1});
    IN_PLACE(t, {3, 0}, {4, 1});
    IN_PLACE(t, {3, 2}, {4, 1});
}
CASES(swiglu_bwd, swiglu_bwd, element_shapes, NULL, compare_swiglu)

static void compare_geglu(struct kernel_test *t)
{
    const float *gate = t->in[0], *up = t->in[1], *dact = t->in[2];
    const float *dgate = kernel_out(t, 3), *dup = kernel_out(t, 4);
    for (uint32_t i = 0; i < t->s.n; i++) {
        struct ref_swiglu_bwd want = ref_geglu_bwd(gate[i], up[i], dact[i]);
        double relative = (16 + 8 * fabs(gate[i]) * (1 + 0.05 * gate[i] * gate[i])) * FLT_EPSILON;
        expect(t, i, dgate[i], want.dgate, relative * want.gate_mag + 1e-12);
        expect(t, i, dup[i], want.dup, relative * want.up_mag + 1e-12);
    }
    IN_PLACE(t, {3, 0}, {4, 1});
    IN_PLACE(t, {3, 2}, {4, 1});
}
CASES(geglu_bwd, geglu_bwd, element_shapes, NULL, compare_geglu)

/* Values at the limits and beyond have no gradient. */
static void compare_clamped(struct kernel_test *t)
{
    const float *gate = t->in[0], *up = t->in[1], *dact = t->in[2];
    const float *dgate = kernel_out(t, 3), *dup = kernel_out(t, 4);
    for (uint32_t i = 0; i < t->s.n; i++) {
        struct ref_swiglu_bwd want = ref_clamped_bwd(gate[i], up[i], dact[i]);
        double relative = (16 + 4 * fabs(gate[i])) * FLT_EPSILON;
        double slack = fabs((double)dact[i]) * FLT_EPSILON * 16 * (1 + fabs(gate[i])); /* up + 1 may cancel */
        expect(t, i, dgate[i], want.dgate, relative * want.gate_mag + slack + 1e-12);
        expect(t, i, dup[i], want.dup, relative * want.up_mag + 1e-12);
    }
    IN_PLACE(t, {3, 0}, {4, 1});
    IN_PLACE(t, {3, 2}, {4, 1});
}
CASES(clamped_bwd, clamped_bwd, element_shapes, kernel_at_limits, compare_clamped)

static void prepare_kl(struct kernel_test *t)
{
    float *p = t->in[0], *q = t->in[1];
    t->s.factor = 0.3f;
    for (uint64_t i = 0; i < t->b[0].n; i++) {
        p[i] += 100; /* only differences count */
        q[i] = q[i] / 3 + p[i];
    }
    memcpy(q, p, t->s.cols * sizeof *q); /* row 0 is equal: exactly 0 */
}

static void compare_kl(struct kernel_test *t)
{
    const float *p = t->in[0], *q = t->in[1], *got = kernel_out(t, 2);
    uint32_t cols = t->s.cols;
    double want[300], mag[300];
    for (uint64_t i = 0; i < t->b[0].n; i++) {
        if (i % cols == 0)
            ref_kl_bwd(p + i, q + i, cols, t->s.factor, want, mag);
        /* A sum of cols terms, each exp good to 3 + 2|x| ulp (Vulkan's bound) of x down to -30. */
        expect(t, i, got[i], want[i % cols], i < cols ? 0 : (cols + 4 * 30 + 32) * FLT_EPSILON * mag[i % cols]);
    }
    IN_PLACE(t, {2, 0});
    IN_PLACE(t, {2, 1});
}
CASES(kl_bwd, kl_bwd, matrix_shapes, prepare_kl, compare_kl)

static void prepare_sampled(struct kernel_test *t)
{
    float *logits = t->in[0];
    t->s.factor = 0.3f;
    t->s.row0 = 100;
    t->s.seed = 7;
    for (uint64_t i = 0; i < t->b[0].n; i++)
        logits[i] += 100; /* only differences count */
    logits[0] += 40;      /* row 0: as good as certain */
}

static void compare_sampled(struct kernel_test *t)
{
    const float *logits = t->in[0], *got = kernel_out(t, 1);
    uint32_t cols = t->s.cols, label = 0;
    double want[300], mag[300], lead;
    for (uint64_t i = 0; i < t->b[0].n; i++) {
        if (i % cols == 0) {
            label = ref_sampled_label(logits + i, cols, t->s.row0 + (uint32_t)(i / cols), 0, t->s.seed, &lead);
            for (uint32_t c = 0; lead < 1e-3 && c < cols; c++) /* a tie is decided by rounding */
                label = got[i + c] < got[i + label] ? c : label;
            ref_nll_bwd(logits + i, label, cols, t->s.factor, want, mag);
        }
        expect(t, i, got[i], want[i % cols], (cols + 4 * 80 + 32) * FLT_EPSILON * mag[i % cols]);
    }
    IN_PLACE(t, {1, 0});
}
CASES(sampled_bwd, sampled_bwd, matrix_shapes, prepare_sampled, compare_sampled)

static void prepare_draw(struct kernel_test *t)
{
    float *logits = t->in[0];
    t->s.factor = 1;
    t->s.row0 = 100;
    t->s.step = 9;
    t->s.seed = 7;
    for (uint64_t i = 0; i < t->b[0].n; i++)
        logits[i] += 100; /* only differences count */
}

/* Whether a row's id is the one, or as near to it as rounding can tell. */
static void expect_id(const struct kernel_test *t, uint32_t row, uint32_t id, uint32_t want, double lead)
{
    assert_true(id < t->s.cols);
    if (lead > 1e-3)
        expect(t, row, id, want, 0);
}

static void compare_draw(struct kernel_test *t)
{
    const float *logits = t->in[0];
    const uint32_t *got = kernel_out(t, 1), cols = t->s.cols;
    double lead;
    for (uint32_t r = 0; r < t->s.rows; r++) {
        const float *row = logits + (size_t)r * cols;
        uint32_t want = ref_sampled_label(row, cols, t->s.row0 + r, t->s.step, t->s.seed, &lead);
        expect_id(t, r, got[r], want, lead);
    }
}
CASES(draw, draw, matrix_shapes, prepare_draw, compare_draw)

/* Without noise: the likeliest, of equals the first. */
static void prepare_draw_best(struct kernel_test *t)
{
    float *logits = t->in[0];
    t->s.factor = 0;
    for (uint64_t i = 0; i < t->b[0].n; i++)
        logits[i] = roundf(logits[i]);
}

static void compare_draw_best(struct kernel_test *t)
{
    const float *logits = t->in[0];
    const uint32_t *got = kernel_out(t, 1), cols = t->s.cols;
    for (uint32_t r = 0; r < t->s.rows; r++) {
        uint32_t best = 0;
        for (uint32_t c = 1; c < cols; c++)
            best = logits[(size_t)r * cols + c] > logits[(size_t)r * cols + best] ? c : best;
        expect(t, r, got[r], best, 0);
    }
}
CASES(draw_best, draw, matrix_shapes, prepare_draw_best, compare_draw_best)

/* Labels come as often as they are likely, and others for another seed. */
static void test_sampled_reference(void **state)
{
    (void)state;
    enum { DRAWS = 20000, CLASSES = 4 };
    const float logits[CLASSES] = {0, 1, 2, -1};
    double z = ref_logsumexp(logits, CLASSES), lead;
    uint32_t counts[CLASSES] = {0}, same = 0;
    for (uint32_t row = 0; row < DRAWS; row++) {
        uint32_t label = ref_sampled_label(logits, CLASSES, row, 0, 3, &lead);
        counts[label]++;
        same += label == ref_sampled_label(logits, CLASSES, row, 0, 4, &lead);
    }
    double repeats = 0;
    for (int c = 0; c < CLASSES; c++) {
        double p = exp(logits[c] - z);
        repeats += p * p;
        assert_true(fabs(counts[c] - p * DRAWS) < 5 * sqrt(p * (1 - p) * DRAWS));
    }
    assert_true(fabs(same - repeats * DRAWS) < 5 * sqrt(repeats * DRAWS));
}

static double nll_loss(void *ctx)
{
    const struct kl_case *c = ctx;
    return 2.5 * (ref_logsumexp(c->logits, REF_COLS) - c->logits[3]);
}

static void test_nll_reference(void **state)
{
    (void)state;
    struct kl_case c = {NULL, random_grid(REF_COLS, 2)};
    double want[REF_COLS], mag[REF_COLS];
    ref_nll_bwd(c.logits, 3, REF_COLS, 2.5, want, mag);
    differences(nll_loss, &c, c.logits, REF_COLS, want);
    free(c.logits);
}

#define SUM(length)                                                                                                    \
    {                                                                                                                  \
        .n = length, .at = 3, .factor = -0.5f                                                                          \
    }
static const struct kernel_shape sum_shapes[] = {SUM(1),   SUM(3),    SUM(5),      SUM(127),
                                                 SUM(129), SUM(1000), SUM(100003), SUM(5000001)};

static void prepare_sum(struct kernel_test *t)
{
    float *x = t->in[0];
    for (uint32_t i = 0; t->s.n > 1000 && i < t->s.n; i++)
        x[i] = 0.1f; /* equal numbers: what additions lose does not cancel */
}

static void compare_sum(struct kernel_test *t)
{
    const float *x = t->in[0], *before = t->in[1], *got = kernel_out(t, 1);
    double sum = 0, mag = 0;
    for (uint32_t i = 0; i < t->s.n; i++) {
        sum += x[i];
        mag += fabs(x[i]);
    }
    for (uint32_t i = 0; i < t->b[1].n; i++)
        if (i == t->s.at)
            expect(t, i, got[i], before[i] - 0.5 * sum, FLT_EPSILON * (fabs(before[i]) + 6 * mag));
        else
            expect(t, i, got[i], before[i], 0);
}
CASES(reduce_sum, reduce_sum, sum_shapes, prepare_sum, compare_sum)

/* ---- scales ---- */

#define GROUPED(r, c, g)                                                                                               \
    {.rows = r, .cols = c, .group = g},                                                                                \
    {                                                                                                                  \
        .rows = r, .cols = c, .group = g, .offsets = 1                                                                 \
    }
#define GROUPS(c, g) GROUPED(1, c, g), GROUPED(7, c, g), GROUPED(33, c, g)
/* Groups of the row's length and more, and ones that do not divide it. */
static const struct kernel_shape scale_shapes[] = {
    GROUPS(1, 1),    GROUPS(1, 300),  GROUPS(3, 1),     GROUPS(3, 3),   GROUPS(3, 300), GROUPS(5, 1),
    GROUPS(5, 3),    GROUPS(5, 4),    GROUPS(5, 300),   GROUPS(64, 1),  GROUPS(64, 3),  GROUPS(64, 4),
    GROUPS(64, 32),  GROUPS(64, 64),  GROUPS(64, 300),  GROUPS(172, 1), GROUPS(172, 3), GROUPS(172, 4),
    GROUPS(172, 32), GROUPS(172, 64), GROUPS(172, 300), GROUPS(300, 1), GROUPS(300, 3), GROUPS(300, 4),
    GROUPS(300, 32), GROUPS(300, 64), GROUPS(300, 300)};

/* Codes are any bytes, also those behind a row's end: they must not count. */
static void compare_scale_grad(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const float *grad = t->in[0], *before = t->in[2], *got = kernel_out(t, 2);
    const int8_t *codes = t->in[1];
    for (uint64_t i = 0; i < t->b[2].n; i++) {
        uint32_t plane = (uint32_t)(i / s->groups % (1 + s->offsets)), group = (uint32_t)(i % s->groups);
        uint64_t row = i / s->groups / (1 + s->offsets);
        double want = before[i], mag = fabs(before[i]);
        for (uint32_t c = group * s->group; c < s->cols && c < (group + 1) * s->group; c++) {
            double term = (double)grad[row * s->cols + c] * (plane ? 1 : codes[row * s->ldc * 4 + c]);
            want += term;
            mag += fabs(term);
        }
        expect(t, i, got[i], want, (s->group + 4) * FLT_EPSILON / 2 * mag);
    }
}
CASES(scale_grad, scale_grad, scale_shapes, NULL, compare_scale_grad)

static void prepare_adam(struct kernel_test *t)
{
    struct kernel_shape *s = &t->s;
    s->lr = 0.01f, s->beta1 = 0.9f, s->beta2 = 0.99f, s->decay = 0.1f;
    s->correct1 = 1 / (1 - 0.81f), s->correct2 = 1 / (1 - 0.9801f);
    for (unsigned i = 1; i < 4; i++) /* a scale that nothing depends on: only eps is there to divide by */
        ((float *)t->in[i])[0] = 0;
}

static void compare_adam(struct kernel_test *t)
{
    const struct kernel_shape *s = &t->s;
    const struct ref_adam_rates r = {s->lr, s->beta1, s->beta2, s->correct1, s->correct2, s->eps, s->decay};
    const float *param = t->in[0], *m = t->in[1], *v = t->in[2], *grad = t->in[3], *size = t->in[4];
    const float *got_param = kernel_out(t, 0), *got_m = kernel_out(t, 1), *got_v = kernel_out(t, 2);
    for (uint32_t i = 0; i < s->n; i++) {
        struct ref_adam want = {param[i], m[i], v[i]};
        ref_adam_step(&want, grad[i], size[i], &r);
        /* m may cancel; what is left of it is divided by a root that does not. */
        double m_error = 4 * FLT_EPSILON * (fabs(m[i]) + fabs(grad[i])), root = sqrt(want.v * r.correct2);
        double moved = fabs(want.param - param[i]);
        expect(t, i, got_m[i], want.m, m_error);
        expect(t, i, got_v[i], want.v, 8 * FLT_EPSILON * want.v);
        expect(t, i, got_param[i], want.param,
               2 * FLT_EPSILON * fabs(want.param) + 32 * FLT_EPSILON * moved +
                   r.lr * size[i] * r.correct1 * m_error / (root + r.eps));
    }
}
CASES(adam_step, adam_step, element_shapes, prepare_adam, compare_adam)

/* ---- attention ---- */

#define ATTN(w, c, h, kv, d, slide, scale_)                                                                            \
    {                                                                                                                  \
        .windows = w, .ctx = c, .heads = h, .kv_heads = kv, .dim = d, .sliding = slide, .scale = scale_                \
    }
static const struct kernel_shape attn_shapes[] = {
    ATTN(1, 1, 1, 1, 2, 0, 0.7f),      ATTN(2, 5, 2, 1, 8, 0, 0.35f),     ATTN(3, 5, 5, 5, 6, 7, 0.4f),
    ATTN(1, 33, 4, 2, 64, 0, 0.13f),   ATTN(1, 100, 2, 2, 128, 7, 0.09f), ATTN(1, 33, 3, 1, 256, 0, 0.06f),
    ATTN(2, 33, 6, 2, 20, 7, 0.22f),   ATTN(1, 100, 8, 4, 16, 0, 0.25f),  ATTN(1, 65, 2, 1, 250, 64, 0.06f),
    ATTN(3, 33, 7, 1, 2, 0, 0.7f),     ATTN(1, 100, 2, 1, 72, 7, 0.12f),  ATTN(2, 100, 8, 2, 8, 33, 0.35f),
    ATTN(1, 40, 2, 1, 136, 1, 0.1f),   ATTN(1, 67, 1, 1, 34, 0, 0.2f),    ATTN(1, 1, 1, 1, 4, 0, 0.7f),
    ATTN(3, 5, 5, 5, 8, 7, 0.35f),     ATTN(1, 33, 4, 2, 16, 0, 0.25f),   ATTN(1, 100, 6, 2, 12, 7, 0.3f),
    ATTN(2, 100, 8, 4, 8, 0, 0.35f),   ATTN(1, 70, 7, 1, 16, 33, 0.25f),  ATTN(1, 130, 2, 1, 64, 0, 0.12f),
    ATTN(2, 97, 2, 1, 128, 40, 0.09f),
};

static void compare_softcap_bwd(struct kernel_test *t)
{
    const float *dy = t->in[0], *y = t->in[1], *got = kernel_out(t, 0);
    for (uint32_t i = 0; i < t->s.n; i++) {
        double at = y[i] / (double)t->s.cap;
        expect(t, i, got[i], dy[i] * (1 - at * at), 8 * FLT_EPSILON * fabs(dy[i]) * (1 + at * at));
    }
}
CASES(softcap_bwd, softcap_bwd, element_shapes, NULL, compare_softcap_bwd)

static struct ref_attn attn_of(const struct kernel_shape *s)
{
    return (struct ref_attn){s->windows, s->ctx, s->heads, s->kv_heads, s->dim, s->sliding, s->scale, s->cap};
}

static struct ref_attn_bwd attn_want; /* of the shape at hand */

static void round_into(float *x, const double *from, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = (float)from[i];
}

/* lse and delta, where the kernel takes them, are the reference's. Large heads have values and gradients that f16 holds only
 * when scaled. */
static void attn_prepare(struct kernel_test *t, unsigned v, unsigned dout, unsigned lse, unsigned delta)
{
    float *values = t->in[v], *grads = t->in[dout];
    for (uint64_t i = 0; t->s.dim >= 64 && v != 1 && i < t->b[v].n; i++)
        values[i] *= i % 37 == 5 ? 1e5f : 1;
    for (uint64_t i = 0; t->s.dim >= 64 && i < t->b[dout].n; i++)
        grads[i] *= 1e-9f;
    struct ref_attn p = attn_of(&t->s);
    assert_true(ref_attn_bwd(&p, t->in[0], t->in[1], t->in[v], t->in[dout], &attn_want));
    round_into(t->in[lse], attn_want.lse, t->b[lse].n);
    if (delta)
        round_into(t->in[delta], attn_want.delta, t->b[delta].n);
}

/* Result i: the error of a sum of `terms` with products of dim in each. */
static void attn_expect(struct kernel_test *t, unsigned i, const double *want, const double *mag, uint32_t terms)
{
    const float *got = kernel_out(t, i);
    /* On matrix cores four roundings to 11 bits add up (of q and k, whose share mag has; of dout and v; of ds; of k), and what
     * is far below the largest of a tile loses more. */
    bool rounded = variant_in_use && strcmp(variant_in_use, "coopmat") == 0;
    double most = 0;
    for (uint64_t k = 0; rounded && k < t->b[i].n; k++)
        most = fmax(most, mag[k]);
    for (uint64_t k = 0; k < t->b[i].n; k++)
        expect(t, k, got[k], want[k],
               ((t->s.dim + terms + 32) * (FLT_EPSILON / 2) + (rounded ? 4 * 0x1.02p-11 : 0)) * mag[k] +
                   terms * 0x1p-32 * most);
}

static void prepare_attn(struct kernel_test *t)
{
    attn_prepare(t, 2, 3, 4, 5);
}

/* dv does not depend on v, which attn_bwd_v does not take: k stands in. */
static void prepare_attn_v(struct kernel_test *t)
{
    attn_prepare(t, 1, 2, 3, 0);
}

static void compare_attn_q(struct kernel_test *t)
{
    attn_expect(t, 6, attn_want.dq, attn_want.mag_q, t->s.ctx);
    ref_attn_bwd_free(&attn_want);
}

static void compare_attn_kv(struct kernel_test *t)
{
    uint32_t queries = t->s.ctx * (t->s.heads / t->s.kv_heads);
    attn_expect(t, 6, attn_want.dk, attn_want.mag_k, queries);
    attn_expect(t, 7, attn_want.dv, attn_want.mag_v, queries);
    ref_attn_bwd_free(&attn_want);
}

static void compare_attn_v(struct kernel_test *t)
{
    attn_expect(t, 4, attn_want.dv, attn_want.mag_v, t->s.ctx * (t->s.heads / t->s.kv_heads));
    ref_attn_bwd_free(&attn_want);
}
CASES(attn_bwd_q, attn_bwd_q, attn_shapes, prepare_attn, compare_attn_q)
CASES(attn_cap_bwd_q, attn_cap_bwd_q, attn_shapes, prepare_attn, compare_attn_q)
CASES(attn_bwd_kv, attn_bwd_kv, attn_shapes, prepare_attn, compare_attn_kv)
CASES(attn_cap_bwd_kv, attn_cap_bwd_kv, attn_shapes, prepare_attn, compare_attn_kv)
CASES(attn_bwd_v, attn_bwd_v, attn_shapes, prepare_attn_v, compare_attn_v)
CASES(attn_cap_bwd_v, attn_cap_bwd_v, attn_shapes, prepare_attn_v, compare_attn_v)

/* As in training: lse of the forward kernel, delta of row_dot. */
static void test_attn_chain(void **state)
{
    (void)state;
    struct kernel_test fwd, dot, bwd;
    kernel_begin(&bwd, KERNEL_ID_attn_bwd_q, (struct kernel_shape)ATTN(2, 50, 4, 2, 16, 0, 0.25f), 1);
    kernel_begin(&fwd, KERNEL_ID_attn_fwd, bwd.s, 1);
    kernel_begin(&dot, KERNEL_ID_row_dot, (struct kernel_shape)MATRIX(2 * 50 * 4, 16), 1);
    prepare_attn(&bwd);
    kernel_upload(&bwd);
    kernel_upload(&fwd);
    kernel_upload(&dot);
    memcpy(fwd.views, bwd.views, 3 * sizeof *bwd.views); /* q, k, v */
    fwd.views[4] = bwd.views[4];
    dot.views[0] = bwd.views[3];
    dot.views[1] = fwd.views[3];
    dot.views[2] = bwd.views[5];
    gpu_fill(cmd, bwd.views[4], BUFFER_PATTERN); /* lse and delta come of the calls */
    gpu_fill(cmd, bwd.views[5], BUFFER_PATTERN);
    kernel_call(&fwd);
    kernel_call(&dot);
    kernel_call(&bwd);
    attn_expect(&bwd, 6, attn_want.dq, attn_want.mag_q, bwd.s.ctx);
    ref_attn_bwd_free(&attn_want);
    kernel_free(&fwd);
    kernel_free(&dot);
    kernel_free(&bwd);
    buffers_reset();
}

/* ---- attention in pieces ---- */

/* The rate of the variant that takes this call, as if it was measured. */
static void set_rate(struct kernel_test *t, double work_of_100_ms)
{
    struct err e = {0};
    kernel_args_fill(t->kernel, &t->s, t->views, &t->args);
    struct gpu_kernel *k = gpu_kernel_get(gpu, t->kernel, gpu_kernel_push(t->kernel, &t->args), &e);
    OK(k != NULL, e);
    k->ns_per_work = 100e6 / work_of_100_ms;
}

/* What the call would be, counted. */
static struct gpu_profile counted(struct kernel_test *t)
{
    gpu_cmd_profile_clear(cmd);
    gpu_cmd_count(cmd, GPU_COUNT_WORK);
    kernel_call(t);
    gpu_cmd_count(cmd, GPU_COUNT_NOTHING);
    struct gpu_profile p = gpu_cmd_profile(cmd, t->kernel);
    gpu_cmd_profile_clear(cmd);
    return p;
}

/* Floating-point operations of the call: pair by pair. */
static double attn_work(const struct kernel_shape *s, unsigned products)
{
    double pairs = 0;
    for (uint32_t i = 0; i < s->ctx; i++)
        for (uint32_t j = 0; j <= i; j++)
            pairs += !s->sliding || j + s->sliding > i;
    return 2.0 * products * s->dim * s->heads * s->windows * pairs;
}

/* As many dispatches as the rate asks for, of all the work, and the same bits in however many: heads and tiles of a head apart,
 * with and without sliding windows. */
static void test_attn_cut(void **state)
{
    (void)state;
    static const struct {
        unsigned kernel, products, n_out, out[2];
    } kernels[] = {{KERNEL_ID_attn_fwd, 2, 2, {3, 4}},
                   {KERNEL_ID_attn_bwd_q, 3, 1, {6}},
                   {KERNEL_ID_attn_bwd_kv, 4, 2, {6, 7}},
                   {KERNEL_ID_attn_bwd_v, 2, 1, {4}}};
    static const struct kernel_shape shapes[] = {ATTN(2, 200, 4, 2, 16, 0, 0.2f), ATTN(1, 150, 6, 2, 64, 70, 0.1f)};
    for (size_t i = 0; i < 8; i++) {
        struct kernel_test t;
        kernel_begin(&t, kernels[i / 2].kernel, shapes[i % 2], 3);
        kernel_upload(&t);
        double work = attn_work(&t.s, kernels[i / 2].products);
        uint32_t heads = t.s.windows * (i / 2 < 2 ? t.s.heads : t.s.kv_heads);
        const double parts[] = {1, heads / 2.0, 3.0 * heads};
        void *whole[2];
        for (unsigned cut = 0; cut < 3; cut++) {
            set_rate(&t, work / parts[cut] * 1.001);
            struct gpu_profile p = counted(&t);
            assert_true(fabs(p.work / work - 1) < 1e-12);
            assert_true((double)p.dispatches >= parts[cut] && (double)p.dispatches <= 2 * parts[cut] - (cut == 0));
            for (unsigned o = 0; o < kernels[i / 2].n_out; o++)
                gpu_fill(cmd, t.views[kernels[i / 2].out[o]], BUFFER_PATTERN);
            kernel_call(&t);
            for (unsigned o = 0; o < kernels[i / 2].n_out; o++) {
                unsigned at = kernels[i / 2].out[o];
                void *now = buffer_read(&t.device[at]);
                if (cut == 0) {
                    whole[o] = now;
                    continue;
                }
                assert_memory_equal(now, whole[o], t.b[at].n * 4);
                free(now);
            }
        }
        for (unsigned o = 0; o < kernels[i / 2].n_out; o++)
            free(whole[o]);
        kernel_end(&t);
    }
}

/* Before anything is measured a first piece is small. */
static void test_attn_first(void **state)
{
    (void)state;
    struct kernel_test t;
    kernel_begin(&t, KERNEL_ID_attn_fwd, (struct kernel_shape)ATTN(1, 2048, 8, 2, 128, 0, 0.1f), 3);
    kernel_args_fill(t.kernel, &t.s, t.views, &t.args);
    struct gpu_kernel *k = gpu_kernel_chosen(gpu, t.kernel, gpu_kernel_push(t.kernel, &t.args));
    double rate = k->ns_per_work;
    k->ns_per_work = 0;
    kernel_upload(&t);
    struct gpu_profile p = counted(&t);
    assert_true(p.dispatches >= 4 && p.work / (double)p.dispatches <= 2e9);
    k->ns_per_work = rate;
    kernel_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_reference),
        cmocka_unit_test(test_swiglu_reference),
        cmocka_unit_test(test_kl_reference),
        cmocka_unit_test(test_rmsnorm_bwd),
        cmocka_unit_test(test_swiglu_bwd),
        cmocka_unit_test(test_softcap_bwd),
        cmocka_unit_test(test_geglu_bwd),
        cmocka_unit_test(test_clamped_bwd),
        cmocka_unit_test(test_kl_bwd),
        cmocka_unit_test(test_sampled_reference),
        cmocka_unit_test(test_nll_reference),
        cmocka_unit_test(test_sampled_bwd),
        cmocka_unit_test(test_draw),
        cmocka_unit_test(test_draw_best),
        cmocka_unit_test(test_reduce_sum),
        cmocka_unit_test(test_scale_grad),
        cmocka_unit_test(test_adam_step),
        cmocka_unit_test(test_attn_reference),
        cmocka_unit_test(test_attn_bwd_q),
        cmocka_unit_test(test_attn_cap_bwd_q),
        cmocka_unit_test(test_attn_bwd_kv),
        cmocka_unit_test(test_attn_cap_bwd_kv),
        cmocka_unit_test(test_attn_bwd_v),
        cmocka_unit_test(test_attn_cap_bwd_v),
        cmocka_unit_test(test_attn_chain),
        cmocka_unit_test(test_attn_cut),
        cmocka_unit_test(test_attn_first),
    };
    return device_done(cmocka_run_group_tests_name("backward", tests, device_setup, NULL));
}
