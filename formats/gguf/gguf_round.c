/* Weighted rounding to GGUF's types. Every block is scaled by a power of two to lie within [-1, 1], so that
 * no square overflows; scales are always tried as they will be stored. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "formats/gguf/gguf_blocks.h"
#include "host/base/num.h"

enum { LANES = 16, MOST = 256, MOST_GROUPS = 16 };

/* ---- one group: x ~ q * s + o with q in [lo, hi], or of a table's levels ---- */

struct group {
    const float *x, *p; /* values and their importance */
    uint32_t n;         /* a multiple of LANES */
    float lo, hi;
    const int8_t *levels; /* [TABLE]; NULL: all integers */
};
enum { TABLE = 16 };

/* To the nearest integer, |v| below 2^22: unlike rintf, every compiler makes vectors of it. */
static inline float nearest(float v)
{
    return (v + 12582912.0f) - 12582912.0f;
}

static inline float code_of(float x, float inverse, float o, float lo, float hi)
{
    float q = (x - o) * inverse;
    q = q < lo ? lo : q;
    return nearest(q > hi ? hi : q);
}

/* The levels and what lies between them, twice. */
struct table {
    float level[TABLE], between[TABLE];
};

static struct table table_of(const struct group *g)
{
    struct table t = {{0}, {0}};
    for (int k = 0; g->levels && k < TABLE; k++) {
        t.level[k] = g->levels[k];
        t.between[k] = k ? (float)(g->levels[k] + g->levels[k - 1]) : 0;
    }
    return t;
}

static inline float level_of(float x, float inverse, const struct table *t)
{
    float twice = 2 * x * inverse, level = t->level[0];
    for (int k = 1; k < TABLE; k++)
        level = twice > t->between[k] ? t->level[k] : level;
    return level;
}

static float inverse_of(float s)
{
    return fabsf(s) > 1e-37f ? 1.0f / s : 0.0f;
}

/* The sum of LANES numbers; v is spent. */
static inline float lane_sum(float *v)
{
    for (int l = 0; l < LANES / 2; l++)
        v[l] += v[l + LANES / 2];
    for (int l = 0; l < LANES / 4; l++)
        v[l] += v[l + LANES / 4];
    return (v[0] + v[2]) + (v[1] + v[3]);
}

/* Loops of constant length over local arrays: compilers make plain vectors of these, of each kind of grid its own. */
#define CODE(x) (table ? level_of(x, inverse, table) : code_of(x, inverse, o, lo, hi))

static inline float error_by(const struct group *g, float s, float o, const struct table *table)
{
    float inverse = inverse_of(s), lo = g->lo, hi = g->hi, total = 0;
    for (uint32_t i = 0; i < g->n; i += LANES) {
        const float *x = g->x + i, *p = g->p + i;
        float sum[LANES];
        for (uint32_t l = 0; l < LANES; l++) {
            float e = x[l] - (CODE(x[l]) * s + o);
            sum[l] = p[l] * e * e;
        }
        total += lane_sum(sum);
    }
    return total;
}

static float group_error(const struct group *g, float s, float o)
{
    if (!g->levels)
        return error_by(g, s, o, NULL);
    struct table t = table_of(g);
    return error_by(g, s, 0, &t);
}

/* Sums over a group, weighted, of the codes that s and o give. */
struct sums {
    float qq, q, xq;
};

static inline struct sums sums_by(const struct group *g, float s, float o, const struct table *table)
{
    float inverse = inverse_of(s), lo = g->lo, hi = g->hi;
    struct sums total = {0, 0, 0};
    for (uint32_t i = 0; i < g->n; i += LANES) {
        const float *x = g->x + i, *p = g->p + i;
        float qq[LANES], q[LANES], xq[LANES];
        for (uint32_t l = 0; l < LANES; l++) {
            float c = CODE(x[l]), pc = p[l] * c;
            qq[l] = pc * c;
            q[l] = pc;
            xq[l] = pc * x[l];
        }
        total.qq += lane_sum(qq);
        total.q += lane_sum(q);
        total.xq += lane_sum(xq);
    }
    return total;
}

static struct sums group_sums(const struct group *g, float s, float o)
{
    if (!g->levels)
        return sums_by(g, s, o, NULL);
    struct table t = table_of(g);
    return sums_by(g, s, 0, &t);
}

/* Least squares with no offset. */
static float refit_scale(const struct group *g, float s)
{
    struct sums m = group_sums(g, s, 0);
    return m.qq > 0 ? m.xq / m.qq : s;
}

/* How many finer scales than "the largest value gets the last code" are worth trying, and how much finer the
 * finest is: the fewer the codes, the more clipping pays. */
static void search_of(float codes, int *finer, float *finest)
{
    *finer = codes < 8 ? 20 : 24;
    *finest = codes < 4 ? 1.8f : codes < 8 ? 1.7f : codes < 16 ? 1.25f : codes < 64 ? 1.12f : 1.02f;
}

/* The best scale of a symmetric group among those of this sign (1 or -1), 0 for a group of zeros. */
static float fit_scale(const struct group *g, float sign)
{
    float most = 0, best = 0, best_error = FLT_MAX, finest;
    int finer;
    for (uint32_t i = 0; i < g->n; i++)
        most = fmaxf(most, fabsf(g->x[i]));
    if (most == 0)
        return 0;
    float codes = g->levels ? TABLE / 2.0f : -g->lo; /* on a side */
    search_of(codes, &finer, &finest);
    float coarsest = codes < 8 ? 0.75f : 0.93f;
    for (int k = 0; k <= finer; k++) {
        float s = sign * most / (-g->lo * (coarsest + (finest - coarsest) * (float)k / (float)finer));
        s = refit_scale(g, s);
        float error = group_error(g, s, 0);
        if (error < best_error) {
            best_error = error;
            best = s;
        }
    }
    return best;
}

struct affine {
    float s, o, error;
};

/* Least squares; with `down`, o <= 0. w, xw: sums of importance, and of it times x. */
static struct affine refit_affine(const struct group *g, struct affine a, bool down, float w, float xw)
{
    struct sums m = group_sums(g, a.s, a.o);
    float det = w * m.qq - m.q * m.q;
    if (det > 1e-6f * w * m.qq) {
        a.s = (w * m.xq - m.q * xw) / det;
        a.o = (m.qq * xw - m.q * m.xq) / det;
    }
    if (down && a.o > 0) {
        a.o = 0;
        if (m.qq > 0)
            a.s = m.xq / m.qq;
    }
    if (a.s < 0)
        a.s = 0;
    return a;
}

static struct affine fit_affine(const struct group *g, bool down)
{
    float least = g->x[0], most = g->x[0], w = 0, xw = 0, finest;
    int finer;
    for (uint32_t i = 0; i < g->n; i++) {
        least = fminf(least, g->x[i]);
        most = fmaxf(most, g->x[i]);
        w += g->p[i];
        xw += g->p[i] * g->x[i];
    }
    if (down && least > 0)
        least = 0;
    search_of((g->hi + 1) / 2, &finer, &finest);
    struct affine best = {0, least, FLT_MAX};
    for (int k = 0; k <= finer && most > least; k++) {
        float fine = 0.9f + (finest - 0.9f) * (float)k / (float)finer;
        /* Clipped at both ends alike, above or below in turn. */
        float s = (most - least) / (g->hi * fine), cut = most - least - s * g->hi;
        float o = least + cut * (k % 3 == 0 ? 0.5f : k % 3 == 1 ? 0.0f : 1.0f);
        struct affine a = {s, down ? fminf(o, 0) : o, 0};
        for (int pass = 0; pass < 2; pass++)
            a = refit_affine(g, a, down, w, xw);
        a.error = group_error(g, a.s, a.o);
        if (a.error < best.error)
            best = a;
    }
    return best;
}

/* ---- blocks whose scale stands alone ---- */

struct scaled {
    float x[MOST], p[MOST];
    int exponent; /* x = w * 2^-exponent */
};

/* v * 2^exponent as f16, never infinite; returns what that is in units of x. */
static float stored(const struct scaled *b, float v, uint16_t *half)
{
    float real = ldexpf(v, b->exponent);
    *half = f32_to_f16(real > 65504.0f ? 65504.0f : real < -65504.0f ? -65504.0f : real);
    return ldexpf(f16_to_f32(*half), -b->exponent);
}

static void put_codes(const struct gguf_type *t, const struct group *g, float s, float o, uint8_t *q)
{
    float inverse = inverse_of(s);
    struct table table = table_of(g);
    for (uint32_t i = 0; i < g->n; i++) {
        float x = g->x[i];
        q[i] = (uint8_t)gguf_block_code(
            t, (int)(g->levels ? level_of(x, inverse, &table) : code_of(x, inverse, o, g->lo, g->hi)));
    }
}

static void round_symmetric(const struct gguf_type *t, const struct scaled *b, struct gguf_block *out)
{
    struct group g = {b->x, b->p, t->block, (float)t->codes->lo, (float)t->codes->hi, t->codes->levels};
    float best = 0, best_error = FLT_MAX;
    /* A grid that is its own mirror image needs one sign. */
    for (float sign = 1; sign >= (g.lo == -g.hi ? 0 : -1); sign -= 2) {
        float s = fit_scale(&g, sign);
        for (int pass = 0; pass < 4; pass++) {
            uint16_t half;
            float d = stored(b, s, &half), error = group_error(&g, d, 0);
            if (!(error < best_error))
                break;
            best_error = error;
            best = d;
            out->d = half;
            s = refit_scale(&g, d);
        }
    }
    put_codes(t, &g, best, 0, out->q);
}

/* Scales in a byte: of those that the searched one and its neighbours give the best. */
static void round_bytes(const struct gguf_type *t, const struct scaled *b, struct gguf_block *out)
{
    const struct quant_type *k = t->codes;
    for (uint32_t j = 0; j < t->block / k->group; j++) {
        const uint32_t first = j * k->group;
        struct group g = {b->x + first, b->p + first, k->group, (float)k->lo, (float)k->hi, k->levels};
        float fit = fit_scale(&g, 1), best = 0, best_error = FLT_MAX;
        for (int turn = 0; turn < 5; turn++) {
            float s = scale_round(k->scale, ldexpf(fit * (0.5f + 0.25f * (float)turn), b->exponent));
            float d = ldexpf(s, -b->exponent), error = group_error(&g, d, 0);
            uint8_t byte;
            if (!(error < best_error) || !gguf_scale_to_byte(k->scale, s, &byte))
                continue;
            best_error = error;
            best = d;
            out->d = byte;
            out->scale[j] = byte;
        }
        put_codes(t, &g, best, 0, out->q + first);
    }
}

static void round_affine(const struct gguf_type *t, const struct scaled *b, struct gguf_block *out)
{
    struct group g = {b->x, b->p, t->block, 0, t->id == GGML_Q4_1 ? 15 : 31, NULL};
    float w = 0, xw = 0;
    for (uint32_t i = 0; i < g.n; i++) {
        w += g.p[i];
        xw += g.p[i] * g.x[i];
    }
    struct affine a = fit_affine(&g, false), best = {0, 0, FLT_MAX};
    for (int pass = 0; pass < 4; pass++) {
        uint16_t d, m;
        a.s = stored(b, a.s, &d);
        a.o = stored(b, a.o, &m);
        a.error = group_error(&g, a.s, a.o);
        if (!(a.error < best.error))
            break;
        best = a;
        out->d = d;
        out->m = m;
        a = refit_affine(&g, a, false, w, xw);
    }
    put_codes(t, &g, best.s, best.o, out->q);
}

/* ---- super-blocks ---- */

struct super {
    const struct quant_type *k;
    const struct scaled *b;
    uint32_t n;
    struct group g[MOST_GROUPS];
    struct affine fit[MOST_GROUPS][2]; /* free of the super-block; symmetric types: of both signs */
};

struct choice {
    uint16_t d_half, m_half;
    float d, m; /* as stored, in units of x */
    int16_t scale[MOST_GROUPS], offset[MOST_GROUPS];
    float error[MOST_GROUPS];
    double total;
};

static int clamp_int(int v, int lo, int hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static int integer_of(float v, float d, int lo, int hi)
{
    float r = v * inverse_of(d);
    return r <= (float)lo ? lo : r >= (float)hi ? hi : (int)rintf(r);
}

static void try_integers(const struct super *u, struct choice *c, uint32_t j, int scale, int offset)
{
    float error = group_error(&u->g[j], c->d * (float)scale, -(c->m * (float)offset));
    if (error < c->error[j]) {
        c->error[j] = error;
        c->scale[j] = (int16_t)scale;
        c->offset[j] = (int16_t)offset;
    }
}

static void add_up(const struct super *u, struct choice *c)
{
    c->total = 0;
    for (uint32_t j = 0; j < u->n; j++)
        c->total += c->error[j];
}

/* The integers nearest to the free fits, for c's d and m. */
static void first_integers(const struct super *u, struct choice *c)
{
    const struct quant_type *k = u->k;
    for (uint32_t j = 0; j < u->n; j++) {
        c->error[j] = FLT_MAX;
        for (int sign = 0; sign < (k->offset_hi ? 1 : 2); sign++) {
            int scale = integer_of(u->fit[j][sign].s, c->d, k->scale_lo, k->scale_hi);
            int offset = k->offset_hi ? integer_of(-u->fit[j][0].o, c->m, 0, k->offset_hi) : 0;
            try_integers(u, c, j, scale, offset);
        }
    }
    add_up(u, c);
}

/* All integers near c's, and for symmetric types near those of both free fits. */
static void near_integers(const struct super *u, struct choice *c, int radius)
{
    const struct quant_type *k = u->k;
    for (uint32_t j = 0; j < u->n; j++) {
        int scale = c->scale[j], offset = c->offset[j];
        c->error[j] = FLT_MAX;
        try_integers(u, c, j, scale, offset);
        int centre[3] = {scale, scale, scale};
        for (int sign = 0; !k->offset_hi && sign < 2; sign++)
            centre[sign + 1] = integer_of(u->fit[j][sign].s, c->d, k->scale_lo, k->scale_hi);
        for (int i = 0; i < 3; i++) {
            if (i && centre[i] == centre[i - 1])
                continue;
            int first = clamp_int(centre[i] - radius, k->scale_lo, k->scale_hi);
            int last = clamp_int(centre[i] + radius, k->scale_lo, k->scale_hi);
            for (int s = first; s <= last; s++) {
                for (int o = offset - (k->offset_hi ? radius : 0); o <= offset + (k->offset_hi ? radius : 0); o++) {
                    if (o >= 0 && o <= k->offset_hi)
                        try_integers(u, c, j, s, o);
                }
            }
        }
    }
    add_up(u, c);
}

/* Least squares of d and m for c's codes and integers. */
static void refit_super(const struct super *u, const struct choice *c, float *d, float *m)
{
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
    for (uint32_t j = 0; j < u->n; j++) {
        const struct group *g = &u->g[j];
        struct sums s = group_sums(g, c->d * (float)c->scale[j], -(c->m * (float)c->offset[j]));
        double scale = c->scale[j], offset = -c->offset[j], w = 0, xw = 0;
        for (uint32_t i = 0; offset != 0 && i < g->n; i++) {
            w += (double)g->p[i];
            xw += (double)g->p[i] * (double)g->x[i];
        }
        aa += scale * scale * (double)s.qq;
        ab += scale * offset * (double)s.q;
        bb += offset * offset * w;
        xa += scale * (double)s.xq;
        xb += offset * xw;
    }
    double det = aa * bb - ab * ab;
    *d = c->d;
    *m = c->m;
    if (bb > 0 && det > 1e-9 * aa * bb) {
        *d = (float)((bb * xa - ab * xb) / det);
        *m = (float)((aa * xb - ab * xa) / det);
    } else if (aa > 0) {
        *d = (float)((xa - ab * (double)c->m) / aa);
    }
}

/* Alternates integers and least squares while the error falls. */
static void refine(const struct super *u, struct choice *c, int radius)
{
    near_integers(u, c, radius);
    for (int pass = 0; pass < 4; pass++) {
        struct choice next = *c;
        float d, m;
        refit_super(u, c, &d, &m);
        next.d = stored(u->b, d, &next.d_half);
        next.m = stored(u->b, m, &next.m_half);
        near_integers(u, &next, 1);
        if (!(next.total < c->total))
            return;
        *c = next;
    }
}

/* The best of several d (and dmin): each is tried with the integers nearest to the free fits, the best few
 * are refined. `turns` of each around "the largest gets the last integer". */
static struct choice choose(const struct super *u, int radius)
{
    enum { TURNS = 5, KEPT = 2 };
    static const float turns[TURNS] = {0.84f, 0.92f, 1.0f, 1.08f, 1.16f};
    const struct quant_type *k = u->k;
    float top = 0, bottom = 0;
    for (uint32_t j = 0; j < u->n; j++) {
        top = fmaxf(top, fmaxf(fabsf(u->fit[j][0].s), fabsf(u->fit[j][1].s)));
        bottom = fmaxf(bottom, -u->fit[j][0].o);
    }
    struct choice kept[KEPT], c = {0};
    uint32_t n_kept = 0;
    for (int i = 0; i < (k->offset_hi ? TURNS * TURNS : TURNS); i++) {
        c.d = stored(u->b, top / (float)k->scale_hi * turns[i % TURNS], &c.d_half);
        c.m = stored(u->b, k->offset_hi ? bottom / (float)k->offset_hi * turns[i / TURNS] : 0, &c.m_half);
        first_integers(u, &c);
        uint32_t at = n_kept;
        while (at > 0 && kept[at - 1].total > c.total)
            at--;
        if (at == KEPT)
            continue;
        if (n_kept < KEPT)
            n_kept++;
        memmove(kept + at + 1, kept + at, (n_kept - 1 - at) * sizeof *kept);
        kept[at] = c;
    }
    for (uint32_t i = 0; i < n_kept; i++) {
        refine(u, &kept[i], radius);
        if (kept[i].total < kept[0].total)
            kept[0] = kept[i];
    }
    return kept[0]; /* cppcheck-suppress uninitvar ; the first turn is always kept */
}

static struct choice choose_for(const struct gguf_type *t, const struct scaled *b, struct super *u)
{
    *u = (struct super){.k = t->codes, .b = b, .n = t->block / t->codes->group};
    for (uint32_t j = 0; j < u->n; j++) {
        uint32_t first = j * t->codes->group;
        u->g[j] = (struct group){b->x + first,        b->p + first,        t->codes->group,
                                 (float)t->codes->lo, (float)t->codes->hi, t->codes->levels};
        if (t->codes->offset_hi) {
            u->fit[j][0] = fit_affine(&u->g[j], true);
        } else {
            u->fit[j][0].s = fit_scale(&u->g[j], 1);
            u->fit[j][1].s = fit_scale(&u->g[j], -1);
        }
    }
    return choose(u, t->codes->scale_hi > 64 ? 4 : 1);
}

static void round_super(const struct gguf_type *t, struct scaled *b, struct gguf_block *out)
{
    struct super u;
    struct choice c = choose_for(t, b, &u);
    bool mirrored = false;
    /* With offsets the grid lies on one side: the mirror image, d and dmin negative, may fit better. */
    if (t->codes->offset_hi) {
        for (uint32_t i = 0; i < t->block; i++)
            b->x[i] = -b->x[i];
        struct choice other = choose_for(t, b, &u);
        mirrored = other.total < c.total;
        if (mirrored)
            c = other;
        for (uint32_t i = 0; !mirrored && i < t->block; i++)
            b->x[i] = -b->x[i];
    }
    for (uint32_t j = 0; j < u.n; j++) {
        out->scale[j] = c.scale[j];
        out->offset[j] = c.offset[j];
        put_codes(t, &u.g[j], c.d * (float)c.scale[j], -(c.m * (float)c.offset[j]), out->q + j * t->codes->group);
    }
    out->d = (uint16_t)(mirrored ? c.d_half ^ 0x8000 : c.d_half);
    out->m = (uint16_t)(mirrored ? c.m_half ^ 0x8000 : c.m_half);
}

/* ---- rows ---- */

static void round_float(const struct gguf_type *t, float w, uint8_t *dst)
{
    uint32_t u;
    switch (t->id) {
    case GGML_F32:
        memcpy(&u, &w, sizeof u);
        store_u32le(dst, u);
        break;
    case GGML_F16:
        store_u16le(dst, f32_to_f16(w > 65504.0f ? 65504.0f : w < -65504.0f ? -65504.0f : w));
        break;
    default: { /* BF16: what would round up to infinity is cut off instead */
        uint16_t h = f32_to_bf16(w);
        store_u16le(dst, (uint16_t)((h & 0x7FFF) == 0x7F80 && isfinite(w) ? h - 1 : h));
    }
    }
}

/* x and p of one block; false: nothing but zeros. */
static bool scale_block(const float *w, const float *importance, float mean, uint32_t n, struct scaled *b)
{
    float most = 0;
    for (uint32_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(w[i]));
    /* Below 2^-40 nothing is left of it in f16. */
    if (!(most > 0x1p-40f))
        return false;
    frexpf(most, &b->exponent);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        b->x[i] = ldexpf(w[i], -b->exponent);
        /* The floor keeps columns that calibration never saw near their values. */
        float p = importance ? importance[i] / mean : 1.0f;
        b->p[i] = p > 1e-6f ? p : 1e-6f;
        sum += (double)b->p[i];
    }
    for (uint32_t i = 0; i < n; i++)
        b->p[i] = (float)((double)b->p[i] * n / sum);
    return true;
}

/* As measured; super-blocks with offsets are rounded twice, the mirror image too. */
unsigned gguf_round_cost(const struct gguf_type *t)
{
    if (t->block == 1)
        return 1;
    if (t->codes && t->codes->levels)
        return t->codes->super ? 120 : 90;
    if (!t->codes || !t->codes->super)
        return t->codes && t->codes->lo != -t->codes->hi ? 45 : 20;
    return t->codes->offset_hi ? 130 : 60;
}

void gguf_round_row(const struct gguf_type *t, const float *w, const float *importance, uint64_t n, void *dst)
{
    uint8_t *bytes = dst;
    double sum = 0;
    for (uint64_t i = 0; importance && i < n; i++)
        sum += (double)importance[i];
    float mean = n ? (float)(sum / (double)n) : 0;
    if (!(mean > 0 && isfinite(mean)))
        importance = NULL;
    struct scaled b;
    for (uint64_t i = 0; i < n; i += t->block, bytes += t->bytes) {
        if (t->block == 1) {
            round_float(t, w[i], bytes);
            continue;
        }
        struct gguf_block out = {0};
        if (!scale_block(w + i, importance ? importance + i : NULL, mean, t->block, &b))
            memset(out.q, gguf_block_code(t, t->codes ? quant_type_nearest(t->codes, 0) : 0), sizeof out.q);
        else if (!t->codes)
            round_affine(t, &b, &out);
        else if (t->codes->scale)
            round_bytes(t, &b, &out);
        else if (!t->codes->super)
            round_symmetric(t, &b, &out);
        else
            round_super(t, &b, &out);
        gguf_block_store(t, &out, bytes);
    }
}
