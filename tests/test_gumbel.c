/* The Gumbel-Softmax kernels against tests/ref/ref_quant.c: start, steps, gradients, codes, and that tiles
 * change nothing. */
#include "host/gpu/tiled.h"
#include "tests/quant_cases.h"
#include "tests/ref/ref_quant.h"

static const struct model {
    uint32_t levels, relative;
    int lo, hi;
    bool offsets;
    const int8_t *table; /* NULL: all integers */
} models[] = {{3, 0, -1, 1, false, NULL}, {4, 0, -2, 1, false, NULL},    {5, 1, -4, 3, false, NULL},
              {5, 1, -8, 7, false, NULL}, {2, 0, 0, 1, false, NULL},     {4, 0, 0, 3, true, NULL},
              {5, 1, 0, 15, true, NULL},  {5, 1, -127, 113, false, iq4}, {5, 1, -12, 12, false, fp4}};
enum { N_MODELS = sizeof models / sizeof models[0] };

/* The kernel for a model's levels. */
#define KERNEL_FOR(name, m) ((m)->table ? KERNEL_ID_##name##_uneven : KERNEL_ID_##name)
static const unsigned steps[] = {KERNEL_ID_gumbel_step, KERNEL_ID_gumbel_step_uneven},
                      all_codes[] = {KERNEL_ID_gumbel_codes, KERNEL_ID_gumbel_codes_uneven};
/* What a logit's integer counts. */
#define UNIT 0x1p-11f

/* One matrix under optimisation, on the device and on the host. */
struct setup {
    struct shape s;
    struct ref_gumbel g;
    uint32_t row0, groups, ldc, planes;
    double centre; /* of the levels; 0 without offsets */
    size_t n, n_state, n_scales;
    float origin, beta1, beta2, lr_logits, decay; /* the last two in units of a logit's integer */
    float *w, *grad, *scales;
    uint32_t *codes;
    struct buffer state, b_scales, smom, b_codes, b_w, b_grad, diff;
};

/* Without an origin the weights on the device are NaN: they do not count. */
static struct setup setup_make(struct shape s, const struct model *m, uint32_t row0, float origin, uint64_t seed)
{
    struct setup t = {.s = s,
                      .row0 = row0,
                      .origin = origin,
                      .beta1 = 0.9f,
                      .beta2 = 0.95f,
                      .lr_logits = 1e-3f / UNIT,
                      .decay = UNIT,
                      .groups = groups_of(s),
                      .ldc = words_of(s)};
    t.planes = m->offsets ? 2 : 1;
    t.centre = m->offsets ? 0.5 * (m->lo + m->hi) : 0;
    t.g = (struct ref_gumbel){m->levels, m->relative, m->lo, m->hi, 1234, 77, m->table};
    t.n = (size_t)s.rows * s.cols;
    t.n_state = t.n * ref_state_words(&t.g);
    t.n_scales = (size_t)s.rows * t.planes * t.groups;
    t.w = normals(t.n, 0.05f, seed);
    t.grad = normals(t.n, 0.01f, seed + 1);
    t.scales = normals(t.n_scales, 0.03f, seed + 2);
    for (size_t i = 0; m->offsets && i < t.n_scales; i++)
        t.scales[i] = i / t.groups % 2 ? -fabsf(t.scales[i]) : fabsf(t.scales[i]);
    t.codes = random_codes(s, m->lo, m->hi, m->table, seed + 3);
    t.state = buffer_make(t.n_state, NULL);
    t.b_scales = buffer_make(t.n_scales, t.scales);
    t.smom = buffer_make(t.n_scales, NULL);
    t.b_codes = buffer_make((size_t)s.rows * t.ldc, t.codes);
    t.b_w = buffer_make(t.n, origin == 0 ? NULL : t.w);
    t.b_grad = buffer_make(t.n, t.grad);
    t.diff = buffer_make(t.n, NULL);
    return t;
}

static void setup_free(struct setup *t)
{
    free(t->w);
    free(t->grad);
    free(t->scales);
    free(t->codes);
    buffers_reset();
}

static struct kernel_shape shape_of(const struct setup *t, float tau, float kappa)
{
    struct kernel_shape s = {.rows = t->s.rows,
                             .cols = t->s.cols,
                             .group = t->s.group,
                             .groups = t->groups,
                             .ldc = t->ldc,
                             .levels = t->g.levels,
                             .relative = t->g.relative,
                             .lo = (uint32_t)t->g.lo,
                             .hi = (uint32_t)t->g.hi,
                             .seed = t->g.seed,
                             .tensor = t->g.tensor,
                             .row0 = t->row0,
                             .tau = tau,
                             .kappa = kappa * UNIT,
                             .origin = t->origin,
                             .offsets = t->planes - 1};
    set_table(&s, t->g.table);
    return s;
}

static void init(const struct setup *t)
{
    const struct gpu_view views[] = {t->state.view,   t->b_scales.view, t->smom.view,
                                     t->b_codes.view, t->b_w.view,      t->diff.view};
    struct kernel_shape s = shape_of(t, 2, 100);
    union kernel_args args;
    s.init_noise = 0.01f / UNIT, s.init_gap = 6;
    kernel_case_call(cmd, KERNEL_FOR(gumbel_init, &t->g), &s, views, &args);
}

static void learn(const struct setup *t, uint32_t step, float tau, float kappa)
{
    const struct gpu_view views[] = {t->state.view,   t->state.view, t->b_scales.view, t->smom.view,
                                     t->b_codes.view, t->b_w.view,   t->b_grad.view,   t->diff.view};
    struct kernel_shape s = shape_of(t, tau, kappa);
    union kernel_args args;
    s.step = step, s.tau1 = tau * 0.9f, s.kappa1 = kappa * 1.1f * UNIT, s.decay = t->decay;
    s.lr_logits = t->lr_logits, s.lr_scales = 5e-4f, s.lr_offsets = 7e-4f;
    s.beta1 = t->beta1, s.beta2 = t->beta2;
    kernel_case_call(cmd, KERNEL_FOR(gumbel_step, &t->g), &s, views, &args);
}

struct snapshot {
    uint32_t *state;
    float *scales, *smom, *diff;
};

static struct snapshot snapshot_take(const struct setup *t)
{
    return (struct snapshot){buffer_read(&t->state), buffer_read(&t->b_scales), buffer_read(&t->smom),
                             buffer_read(&t->diff)};
}

static void snapshot_free(struct snapshot *p)
{
    free(p->state);
    free(p->scales);
    free(p->smom);
    free(p->diff);
}

/* One weight of a setup. */
struct place {
    uint32_t row, col;
    int c0;
    uint64_t element;        /* of the whole matrix */
    size_t at, group, state; /* state: of the first word */
};

static struct place place_of(const struct setup *t, size_t i)
{
    struct place p = {.row = (uint32_t)(i / t->s.cols), .col = (uint32_t)(i % t->s.cols), .at = i};
    p.c0 = code_at(t->codes, t->s, p.row, p.col);
    p.element = ((uint64_t)t->row0 + p.row) * t->s.cols + p.col;
    p.group = (size_t)p.row * t->planes * t->groups + p.col / t->s.group;
    p.state = (size_t)p.row * ref_state_words(&t->g) * t->s.cols + p.col;
    return p;
}

/* The offset of a weight's group. */
static double offset_of(const struct setup *t, const struct place *p, const float *scales)
{
    return t->planes > 1 ? scales[p->group + t->groups] : 0;
}

static void load(const struct setup *t, const struct place *p, const struct snapshot *from, double l[REF_LEVELS],
                 double m[REF_LEVELS])
{
    ref_load_state(&t->g, p->c0, from->state + p->state, t->s.cols, l, m);
}

static bool stored(const struct setup *t, const struct place *p, const struct snapshot *from, unsigned k, int *logit,
                   float *momentum)
{
    return ref_level_stored(&t->g, k, p->c0, from->state + p->state, t->s.cols, logit, momentum);
}

static uint32_t rounding_of(const struct setup *t, const struct place *p, uint32_t step)
{
    uint32_t bits[REF_LEVELS];
    return ref_noise_words(p->element, t->g.tensor, step, t->g.seed, bits);
}

static double soft(const struct setup *t, const struct place *p, const struct snapshot *from, uint32_t step, double tau,
                   double kappa, double prob[REF_LEVELS])
{
    double l[REF_LEVELS], m[REF_LEVELS];
    load(t, p, from, l, m);
    return ref_gumbel_soft(&t->g, p->c0, p->element, step, l, tau, kappa * UNIT, prob);
}

/* The exponent (kappa l + Gumbel) / tau is rounded to f32: what that does to a probability, relative. */
static double softmax_error(double tau, double kappa)
{
    return 1e-5 + (kappa * 0.3 + 17) / tau * 4e-7;
}

/* A logit between low and high, known to within an error, as the state holds it: rounded by the noise of `step`. */
static void check_logit(const struct setup *t, const struct place *p, uint32_t step, unsigned k, int is, double low,
                        double high, double error)
{
    uint32_t rounding = rounding_of(t, p, step);
    int least = ref_stored_logit(&t->g, k, p->c0, low - error, rounding),
        most = ref_stored_logit(&t->g, k, p->c0, high + error, rounding);
    if (is < least || is > most) {
        print_error("level %u: logit %d, expected %d to %d\n", k, is, least, most);
        fail();
    }
}

static void test_init(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * N_SHAPES * N_MODELS; i++) {
        const struct model *m = &models[i / 2 % N_MODELS];
        float origin = i % 2;
        /* Some so far down that the element number needs its upper word. */
        struct setup t = setup_make(shapes[i / 2 / N_MODELS], m, i / 2 % 2 ? 0xfffff000u : i, origin, i);
        init(&t);
        struct snapshot now = snapshot_take(&t);
        for (size_t k = 0; k < t.n_scales; k++)
            assert_true(now.smom[k] == 0 && now.scales[k] == t.scales[k]);
        for (size_t k = 0; k < t.n; k++) {
            struct place p = place_of(&t, k);
            double l[REF_LEVELS], prob[REF_LEVELS];
            ref_gumbel_init(&t.g, p.c0, p.element, 0.01f / UNIT, 6, l);
            for (uint32_t d = 0; d < m->levels; d++) {
                int logit;
                float momentum;
                if (stored(&t, &p, &now, d, &logit, &momentum)) {
                    check_logit(&t, &p, REF_NOISE_INIT_B, d, logit, l[d], l[d], 1e-5 / UNIT);
                    assert_true(momentum == 0);
                }
            }
            double mean = soft(&t, &p, &now, 0, 2, 100, prob);
            near(now.diff[k], t.scales[p.group] * mean + offset_of(&t, &p, t.scales) - origin * t.w[k],
                 3 * softmax_error(2, 100), fabs(t.scales[p.group]) * (m->table ? m->hi : 8));
        }
        snapshot_free(&now);
        setup_free(&t);
    }
}

static void check_momentum(double mom, double new_mom, double g, double g_error)
{
    within(new_mom, 0.95 * mom + (1 - 0.95) * g, (1 - 0.95) * g_error + 1e-6 * (fabs(mom) + fabs(g)) + 1e-37);
}

/* Checks value and momentum after one Lion step against the gradient g, which is known to within g_error;
 * where the sign of the update hangs on that, either is right. */
static void check_lion(double value, double mom, double new_value, double new_mom, double g, double g_error, double lr,
                       double decay)
{
    double update = 0.9 * mom + (1 - 0.9) * g;
    double margin = (1 - 0.9) * g_error + 1e-6 * fabs(0.9 * mom) + 1e-37;
    double kept = value * (1 - lr * decay), tolerance = 1e-6 * (fabs(value) + lr);
    double u = update > 0 ? 1 : update < 0 ? -1 : 0;
    if (fabs(update) <= margin)
        assert_true(fabs(new_value - kept) <= lr + tolerance);
    else if (!(fabs(new_value - (kept - lr * u)) <= tolerance)) {
        print_error("%.9g from %.9g, update %g\n", new_value, value, update);
        fail();
    }
    check_momentum(mom, new_mom, g, g_error);
}

/* The state of a weight after a step; part: dLoss/dlogit is part * P * (d - mean), known to within `error` of part. */
static void check_state(const struct setup *t, const struct place *p, const struct snapshot *was,
                        const struct snapshot *now, uint32_t step, double part, double mean,
                        const double prob[REF_LEVELS], double error)
{
    double l[REF_LEVELS], m[REF_LEVELS], low[REF_LEVELS], high[REF_LEVELS], g[REF_LEVELS], sum = 0, lr = 1e-3f / UNIT;
    double own_low = 0, own_high = 0, g_error = fabs(part) * error, kept = 1 - lr * UNIT;
    uint32_t rounding = rounding_of(t, p, step);
    int d, logit;
    float momentum;
    load(t, p, was, l, m);
    for (unsigned k = 0; k < REF_LEVELS; k++)
        sum += fabs(m[k]);
    /* By how much each level moves; where the sign hangs on rounding, either is right. */
    for (unsigned k = 0; k < t->g.levels; k++) {
        if (!ref_level_value(&t->g, k, p->c0, &d))
            continue;
        g[k] = part * prob[k] * (d - mean);
        double update = 0.9 * m[k] + (1 - 0.9) * g[k], margin = (1 - 0.9) * g_error + 1e-6 * sum + 1e-37;
        low[k] = update > margin || fabs(update) <= margin ? -lr : lr;
        high[k] = update < -margin || fabs(update) <= margin ? lr : -lr;
        if (update == 0 && margin <= 1e-37)
            low[k] = high[k] = 0;
        if (!stored(t, p, now, k, &logit, &momentum))
            own_low = low[k], own_high = high[k];
    }
    for (unsigned k = 0; k < t->g.levels; k++) {
        if (!stored(t, p, now, k, &logit, &momentum))
            continue;
        if (!ref_level_value(&t->g, k, p->c0, &d)) {
            assert_true(logit == 0 && momentum == 0);
            continue;
        }
        check_logit(t, p, step, k, logit, l[k] * kept + low[k] - own_high, l[k] * kept + high[k] - own_low,
                    1e-6 * (fabs(l[k]) + lr));
        double wanted = 0.95 * m[k] + (1 - 0.95) * g[k],
               tolerance = (1 - 0.95) * g_error + 1e-6 * (fabs(m[k]) + fabs(g[k])) + 1e-37;
        float least = ref_stored_momentum(&t->g, k, p->c0, wanted - tolerance, rounding),
              most = ref_stored_momentum(&t->g, k, p->c0, wanted + tolerance, rounding);
        if (!(momentum >= least && momentum <= most)) {
            print_error("level %u: momentum %.9g, expected %.9g to %.9g\n", k, (double)momentum, least, most);
            fail();
        }
    }
}

static void check_step(const struct setup *t, const struct snapshot *was, const struct snapshot *now, uint32_t step,
                       double tau, double kappa)
{
    double *scale_grad = calloc(t->n_scales, sizeof(double)), *scale_error = calloc(t->n_scales, sizeof(double));
    double error = softmax_error(tau, kappa), error1 = softmax_error(tau * 0.9f, kappa * 1.1f);
    for (size_t i = 0; i < t->n; i++) {
        struct place p = place_of(t, i);
        double prob[REF_LEVELS], g = t->grad[i], s = was->scales[p.group];
        double mean = soft(t, &p, was, step, tau, kappa, prob);
        double span = t->g.table      ? fmax(abs(t->g.lo), t->g.hi)
                      : t->g.relative ? 2 + abs(p.c0)
                                      : fmax(abs(t->g.lo), abs(t->g.hi));
        scale_grad[p.group] += g * (mean - t->centre);
        scale_error[p.group] += fabs(g) * span * error * 3;
        if (t->planes > 1) {
            scale_grad[p.group + t->groups] += g;
            scale_error[p.group + t->groups] += fabs(g) * 1e-6;
        }
        check_state(t, &p, was, now, step, kappa * UNIT / tau * s * g, mean, prob, error * 10);
        mean = soft(t, &p, now, step + 1, tau * 0.9f, kappa * 1.1f, prob);
        within(now->diff[i], now->scales[p.group] * mean + offset_of(t, &p, now->scales) - t->origin * t->w[i],
               fabs(now->scales[p.group]) * span * error1 * 3 +
                   (fabs(t->w[i]) + fabs(offset_of(t, &p, now->scales))) * 1e-6);
    }
    for (size_t i = 0; i < t->n_scales; i++) {
        double value = was->scales[i], is = now->scales[i], lr = 5e-4f;
        if (t->planes > 1 && i / t->groups % 2 == 1) { /* an offset: the scale's own step left the centre */
            size_t s = i - t->groups;
            value -= t->centre * ((double)now->scales[s] - was->scales[s]);
            lr = 7e-4f;
        }
        if (t->planes > 1 && is == 0) { /* held at the bound */
            assert_true(i / t->groups % 2 ? value + lr >= -1e-8 : value - lr <= 1e-8);
            check_momentum(was->smom[i], now->smom[i], scale_grad[i], scale_error[i]);
        } else {
            check_lion(value, was->smom[i], is, now->smom[i], scale_grad[i], scale_error[i], lr, 0);
        }
    }
    free(scale_grad);
    free(scale_error);
}

/* A run of steps as the schedule has them, each checked from the state before it. */
static void test_step(void **state)
{
    (void)state;
    enum { STEPS = 4 };
    for (unsigned u = 0, v; u < 2; u++)
        for (v = 0; variant_use(steps[u], &v); v++)
            for (unsigned i = 0; i < 2 * N_SHAPES * N_MODELS; i++) {
                const struct model *m = &models[i / 2 % N_MODELS];
                if (KERNEL_FOR(gumbel_step, m) != steps[u])
                    continue;
                struct setup t = setup_make(shapes[i / 2 / N_MODELS], m, i / 2 % 2 ? 0xfffff000u : i, i % 2, i);
                init(&t);
                struct snapshot was = snapshot_take(&t);
                for (uint32_t step = 0; step < STEPS; step++) {
                    float f = (float)step / (STEPS - 1), tau = 2 - 1.95f * f, kappa = 100 + 400 * f;
                    learn(&t, step, tau, kappa);
                    struct snapshot now = snapshot_take(&t);
                    check_step(&t, &was, &now, step, tau, kappa);
                    snapshot_free(&was);
                    was = now;
                }
                snapshot_free(&was);
                setup_free(&t);
            }
}

/* With beta1 = beta2 = 0 the momenta are the gradients. They must be those of Loss = sum of grad * (s * mean
 * level), by central differences in double precision with the noise held fixed. */
static void test_gradients(void **state)
{
    (void)state;
    const float tau = 0.7f, kappa = 100;
    const uint32_t step = 5;
    for (unsigned u = 0, v; u < 2; u++)
        for (v = 0; variant_use(steps[u], &v); v++)
            for (unsigned i = 0; i < N_MODELS; i++) {
                if (KERNEL_FOR(gumbel_step, &models[i]) != steps[u])
                    continue;
                struct setup t = setup_make((struct shape){5, 172, 64}, &models[i], 3, 1, i + 7);
                init(&t);
                struct snapshot was = snapshot_take(&t);
                t.beta1 = t.beta2 = 0;
                learn(&t, step, tau, kappa);
                struct snapshot now = snapshot_take(&t);
                double *scale_grad = calloc(t.n_scales, sizeof(double)),
                       *scale_size = calloc(t.n_scales, sizeof(double));
                for (size_t k = 0; k < t.n; k++) {
                    struct place p = place_of(&t, k);
                    double l[REF_LEVELS], m[REF_LEVELS], ignored[REF_LEVELS], prob[REF_LEVELS], s = t.scales[p.group],
                                                                                                g = t.grad[k], h = 1e-6;
                    load(&t, &p, &was, l, ignored);
                    load(&t, &p, &now, ignored, m);
                    double mean = ref_gumbel_soft(&t.g, p.c0, p.element, step, l, tau, kappa * UNIT, prob), most = 0;
                    int logit;
                    float momentum;
                    for (uint32_t d = 0; d < t.g.levels; d++)
                        most = fmax(most, fabs(m[d]));
                    /* A scale's gradient moves the offset so that the centre stays; the offset's moves it alone.
                 */
                    double o = offset_of(&t, &p, t.scales), z = t.centre;
                    scale_grad[p.group] += g * ((s + h) * mean + (o - z * h) - (s - h) * mean - (o + z * h)) / (2 * h);
                    scale_size[p.group] += fabs(g) * (fabs(mean) + z);
                    if (t.planes > 1) {
                        scale_grad[p.group + t.groups] += g * ((s * mean + o + h) - (s * mean + o - h)) / (2 * h);
                        scale_size[p.group + t.groups] += fabs(g);
                    }
                    for (uint32_t d = 0; d < t.g.levels; d++) {
                        double middle = l[d];
                        l[d] = middle + h / UNIT;
                        double up = ref_gumbel_soft(&t.g, p.c0, p.element, step, l, tau, kappa * UNIT, prob);
                        l[d] = middle - h / UNIT;
                        double down = ref_gumbel_soft(&t.g, p.c0, p.element, step, l, tau, kappa * UNIT, prob);
                        l[d] = middle;
                        /* Momenta are rounded to 10 bits, of five levels to 4; the start code's is the sum of others. */
                        double want = g * s * (up - down) / (2 * h) * UNIT, floor = fabs(g * s) * kappa / tau * 1e-3 *
                                                                                    fmax(1, abs(p.c0) / 4.0) *
                                                                                    UNIT; /* of f32 levels */
                        within(m[d], want,
                               1e-3 * fmax(fabs(want), floor) +
                                   (t.g.levels > 4 ? 0x1p-3 : 0x1p-9) *
                                       (stored(&t, &p, &now, d, &logit, &momentum) ? fabs(m[d]) : 3 * most));
                    }
                }
                for (size_t k = 0; k < t.n_scales; k++)
                    near(now.smom[k], scale_grad[k], 1e-3, scale_size[k] * 0.1);
                free(scale_grad);
                free(scale_size);
                snapshot_free(&was);
                snapshot_free(&now);
                setup_free(&t);
            }
}

/* Steps far below one unit, always the same way: on average logits go as far as they should. */
static void test_small_steps(void **state)
{
    (void)state;
    enum { STEPS = 50, RATE_PARTS = 10 };
    const struct shape s = {48, 256, 64};
    for (unsigned v = 0; variant_use(KERNEL_ID_gumbel_step, &v); v++) {
        struct setup t = setup_make(s, &models[0], 3, 1, 5);
        t.beta1 = t.beta2 = t.decay = 0;
        t.lr_logits = 1.0f / RATE_PARTS;
        init(&t);
        struct snapshot was = snapshot_take(&t);
        for (uint32_t step = 0; step < STEPS; step++)
            learn(&t, step, 2, 20);
        struct snapshot now = snapshot_take(&t);
        double sum = 0, n = 0;
        for (size_t i = 0; i < t.n; i++) {
            /* Of weights that start at the lowest level: the highest one's distance. Both gradients keep their signs where
             * the scale, which moves as well, keeps its own. */
            struct place p = place_of(&t, i);
            double a[REF_LEVELS], b[REF_LEVELS], m[REF_LEVELS], way = t.grad[i] * t.scales[p.group];
            if (p.c0 != t.g.lo || fabsf(t.scales[p.group]) < STEPS * 6e-4f)
                continue;
            load(&t, &p, &was, a, m);
            load(&t, &p, &now, b, m);
            sum += way > 0 ? a[2] - b[2] : b[2] - a[2];
            n++;
        }
        /* A step of a fifth has the variance 0.2 * 0.8; five standard deviations. */
        assert_true(n > 1000);
        within(sum / n, 2.0 * STEPS / RATE_PARTS, 5 * sqrt(STEPS * 0.16 / n));
        snapshot_free(&was);
        snapshot_free(&now);
        setup_free(&t);
    }
}

static void same_bits(const void *a, const void *b, size_t n)
{
    assert_memory_equal(a, b, n * 4);
}

/* The same rows in one call, again, and in two tiles with row0: the same bits. */
static void test_tiles_change_nothing(void **state)
{
    (void)state;
    const struct shape s = {130, 96, 10};
    const uint32_t cut = 64;
    for (unsigned u = 0, v; u < 2; u++)
        for (v = 0; variant_use(steps[u], &v); v++)
            for (unsigned i = 0; i < N_MODELS; i++) {
                if (KERNEL_FOR(gumbel_step, &models[i]) != steps[u])
                    continue;
                struct snapshot runs[3];
                struct setup t;
                for (unsigned run = 0; run < 3; run++) {
                    t = setup_make(s, &models[i], 11, 1, i + 3);
                    for (uint32_t row = 0; row < s.rows; row += run == 2 ? cut : s.rows) {
                        struct setup part = t;
                        uint32_t rows = run == 2 && s.rows - row > cut ? cut : s.rows - row;
                        uint64_t n = (uint64_t)row * s.cols * 4, m = (uint64_t)rows * s.cols * 4,
                                 q = ref_state_words(&t.g);
                        part.s.rows = rows;
                        part.row0 += row;
                        part.state.view = gpu_slice(t.state.view, n * q, m * q);
                        part.b_w.view = gpu_slice(t.b_w.view, n, m);
                        part.b_grad.view = gpu_slice(t.b_grad.view, n, m);
                        part.diff.view = gpu_slice(t.diff.view, n, m);
                        part.b_scales.view = gpu_slice(t.b_scales.view, (uint64_t)row * t.planes * t.groups * 4,
                                                       (uint64_t)rows * t.planes * t.groups * 4);
                        part.smom.view = gpu_slice(t.smom.view, (uint64_t)row * t.planes * t.groups * 4,
                                                   (uint64_t)rows * t.planes * t.groups * 4);
                        part.b_codes.view =
                            gpu_slice(t.b_codes.view, (uint64_t)row * t.ldc * 4, (uint64_t)rows * t.ldc * 4);
                        init(&part);
                        for (uint32_t step = 0; step < 3; step++) {
                            learn(&part, step, 1.5f - 0.5f * (float)step, 200);
                        }
                    }
                    runs[run] = snapshot_take(&t);
                    setup_free(&t);
                }
                for (unsigned run = 1; run < 3; run++) {
                    same_bits(runs[0].state, runs[run].state, t.n_state);
                    same_bits(runs[0].scales, runs[run].scales, t.n_scales);
                    same_bits(runs[0].smom, runs[run].smom, t.n_scales);
                    same_bits(runs[0].diff, runs[run].diff, t.n);
                }
                for (unsigned run = 0; run < 3; run++)
                    snapshot_free(&runs[run]);
            }
}

/* A level's state: a logit of -1, 0 or 1, and any momentum. */
static uint32_t coarse(const struct ref_gumbel *g, uint64_t *seed)
{
    uint32_t logit = kernel_case_random(seed) % 3 - 1;
    return (kernel_case_random(seed) << 20) | (logit & ((1u << ref_logit_bits(g)) - 1));
}

/* Argmax, with logits so coarse that many tie. */
static void test_codes(void **state)
{
    (void)state;
    for (unsigned u = 0, v; u < 2; u++)
        for (v = 0; variant_use(all_codes[u], &v); v++)
            for (unsigned i = 0; i < N_SHAPES * N_MODELS; i++) {
                if (KERNEL_FOR(gumbel_codes, &models[i % N_MODELS]) != all_codes[u])
                    continue;
                struct setup t = setup_make(shapes[i / N_MODELS], &models[i % N_MODELS], 0, 1, i);
                uint64_t seed = i;
                uint32_t *words = malloc(t.n_state * sizeof *words);
                for (size_t k = 0; k < t.n; k++) {
                    struct place p = place_of(&t, k);
                    uint32_t fourth = coarse(&t.g, &seed), bytes = (fourth >> 20) << 12 | (fourth & 0xfff);
                    for (unsigned w = 0; w < ref_state_words(&t.g); w++)
                        words[p.state + w * t.s.cols] =
                            coarse(&t.g, &seed) | (t.g.levels > 4 ? (bytes >> 8 * w & 255) << 12 : 0);
                }
                struct buffer bl = buffer_make(t.n_state, words);
                struct buffer out = buffer_make((size_t)t.s.rows * t.ldc, NULL);
                const struct gpu_view views[] = {bl.view, t.b_codes.view, out.view};
                struct kernel_shape shape = shape_of(&t, 1, 1);
                union kernel_args args;
                kernel_case_call(cmd, all_codes[u], &shape, views, &args);
                uint32_t *codes = buffer_read(&out);
                check_pads(codes, t.s);
                for (size_t k = 0; k < t.n; k++) {
                    struct place p = place_of(&t, k);
                    double l[REF_LEVELS], m[REF_LEVELS];
                    load(&t, &p, &(struct snapshot){.state = words}, l, m);
                    assert_int_equal(code_at(codes, t.s, p.row, p.col), ref_gumbel_code(&t.g, p.c0, l));
                }
                free(words);
                free(codes);
                setup_free(&t);
            }
}

/* The generator on the host, of which the kernels' noise is the image: moments, and no correlation between
 * the words of a call, neighbouring elements, steps, tensors and seeds. */
static void test_noise(void **state)
{
    (void)state;
    /* The word for rounding counts twice: its halves are used apart. */
    enum { N = 1 << 16, WORDS = REF_LEVELS + 2, PAIRS = WORDS * (WORDS - 1) / 2 + 4 };
    double sum[WORDS] = {0}, square[WORDS] = {0}, product[PAIRS] = {0};
    uint32_t bins[WORDS][256] = {{0}};
    for (uint32_t i = 0; i < N; i++) {
        uint32_t here[WORDS], there[4][REF_LEVELS];
        double u[WORDS];
        here[REF_LEVELS] = ref_noise_words(i, 3, 100, 42, here);
        here[REF_LEVELS + 1] = here[REF_LEVELS] << 16;
        ref_noise_words(i + 1, 3, 100, 42, there[0]);
        ref_noise_words(i, 3, 101, 42, there[1]);
        ref_noise_words(i, 4, 100, 42, there[2]);
        ref_noise_words(i, 3, 100, 43, there[3]);
        for (unsigned k = 0; k < WORDS; k++) {
            u[k] = ref_uniform(here[k]) - 0.5;
            sum[k] += u[k];
            square[k] += u[k] * u[k];
            bins[k][here[k] >> 24]++;
        }
        unsigned n = 0;
        for (unsigned a = 0; a < WORDS; a++)
            for (unsigned b = 0; b < a; b++)
                product[n++] += u[a] * u[b];
        for (unsigned k = 0; k < 4; k++)
            product[n++] += u[k] * (ref_uniform(there[k][k]) - 0.5);
        assert_int_equal(n, PAIRS);
    }
    /* Five standard deviations. */
    for (unsigned k = 0; k < WORDS; k++) {
        double chi = 0;
        within(sum[k] / N, 0, 5 * sqrt(1.0 / 12 / N));
        within(square[k] / N, 1.0 / 12, 5 * sqrt(1.0 / 180 / N));
        for (unsigned b = 0; b < 256; b++)
            chi += pow(bins[k][b] - N / 256.0, 2) / (N / 256.0);
        within(chi, 255, 5 * sqrt(2 * 255));
    }
    for (unsigned k = 0; k < PAIRS; k++)
        within(product[k] / N, 0, 5.0 / 12 / sqrt(N));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_small_steps),
        cmocka_unit_test(test_tiles_change_nothing),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
