/* The quantization kernels, every variant that the device can run, against tests/ref/ref_quant.c. */
#include "formats/quant_type.h"
#include "host/quant/qkernels.h"
#include "tests/quant_cases.h"
#include "tests/ref/ref_quant.h"

static const struct grid {
    int lo, hi;
} grids[] = {{-1, 1}, {-2, 1}, {-4, 3}, {-8, 7}, {-128, 127}};
enum { N_GRIDS = sizeof grids / sizeof grids[0] };

/* ---- scales and codes
 * ------------------------------------------------------------------------------------------ */

/* The scale need not be the reference's own (candidates tie within rounding): it must be what is stored of a
 * candidate whose error is that of the best one, but for what the power's polynomial may confuse. */
static void check_scale(float s, const float *w, const float *cost, size_t n, struct grid g, unsigned type)
{
    double least = ref_best_scale(w, cost, n, g.lo, g.hi, 80, 2.4, type, NULL);
    double error = ref_best_scale(w, cost, n, g.lo, g.hi, 80, 2.4, type, &s);
    if (!isfinite(error))
        fail_msg("%.9g, type %u, group of %zu, is no candidate's scale", (double)s, type, n);
    /* Small groups are met exactly, up to the last bits of a candidate. */
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs(w[i]));
    within(error, least, 1e-4 * least + (double)n * pow(most * 1e-6, 2.4));
}

static void test_scale_search(void **state)
{
    (void)state;
    for (unsigned v = 0; variant_use(KERNEL_ID_scale_search, &v); v++)
        for (unsigned i = 0; i < N_SHAPES * N_GRIDS; i++) {
            struct shape s = shapes[i / N_GRIDS];
            struct grid g = grids[i % N_GRIDS];
            unsigned type = i % 3, weighted = i % 2;
            uint32_t groups = groups_of(s), ldw = s.cols + 3;
            float *w = normals((size_t)s.rows * ldw, 0.02f, i);
            for (uint32_t c = 0; c < s.group && c < s.cols; c++)
                w[c] = s.rows > 1 ? 0 : w[c]; /* a group of zeros */
            float *cost = normals(s.cols, 1, i + 500);
            for (uint32_t c = 0; c < s.cols; c++)
                cost[c] = 0.01f + cost[c] * cost[c];
            struct buffer bw = buffer_make((size_t)s.rows * ldw, w), bc = buffer_make(s.cols, cost);
            struct buffer bs = buffer_make((size_t)s.rows * groups, NULL);
            uint32_t cut = s.cols / 2; /* in two calls, as GPTQ asks */
            struct scale_search_args a = {.w = bw.view,
                                          .weights = bc.view,
                                          .weighted = weighted,
                                          .scales = bs.view,
                                          .rows = s.rows,
                                          .cols = s.cols,
                                          .ldw = ldw,
                                          .group = s.group,
                                          .groups = groups,
                                          .lo = (uint32_t)g.lo,
                                          .hi = (uint32_t)g.hi,
                                          .steps = 80,
                                          .power = 2.4f,
                                          .scale_type = type};
            a.col0 = 0;
            a.col1 = cut;
            q_scale_search(cmd, &a);
            a.col0 = cut;
            a.col1 = s.cols;
            q_scale_search(cmd, &a);
            float *scales = buffer_read(&bs);
            for (uint32_t r = 0; r < s.rows; r++)
                for (uint32_t k = 0; k < groups; k++) {
                    uint32_t begin = k * s.group, n = s.cols - begin < s.group ? s.cols - begin : s.group;
                    check_scale(scales[r * groups + k], w + (size_t)r * ldw + begin,
                                weighted ? cost + begin : NULL, n, g, type);
                }
            free(w);
            free(cost);
            free(scales);
            buffers_reset();
        }
}

/* Weights so small or large that the scale leaves its type's range, and groups that are no group. */
static void test_scale_search_extremes(void **state)
{
    (void)state;
    enum { N = 24 };
    static const float sizes[] = {1e-30f, 1e-9f, 3e-7f, 1.0f, 3e4f, 1e6f, 1e30f, 1e-40f};
    for (unsigned v = 0; variant_use(KERNEL_ID_scale_search, &v); v++)
        for (unsigned type = 0; type < 3; type++)
            for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                float *w = normals(N, sizes[i], i + 1);
                struct buffer bw = buffer_make(N, w), bs = buffer_make(1, NULL);
                q_scale_search(cmd, &(struct scale_search_args){.w = bw.view,
                                                                .scales = bs.view,
                                                                .rows = 1,
                                                                .cols = N,
                                                                .ldw = N,
                                                                .col1 = N,
                                                                .group = N,
                                                                .groups = 1,
                                                                .lo = (uint32_t)-2,
                                                                .hi = 1,
                                                                .steps = 80,
                                                                .power = 2.4f,
                                                                .scale_type = type});
                float *s = buffer_read(&bs);
                assert_true(isfinite(s[0]));
                assert_true(ref_storable_scale(s[0], type) == s[0]);
                assert_true((s[0] == 0) == (sizes[i] < 1e-38f));
                if (sizes[i] > 1e-8f && (sizes[i] < 1e5f || type != 1))
                    check_scale(s[0], w, NULL, N, (struct grid){-2, 1}, type);
                free(w);
                free(s);
                buffers_reset();
            }
}

static void quantize_dequant(struct shape s, struct grid g, uint32_t pad, bool offsets, uint64_t seed)
{
    uint32_t groups = groups_of(s), ldc = words_of(s), ldw = s.cols + pad, planes = offsets ? 2 : 1;
    float *w = normals((size_t)s.rows * ldw, 1, seed);
    float *scales = normals((size_t)s.rows * planes * groups, 0.3f, seed + 40);
    scales[0] = s.rows > 1 ? 0 : scales[0];
    struct buffer bw = buffer_make((size_t)s.rows * ldw, w);
    struct buffer bs = buffer_make((size_t)s.rows * planes * groups, scales);
    struct buffer bc = buffer_make((size_t)s.rows * ldc, NULL);
    q_quantize(cmd, &(struct quantize_args){bw.view, bs.view, bc.view, s.rows, s.cols, ldw, s.group, groups,
                                            ldc, (uint32_t)g.lo, (uint32_t)g.hi, offsets});
    uint32_t *codes = buffer_read(&bc);
    q_dequant(cmd, &(struct dequant_args){bc.view, bs.view, bw.view, s.rows, s.cols, ldw, s.group, groups,
                                          ldc, offsets});
    float *back = buffer_read(&bw);
    check_pads(codes, s);
    for (uint32_t r = 0; r < s.rows; r++)
        for (uint32_t c = 0; c < ldw; c++) {
            if (c >= s.cols) { /* between the rows nothing is written */
                assert_true(back[r * ldw + c] == w[r * ldw + c]);
                continue;
            }
            const float *of_group = scales + (size_t)r * planes * groups + c / s.group;
            float scale = of_group[0], offset = offsets ? of_group[groups] : 0;
            double x = (double)w[r * ldw + c] - offset;
            int code = code_at(codes, s, r, c), ref = ref_level(x, scale, g.lo, g.hi);
            if (code != ref) /* a tie, within the rounding of the quotient */
                assert_true(abs(code - ref) == 1 && fabs(fabs(x / scale - 0.5 * (code + ref))) < 1e-4);
            if (offsets) /* whether the product is rounded first is the device's choice */
                within(back[r * ldw + c], (double)code * scale + offset,
                       1.2e-7 * (fabs((double)code * scale) + fabs(offset)));
            else
                assert_true(back[r * ldw + c] == (float)code * scale);
        }
    free(w);
    free(scales);
    free(codes);
    free(back);
    buffers_reset();
}

static void test_quantize_dequant(void **state)
{
    (void)state;
    static const uint32_t pads[] = {0, 1, 16};
    for (unsigned v = 0; variant_use(KERNEL_ID_dequant, &v); v++)
        for (unsigned i = 0; i < N_SHAPES * N_GRIDS; i++)
            for (unsigned k = 0; k < 6; k++)
                quantize_dequant(shapes[i / N_GRIDS], grids[i % N_GRIDS], pads[k % 3], k >= 3, i + 50);
}

/* Affine grids: the scale and offset found are about as good as the best of the reference's candidates. */
static void test_affine_search(void **state)
{
    (void)state;
    static const struct grid affine[] = {{0, 3}, {0, 15}, {0, 31}, {-2, 1}};
    for (unsigned v = 0; variant_use(KERNEL_ID_affine_search, &v); v++)
        for (unsigned i = 0; i < N_SHAPES * 4; i++) {
            struct shape s = shapes[i / 4];
            struct grid g = affine[i % 4];
            bool weighted = i / 2 % 2;
            if (s.group > 64)
                s.group = i % 2 ? 16 : 32;
            /* Tiny, ordinary and huge weights; a shift that leaves whole groups on one side of 0. */
            static const float sizes[] = {0.02f, 1e-30f, 1e25f};
            static const float shifts[] = {0, 3, -3, 0.5f};
            float size = sizes[i % 3], shift = shifts[i / 3 % 4] * size;
            uint32_t groups = groups_of(s), ldw = s.cols + 3;
            float *w = normals((size_t)s.rows * ldw, size, i), *cost = normals(s.cols, 1, i + 500);
            for (size_t k = 0; k < (size_t)s.rows * ldw; k++)
                w[k] += shift;
            for (uint32_t c = 0; c < s.group && c < s.cols; c++)
                w[c] = s.rows > 1 ? shift : w[c]; /* a group that is constant */
            for (uint32_t c = 0; c < s.cols; c++)
                cost[c] = 0.01f + cost[c] * cost[c];
            struct buffer bw = buffer_make((size_t)s.rows * ldw, w), bc = buffer_make(s.cols, cost);
            struct buffer bs = buffer_make((size_t)s.rows * 2 * groups, NULL);
            struct affine_search_args a = {.w = bw.view,
                                           .weights = bc.view,
                                           .weighted = weighted,
                                           .scales = bs.view,
                                           .rows = s.rows,
                                           .cols = s.cols,
                                           .ldw = ldw,
                                           .group = s.group,
                                           .groups = groups,
                                           .lo = (uint32_t)g.lo,
                                           .hi = (uint32_t)g.hi};
            uint32_t cut = s.cols / 2;
            a.col1 = cut;
            q_affine_search(cmd, &a);
            a.col0 = cut;
            a.col1 = s.cols;
            q_affine_search(cmd, &a);
            float *scales = buffer_read(&bs);
            for (uint32_t r = 0; r < s.rows; r++)
                for (uint32_t k = 0; k < groups; k++) {
                    uint32_t begin = k * s.group, n = s.cols - begin < s.group ? s.cols - begin : s.group;
                    const float *x = w + (size_t)r * ldw + begin, *c = weighted ? cost + begin : NULL;
                    double scale = scales[r * 2 * groups + k], offset = scales[(r * 2 + 1) * groups + k];
                    assert_true(scale >= 0 && offset <= 0);
                    double error = ref_affine_error(x, c, n, scale, offset, g.lo, g.hi);
                    double least = ref_best_affine(x, c, n, g.lo, g.hi), most = 0;
                    for (uint32_t j = 0; j < n; j++)
                        most = fmax(most, fabs((double)x[j]));
                    within(error, least, 1e-3 * least + n * 1e-11 * most * most);
                }
            free(w);
            free(cost);
            free(scales);
            buffers_reset();
        }
}

/* Scales of super-blocks, of every type that has them: what is stored of them is recovered exactly, it stays
 * when it is projected again, and no f16 step of the reference's search is better. */
static void project_scales(const struct quant_type *t, uint32_t supers, uint32_t rows, float size,
                           uint64_t seed)
{
    uint32_t per = t->super / t->group, groups = supers * per, planes = quant_type_planes(t);
    size_t n = (size_t)rows * planes * groups;
    float *v = normals(n, size, seed);
    for (size_t i = 0; i < n; i++) {
        bool offset = i / groups % planes == 1;
        if (planes == 2) /* some scales 0, some offsets too */
            v[i] = seed % 2 && i % 7 == 3 ? 0 : offset ? -fabsf(v[i]) : fabsf(v[i]);
    }
    for (uint32_t i = 0; i < per; i++)
        v[i] = rows > 1 ? 0 : v[i];
    struct buffer b = buffer_make(n, v);
    struct project_scales_args a = {.scales = b.view,
                                    .rows = rows,
                                    .groups = groups,
                                    .offsets = planes - 1,
                                    .per_super = per,
                                    .count = 1,
                                    .lo = (uint32_t)t->scale_lo,
                                    .hi = (uint32_t)t->scale_hi,
                                    .offset_hi = (uint32_t)t->offset_hi,
                                    .centre = 0.5f * (float)(t->lo + t->hi)};
    q_project_scales(cmd, &a); /* the first, then the others, as GPTQ asks */
    a.first = 1;
    a.count = supers - 1;
    if (a.count)
        q_project_scales(cmd, &a);
    float *once = buffer_read(&b);
    a.first = 0;
    a.count = supers;
    q_project_scales(cmd, &a);
    float *twice = buffer_read(&b);
    assert_memory_equal(once, twice, n * sizeof *once);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t k = 0; k < supers; k++) {
            const float *was = v + (size_t)r * planes * groups + k * per;
            float *is = once + (size_t)r * planes * groups + k * per, negated[16];
            uint16_t d;
            int16_t integers[16];
            double target[16];
            assert_true(quant_super_solve(is, per, t->scale_lo, t->scale_hi, &d, integers));
            for (uint32_t i = 0; i < per; i++)
                target[i] = was[i];
            double error = ref_step_error(target, is, per), least;
            least = ref_best_step(target, per, t->scale_lo, t->scale_hi);
            within(error, least, 1e-3 * least + 1e-12 * size * size);
            if (planes == 1)
                continue;
            for (uint32_t i = 0; i < per; i++) {
                double moved = (double)was[groups + i] + a.centre * ((double)was[i] - is[i]);
                target[i] = fmax(-moved, 0);
                negated[i] = -is[groups + i];
            }
            assert_true(quant_super_solve(negated, per, 0, t->offset_hi, &d, integers));
            error = ref_step_error(target, negated, per);
            least = ref_best_step(target, per, 0, t->offset_hi);
            within(error, least, 1e-3 * least + 1e-10 * size * size);
        }
    free(v);
    free(once);
    free(twice);
    buffers_reset();
}

static void test_project_scales(void **state)
{
    (void)state;
    const struct quant_type *t;
    unsigned types = 0;
    for (unsigned v = 0; variant_use(KERNEL_ID_project_scales, &v); v++)
        for (size_t i = 0; (t = quant_type_at(i)); i++) {
            if (!t->super)
                continue;
            types++;
            project_scales(t, 1, 1, 0.02f, 1);
            project_scales(t, 3, 70, 0.02f, i);
            project_scales(t, 2, 33, 1e-4f, i + 1); /* steps are subnormal halves */
            project_scales(t, 2, 5, 50, i + 2);
        }
    assert_true(types >= 5);
}

/* The segment's decisions are followed, not predicted: given the kernel's codes, every error must be what the
 * recurrence makes of them, and every code the nearest level of the weight that it saw. */
static void test_gptq_segment(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, cols, col0, count, group;
    } cases[] = {{1, 4, 0, 4, 4},         {9, 7, 4, 3, 4},       {33, 172, 128, 44, 64},
                 {5, 260, 128, 128, 128}, {40, 200, 64, 64, 64}, {129, 131, 100, 31, 200},
                 {70, 256, 128, 128, 16}, {9, 160, 32, 128, 32}, {3, 77, 16, 61, 8}};
    for (unsigned v = 0; variant_use(KERNEL_ID_gptq_segment, &v); v++)
        for (unsigned k2 = 0, n = sizeof cases / sizeof cases[0]; k2 < 2 * n; k2++) {
            unsigned t = k2 / 2, offsets = k2 % 2, planes = 1 + offsets;
            struct shape s = {cases[t].rows, cases[t].cols, cases[t].group};
            struct grid g = grids[t % 4];
            uint32_t col0 = cases[t].col0, count = cases[t].count, groups = groups_of(s), k = s.cols;
            uint32_t ldc = words_of(s);
            float *w = normals((size_t)s.rows * k, 1, t);
            float *scales = normals((size_t)s.rows * planes * groups, 0.5f, t + 20);
            float *r = normals((size_t)k * k, 0.05f, t + 40);
            for (uint32_t j = 0; j < k; j++)
                r[j * k + j] = 0.5f + fabsf(r[j * k + j]);
            struct buffer bw = buffer_make((size_t)s.rows * k, w), br = buffer_make((size_t)k * k, r);
            struct buffer bs = buffer_make((size_t)s.rows * planes * groups, scales);
            struct buffer bc = buffer_make((size_t)s.rows * ldc, NULL);
            struct buffer be = buffer_make((size_t)s.rows * count, NULL);
            q_gptq_segment(cmd, &(struct gptq_segment_args){.w = bw.view,
                                                            .r = br.view,
                                                            .scales = bs.view,
                                                            .codes = bc.view,
                                                            .err = be.view,
                                                            .rows = s.rows,
                                                            .ldw = k,
                                                            .ldr = k,
                                                            .col0 = col0,
                                                            .count = count,
                                                            .group = s.group,
                                                            .groups = groups,
                                                            .ldc = ldc,
                                                            .lo = (uint32_t)g.lo,
                                                            .hi = (uint32_t)g.hi,
                                                            .offsets = offsets});
            uint32_t *codes = buffer_read(&bc);
            float *err = buffer_read(&be), *same = buffer_read(&bw);
            assert_memory_equal(w, same, (size_t)s.rows * k * 4);
            for (uint32_t row = 0; row < s.rows; row++) {
                double past[128];
                for (uint32_t j = 0; j < count; j++) {
                    const float *r_row = r + (size_t)(col0 + j) * k + col0;
                    const float *of_group = scales + row * planes * groups + (col0 + j) / s.group;
                    double scale = of_group[0], x = w[row * k + col0 + j];
                    x -= offsets ? of_group[groups] : 0;
                    for (uint32_t i = 0; i < j; i++)
                        x -= past[i] * r_row[i];
                    int code = code_at(codes, s, row, col0 + j), ref = ref_level(x, scale, g.lo, g.hi);
                    if (code != ref)
                        assert_true(abs(code - ref) == 1 && fabs(x / scale - 0.5 * (code + ref)) < 1e-3);
                    past[j] = (x - scale * code) / r_row[j];
                    near(err[row * count + j], past[j], 1e-4, 1);
                }
                /* Words outside the segment keep the pattern; lanes behind its end are 0. */
                for (uint32_t word = 0; word < ldc; word++)
                    if (word * 4 + 4 <= col0 || word * 4 >= col0 + count)
                        assert_int_equal(codes[row * ldc + word], BUFFER_PATTERN);
                for (uint32_t c = col0 + count; c % 4 != 0; c++)
                    assert_int_equal(code_at(codes, s, row, c), 0);
            }
            free(w);
            free(scales);
            free(r);
            free(codes);
            free(err);
            free(same);
            buffers_reset();
        }
}

/* ---- small ones
 * ------------------------------------------------------------------------------------------------- */

static void test_diagonals(void **state)
{
    (void)state;
    enum { N = 67, ROWS = 5 };
    float *h = normals(N * N, 1, 3), *w = normals(ROWS * (N + 2), 1, 4);
    h[5 * N + 5] = h[66 * N + 66] = 0;
    struct buffer bh = buffer_make(N * N, h), bd = buffer_make(N, NULL);
    struct buffer bw = buffer_make(ROWS * (N + 2), w);
    q_diagonal(cmd, &(struct diagonal_args){.h = bh.view, .diag = bd.view, .n = N, .ldh = N});
    q_zero_dead(cmd, &(struct zero_dead_args){bw.view, bd.view, ROWS, N, N + 2});
    q_damp_diagonal(cmd,
                    &(struct damp_diagonal_args){.h = bh.view, .n = N, .ldh = N, .one = 7, .damp = 0.5f});
    float *diag = buffer_read(&bd), *damped = buffer_read(&bh), *dead = buffer_read(&bw);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(diag[i] == h[i * N + i]);
        for (uint32_t j = 0; j < N; j++) {
            float was = h[i * N + j];
            assert_true(damped[i * N + j] == (i != j ? was : was == 0 ? 7 : was + 0.5f));
        }
    }
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t j = 0; j < N + 2; j++)
            assert_true(dead[i * (N + 2) + j] == (j == 5 || j == 66 ? 0 : w[i * (N + 2) + j]));
    free(h);
    free(w);
    free(diag);
    free(damped);
    free(dead);
    buffers_reset();
}

static void test_moves(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_SHAPES; i++) {
        uint32_t n = shapes[i].cols, rows = shapes[i].rows, ld = n + 3;
        size_t size = (size_t)(n > rows ? n : rows) * ld;
        float *a = normals(size, 1, i), *b = normals(size, 1, i + 30);
        struct buffer ba = buffer_make(size, a), bb = buffer_make(size, b);
        struct buffer bf = buffer_make((size_t)n * n, NULL), bc = buffer_make((size_t)rows * n, NULL);
        struct buffer bd = buffer_make(size, NULL);
        q_flip(cmd, &(struct flip_args){.in = ba.view, .out = bf.view, .n = n, .ldi = ld, .ldo = n});
        q_copy_rect(cmd, &(struct copy_rect_args){ba.view, bc.view, rows, n, ld, n});
        q_subtract(cmd, &(struct subtract_args){ba.view, bb.view, bd.view, (uint32_t)size});
        float *flipped = buffer_read(&bf), *copy = buffer_read(&bc), *d = buffer_read(&bd);
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t c = 0; c < n; c++)
                assert_true(flipped[r * n + c] == a[(n - 1 - r) * ld + n - 1 - c]);
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < n; c++)
                assert_true(copy[r * n + c] == a[r * ld + c]);
        for (size_t k = 0; k < size; k++)
            assert_true(d[k] == a[k] - b[k]);
        free(a);
        free(b);
        free(flipped);
        free(copy);
        free(d);
        buffers_reset();
    }
}

static void test_row_dot(void **state)
{
    (void)state;
    for (unsigned v = 0; variant_use(KERNEL_ID_row_dot, &v); v++)
        for (unsigned i = 0; i < N_SHAPES; i++) {
            uint32_t n = shapes[i].cols, rows = shapes[i].rows;
            size_t size = (size_t)rows * n;
            float *a = normals(size, 1, i), *b = normals(size, 1, i + 30);
            struct buffer ba = buffer_make(size, a), bb = buffer_make(size, b), bo = buffer_make(rows, NULL);
            q_row_dot(cmd, &(struct row_dot_args){ba.view, bb.view, bo.view, rows, n});
            float *dot = buffer_read(&bo);
            for (uint32_t r = 0; r < rows; r++) {
                double sum = 0, size_of_sum = 0;
                for (uint32_t c = 0; c < n; c++) {
                    double product = (double)a[r * n + c] * b[r * n + c];
                    sum += product;
                    size_of_sum += fabs(product);
                }
                near(dot[r], sum, 1e-6, size_of_sum);
            }
            free(a);
            free(b);
            free(dot);
            buffers_reset();
        }
}

static void test_col_sumsq(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1},   {1, 7},     {3, 4},     {5, 33},    {129, 64},
                                        {64, 65}, {1000, 10}, {70001, 3}, {70001, 8}, {17, 1000}};
    for (unsigned v = 0; variant_use(KERNEL_ID_col_sumsq, &v); v++)
        for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            uint32_t rows = sizes[i][0], cols = sizes[i][1];
            float *x = normals((size_t)rows * cols, 1, i), *start = normals(cols, 1, i + 40);
            double *want = calloc(cols, sizeof *want);
            assert_non_null(want);
            for (size_t k = 0; rows > 1000 && k < (size_t)rows * cols; k++)
                x[k] = 0.3f; /* equal numbers: what additions lose does not cancel */
            ref_col_sumsq(x, rows, cols, want);
            struct buffer bx = buffer_make((size_t)rows * cols, x), bs = buffer_make(cols, start);
            q_col_sumsq(cmd, &(struct col_sumsq_args){bx.view, bs.view, rows, cols});
            float *got = buffer_read(&bs);
            for (uint32_t c = 0; c < cols; c++)
                near(got[c], start[c] + want[c], 5e-7, want[c] + fabs(start[c]));
            free(x);
            free(start);
            free(want);
            free(got);
            buffers_reset();
        }
}

static void test_round_scales(void **state)
{
    (void)state;
    enum { N = 1000 };
    static const float special[] = {0,       65504,   65519.9f, 65520,   1e6f,     -1e6f, 5e-8f, 1e-9f,
                                    -1e-20f, 3.4e38f, 6e-5f,    6.2e-5f, 2.98e-8f, -0.0f, 1,     -2.0009766f};
    uint64_t seed = 9;
    float v[N];
    for (unsigned i = 0; i < N; i++)
        v[i] = i < sizeof special / sizeof *special
                   ? special[i]
                   : test_normal(&seed) * powf(10, (float)(test_random(&seed) % 12) - 8);
    for (unsigned type = 0; type < 3; type++) {
        struct buffer b = buffer_make(N, v);
        q_round_scales(cmd, &(struct round_scales_args){b.view, N, type});
        float *r = buffer_read(&b);
        for (unsigned i = 0; i < N; i++)
            assert_true(r[i] == ref_storable_scale(v[i], type));
        free(r);
        buffers_reset();
    }
}

/* A matrix larger than one binding: h[n, n] beyond 128 MiB, walked in tiles. */
static void test_row_tiles(void **state)
{
    (void)state;
    enum { N = 5821 };
    uint64_t words = (uint64_t)N * N;
    if (words * 4 <= gpu_info(gpu)->max_range)
        skip();
    struct err e = {0};
    struct gpu_view h, r;
    OK(gpu_alloc(arena, words * 4, &h, &e) && gpu_alloc(arena, words * 4, &r, &e), e);
    float *ramp = malloc(N * 4);
    for (uint32_t i = 0; i < N; i++)
        ramp[i] = (float)i;
    gpu_fill(cmd, h, 0);
    struct buffer bd = buffer_make(N, ramp), be = buffer_make(N, NULL);
    q_copy_rect(cmd, &(struct copy_rect_args){bd.view, h, N, 1, 1, N}); /* column 0: the row's number */
    q_damp_diagonal(cmd, &(struct damp_diagonal_args){.h = h, .n = N, .ldh = N, .one = 7, .damp = 0.5f});
    q_flip(cmd, &(struct flip_args){.in = h, .out = r, .n = N, .ldi = N, .ldo = N});
    q_diagonal(cmd, &(struct diagonal_args){.h = r, .diag = be.view, .n = N, .ldh = N});
    float *diag = buffer_read(&be), corner[2];
    for (uint32_t i = 0; i < N; i++)
        assert_true(diag[i] == 7);
    for (uint32_t i = 0; i < N - 1; i += 97) {
        OK(gpu_download(cmd, gpu_slice(r, ((uint64_t)i * N + N - 2) * 4, 8), corner, 8, &e), e);
        assert_true(corner[1] == (float)(N - 1 - i));
    }
    free(diag);
    free(ramp);
    buffers_reset();
    gpu_arena_trim(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale_search),     cmocka_unit_test(test_scale_search_extremes),
        cmocka_unit_test(test_quantize_dequant), cmocka_unit_test(test_gptq_segment),
        cmocka_unit_test(test_affine_search),    cmocka_unit_test(test_project_scales),
        cmocka_unit_test(test_diagonals),        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_row_dot),          cmocka_unit_test(test_round_scales),
        cmocka_unit_test(test_row_tiles),        cmocka_unit_test(test_col_sumsq),
    };
    return device_done(cmocka_run_group_tests(tests, device_setup, NULL));
}
