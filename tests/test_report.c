/* The report page: well-formed, self-contained, escaped and free of NaN, for runs of every shape. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/option_table.h"
#include "app/report_settings.h"
#include "lib/report_html.h"
#include "lib/svg_chart.h"
#include "host/base/os.h"

#define DIR_NAME "test_report.tmp"
#define HOSTILE  "models/<script>alert(\"1\")</script> & 'co' \xFF\x01"

/* ---- a run that never was
 * --------------------------------------------------------------------------------------- */

static const struct {
    const char *path;
    uint32_t rows, cols;
} shapes[LINEAR_COUNT] = {{"self_attn.q_proj", 4096, 4096}, {"self_attn.k_proj", 1024, 4096},
                          {"self_attn.v_proj", 1024, 4096}, {"self_attn.o_proj", 4096, 4096},
                          {"mlp.gate_proj", 14336, 4096},   {"mlp.up_proj", 14336, 4096},
                          {"mlp.down_proj", 4096, 14336}};

struct fake {
    struct args args;
    struct quantize_options o;
    struct plan plan;
    struct quantize_result r;
    struct report_input in;
};

/* 0..1, the same every time. */
static double draw(void)
{
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (state >> 8) / 16777216.0;
}

static void fake_linear(struct linear_report *l, struct plan_item *item, uint32_t layer, unsigned id)
{
    double depth = layer / 32.0, base = (0.02 + 0.05 * depth) * (0.5 + draw()) * (id == LINEAR_K ? 0.3 : 1);
    snprintf(l->module, sizeof l->module, "model.layers.%u.%s", (unsigned)layer, shapes[id].path);
    memcpy(item->module, l->module, sizeof item->module);
    item->layer = layer;
    item->id = (enum linear_id)id;
    item->rows = shapes[id].rows;
    item->cols = shapes[id].cols;
    item->spec = (struct quant_spec){quant_type_find("2"), 128, SCALE_F16};
    l->loss_rtn = base * 4;
    l->loss_gptq = base * 1.6;
    l->loss_final = base;
    l->rows_rolled_back = draw() < 0.2 ? (uint32_t)(60 * draw()) : 0;
    l->damp_raised = draw() < 0.03;
    l->diagonal_only = draw() < 0.01;
    l->seconds = 20 + 30 * draw();
    l->stats.lo = -2;
    l->stats.bins = 4;
    uint64_t n = (uint64_t)item->rows * item->cols;
    const double share[] = {0.12, 0.34, 0.36, 0.18};
    for (int c = 0; c < 4; c++)
        l->stats.codes[c] = (uint64_t)((double)n * share[c]);
    for (int s = 0; s < SCALE_BINS; s++)
        l->stats.scales[s] =
            (uint64_t)((double)n / 128 * exp(-0.5 * (s - 26.0 - id) * (s - 26.0 - id)) * 0.4);
    l->stats.negative = n / 128 / 3;
    l->stats.zero = id == LINEAR_O ? 3 : 0;
}

static void fake_stage(struct stage_report *s, enum tune_stage stage, uint32_t layer)
{
    *s = (struct stage_report){
        .stage = stage, .layer = layer, .steps = 1280, .epochs = 10, .seconds = 100 + 40 * draw()};
    s->n_soft = CURVE_POINTS;
    s->n_hard = s->epochs + 1;
    s->loss_start = (0.03 + 0.1 * draw()) * (stage == STAGE_SCALES ? 3 : 1);
    for (uint32_t i = 0; i < s->n_soft; i++)
        s->soft[i] = (float)(s->loss_start * (0.25 + 2.2 * exp(-(double)i / 9) + 0.05 * draw()));
    s->loss_final = s->loss_start;
    for (uint32_t i = 0; i < s->n_hard; i++) {
        s->hard[i] = (float)(s->loss_start * (i ? 0.35 + 1.2 * exp(-(double)i / 2) + 0.06 * draw() : 1));
        if ((double)s->hard[i] < s->loss_final) {
            s->loss_final = (double)s->hard[i];
            s->best_epoch = i;
        }
    }
    s->retries = draw() < 0.05;
    if (layer == 5 && stage == STAGE_FFN) {
        s->best_epoch = 0;
        s->loss_final = s->loss_start;
    }
}

/* Everything filled in; tests take away from it. */
static void fake_run(struct fake *f, uint32_t layers)
{
    static const struct phase_report phases[PHASE_COUNT] = {
        {310, 9ull << 30}, {5400, 14ull << 30}, {9900, 18ull << 30}, {2100, 20ull << 30}, {95, 1ull << 30}};
    *f = (struct fake){0};
    args_defaults(&f->args);
    f->args.command = CMD_QUANTIZE;
    f->args.positional[0] = "models/Llama-3.1-8B-Instruct";
    f->args.out = "out/llama-2bit";
    f->args.q.calib = "calibration/wikitext-train.txt";
    quantize_defaults(&f->o);
    f->o.calib = f->args.q.calib;
    f->o.model_dir = f->args.positional[0];
    f->o.out_dir = f->args.out;
    f->r.linears = calloc((size_t)layers * LINEAR_COUNT + 1, sizeof *f->r.linears);
    f->plan.items = calloc((size_t)layers * LINEAR_COUNT + 1, sizeof *f->plan.items);
    f->r.stages = calloc(2u * layers + 1, sizeof *f->r.stages);
    assert_true(f->r.linears && f->plan.items && f->r.stages);
    for (uint32_t layer = 0; layer < layers; layer++) {
        for (unsigned id = 0; id < LINEAR_COUNT; id++, f->r.n_linears++)
            fake_linear(&f->r.linears[f->r.n_linears], &f->plan.items[f->r.n_linears], layer, id);
        fake_stage(&f->r.stages[f->r.n_stages++], STAGE_ATTN, layer);
        fake_stage(&f->r.stages[f->r.n_stages++], STAGE_FFN, layer);
    }
    fake_stage(&f->r.stages[f->r.n_stages++], STAGE_SCALES, 0);
    f->plan.n_items = f->r.n_linears;
    memcpy(f->r.phases, phases, sizeof phases);
    f->r.blocks_done = layers;
    f->r.blocks_resumed = layers / 4;
    f->r.seconds = 17805;
    f->r.predicted_seconds = 16900;
    f->r.bpw = 2.125;
    f->r.mean_loss = 0.0423;
    f->r.out_bytes = 3900ull << 20;
    f->r.device_peak = 20ull << 30;
    f->r.host_peak = 3ull << 30;
    f->r.reach = 0.28;
    f->plan.n_layers = layers;
    f->plan.bpw = 2.125;
    f->plan.weights = 8030000000;
    f->plan.weights_quantized = 6980000000;
    f->plan.lines[0] = (struct memory_line){"block weights (f32)", 832ull << 20};
    f->plan.lines[1] = (struct memory_line){"Hessians", 1200ull << 20};
    f->plan.lines[2] = (struct memory_line){"optimiser state", 9ull << 30};
    f->plan.lines[3] = (struct memory_line){"activations of all windows", 8ull << 30};
    f->plan.lines[4] = (struct memory_line){"norms and tables", 3ull << 20};
    f->plan.n_lines = 5;
    f->plan.device_bytes = 19ull << 30;
    f->plan.device_limit = 22ull << 30;
    f->plan.host_bytes = 2ull << 30;
    f->plan.acts_tier = "device";
    f->plan.acts_bytes = 8ull << 30;
    f->plan.ctx = 2048;
    f->plan.samples = 128;
    f->plan.holdout = 16;
    f->in = (struct report_input){
        .o = &f->o, .plan = &f->plan, .result = &f->r, .device = "Radeon RX 7900 XTX",
        .command = "gsq quantize 'a <b> & \"c\"' -o out"};
    f->in.eval =
        (struct report_eval){true, "texts/wikitext-test.txt", 6.2412, 7.8851, 0.1932, 0.8123, 40, 2048, 0.051, 0.066, 0.004, 0.0021};
}

static void fake_free(struct fake *f)
{
    free(f->r.linears);
    free(f->r.stages);
    free(f->plan.items);
    args_free(&f->args);
}

/* ---- what every page must be
 * ------------------------------------------------------------------------------------ */

/* Every tag is closed in order, attributes are quoted, and no stray < or > or & is about. Returns NULL or
 * what is wrong. */
static const char *check_markup(const char *s)
{
    char open[64][16];
    size_t depth = 0;
    if (strncmp(s, "<!doctype html>", 15) != 0)
        return "no doctype";
    for (s += 15; *s; s++) {
        if (*s == '>')
            return "a stray >";
        if (*s == '&' &&
            (s[1] != '#' ? strspn(s + 1, "abcdefghijklmnopqrstuvwxyz") == 0 : s[2] < '0' || s[2] > '9'))
            return "a stray &";
        if (*s != '<')
            continue;
        bool closing = s[1] == '/';
        s += closing ? 2 : 1;
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz123456");
        if (n == 0 || n >= 16)
            return "a stray <";
        char name[16];
        memcpy(name, s, n);
        name[n] = 0;
        s += n;
        while (*s && *s != '>' && !(*s == '/' && s[1] == '>')) {
            if (*s++ != ' ')
                return "no blank before an attribute";
            n = strcspn(s, "=<> \"");
            if (s[n] != '=' || s[n + 1] != '"')
                return "an attribute without quotes";
            s += n + 2;
            n = strcspn(s, "\"<>");
            if (s[n] != '"')
                return "an attribute that does not end";
            s += n + 1;
        }
        if (*s == '/') {
            s++;
            continue;
        }
        if (!*s)
            return "a tag that does not end";
        if (closing) {
            if (depth == 0 || strcmp(open[--depth], name) != 0)
                return "a tag closed out of order";
            continue;
        }
        if (depth == 64)
            return "too deep";
        memcpy(open[depth++], name, sizeof name);
        if (strcmp(name, "style") == 0) { /* not markup */
            s = strstr(s, "</style>");
            if (!s)
                return "style does not end";
            s--;
        }
    }
    return depth ? "a tag left open" : NULL;
}

static bool holds_word(const char *s, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = s; (p = strstr(p, word)); p += n) {
        char before = p > s ? p[-1] : ' ', after = p[n];
        if (!(before >= 'a' && before <= 'z') && !(after >= 'a' && after <= 'z'))
            return true;
    }
    return false;
}

/* Writes, checks what holds for every page, and returns its text (to be freed). */
static char *page(const struct fake *f, const char *name)
{
    struct err e = {0};
    char path[256], *text;
    size_t n, bad;
    struct report_input in = f->in;
    struct gsq_setting *settings;
    snprintf(path, sizeof path, DIR_NAME "/%s.html", name);
    assert_true(report_settings(&f->args, &settings, &in.n_settings, &e));
    in.settings = settings;
    if (!report_html_write(path, &in, &e))
        fail_msg("%s", e.msg);
    report_settings_free(&settings, in.n_settings);
    assert_true(os_read_file(path, 64 << 20, &text, &n, &e));
    assert_int_equal(strlen(text), n);
    assert_true(utf8_valid(text, n, &bad));
    const char *wrong = check_markup(text);
    if (wrong)
        fail_msg("%s: %s", path, wrong);
    static const char *const outside[] = {
        "http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        if (strstr(text, outside[i]))
            fail_msg("%s holds %s", path, outside[i]);
    assert_false(holds_word(text, "nan") || holds_word(text, "inf") || holds_word(text, "-nan"));
    strcat(path, ".tmp");
    assert_int_equal(os_stat(path, NULL), OS_ABSENT);
    return text;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

/* ---- tests
 * ------------------------------------------------------------------------------------------------------ */

static void test_checker(void **state)
{
    (void)state;
    assert_null(check_markup("<!doctype html><p a=\"b\">x<br/>&amp;&#39;</p>"));
    assert_null(check_markup("<!doctype html><style>a>b{}</style>"));
    assert_non_null(check_markup("<p></p>"));
    assert_non_null(check_markup("<!doctype html><p>"));
    assert_non_null(check_markup("<!doctype html><p><b></p></b>"));
    assert_non_null(check_markup("<!doctype html><p>a & b</p>"));
    assert_non_null(check_markup("<!doctype html><p a=b></p>"));
    assert_non_null(check_markup("<!doctype html><p>a < b</p>"));
    assert_true(holds_word("x=\"nan\"", "nan") && !holds_word("financial", "nan"));
}

static void test_whole(void **state)
{
    (void)state;
    struct fake f;
    fake_run(&f, 32);
    char *text = page(&f, "whole");
    assert_int_equal(count(text, "<summary>Block "), 32);
    assert_non_null(strstr(text, "Llama-3.1-8B-Instruct"));
    assert_non_null(strstr(text, "Radeon"));
    assert_non_null(strstr(text, "7.885 &#177; 0.066<"));
    assert_non_null(strstr(text, "81.23 &#177; 0.21 %"));
    assert_non_null(strstr(text, "<pre>gsq quantize &#39;a &lt;b&gt; &amp; "));
    assert_non_null(strstr(text, "optimiser state"));
    assert_non_null(strstr(text, "predicted 4:41:40"));
    assert_non_null(strstr(text, "start kept"));
    assert_non_null(strstr(text, "rows rolled back"));
    /* A bar per linear and series, a curve per stage: soft and hard. */
    assert_true(count(text, "_proj, final: ") >= 224);
    assert_true(count(text, "<polyline") >= 2 * 65);
    assert_true(strlen(text) < 1 << 20);
    free(text);
    fake_free(&f);
}

static void test_small(void **state)
{
    (void)state;
    struct fake f;
    fake_run(&f, 3);
    f.args.windows = 40;
    f.args.q.steps = 123;
    char *text = page(&f, "small");
    assert_int_equal(count(text, "<summary>Block "), 0);
    assert_int_equal(count(text, "<h3>Block "), 3 + 6);
    /* Settings come from the option table. */
    for (const struct option *o = options; o->name; o++) {
        char want[64];
        snprintf(want, sizeof want, "<code>--%s</code>", o->name);
        if (o->section == SECTION_METHOD)
            assert_int_equal(count(text, want), 1);
    }
    assert_non_null(strstr(text, "<code>123</code><span class=\"tag\">set</span>"));
    free(text);
    fake_free(&f);
}

/* Nothing measured, nothing trained, no plan, no evaluation. */
static void test_bare(void **state)
{
    (void)state;
    struct fake f;
    fake_run(&f, 4);
    f.args.q.method = "rtn";
    f.o.method = METHOD_RTN;
    for (size_t i = 0; i < f.r.n_linears; i++) {
        struct linear_report *l = &f.r.linears[i];
        l->loss_rtn = l->loss_gptq = l->loss_final = NAN;
        l->stats = (struct code_stats){.lo = -128};
    }
    f.r.n_stages = 0;
    f.r.mean_loss = NAN;
    f.r.predicted_seconds = 0;
    memset(f.r.phases, 0, sizeof f.r.phases);
    f.in.plan = NULL;
    f.in.eval = (struct report_eval){0};
    char *text = page(&f, "bare");
    assert_non_null(strstr(text, "--eval FILE"));
    assert_null(strstr(text, "id=\"training\""));
    assert_non_null(strstr(text, "Not measured"));
    assert_non_null(strstr(text, "class=\"unused\"><td><code>--steps"));
    free(text);
    f.r.n_linears = 0;
    free(page(&f, "empty"));
    fake_free(&f);
}

/* Values that must not get into an attribute: not finite, zero, negative, equal, huge. */
static void test_odd_values(void **state)
{
    (void)state;
    static const double odd[] = {NAN, INFINITY, -INFINITY, 0, -1, 1e-300, 1e300, 1e-12, 1};
    enum { ODD = sizeof odd / sizeof *odd };
    struct fake f;
    fake_run(&f, 9);
    for (size_t i = 0; i < f.r.n_linears; i++) {
        f.r.linears[i].loss_rtn = odd[i % ODD];
        f.r.linears[i].loss_gptq = odd[i / 2 % ODD];
        f.r.linears[i].loss_final = odd[i / 3 % ODD];
        f.r.linears[i].seconds = odd[i % 3];
        f.r.linears[i].stats.bins = i % 3 ? CODE_BINS : 3;
    }
    for (size_t i = 0; i < f.r.n_stages; i++) {
        struct stage_report *s = &f.r.stages[i];
        s->loss_start = odd[i % ODD];
        s->loss_final = odd[i / 2 % ODD];
        s->seconds = odd[i % 3];
        s->n_soft = i % 4 ? (uint32_t)i : 1000;
        s->n_hard = i % 3 ? (uint32_t)i : 1000;
        s->best_epoch = (uint32_t)i * 7;
        s->epochs = i % 5 ? 1000 : 0;
        for (int p = 0; p < CURVE_POINTS; p++)
            s->soft[p] = (float)odd[(p + (int)i) % ODD];
        for (int p = 0; p < CURVE_EPOCHS; p++)
            s->hard[p] = i % 2 ? 0.25f : (float)odd[(p + (int)i) % ODD];
    }
    f.in.eval = (struct report_eval){true, NULL, INFINITY, NAN, NAN, NAN, 0, 0, NAN, NAN, NAN, NAN};
    f.r.bpw = f.r.mean_loss = f.r.seconds = f.r.predicted_seconds = f.r.reach = NAN;
    f.r.phases[0] = (struct phase_report){NAN, 1};
    f.r.phases[1] = (struct phase_report){1e-9, UINT64_MAX};
    free(page(&f, "odd"));
    fake_free(&f);
}

static void test_hostile(void **state)
{
    (void)state;
    struct fake f;
    fake_run(&f, 1);
    struct gsq_tensor_rule rules[] = {{"<&\">", "4,g64", false}, {"layers\\.0\\.'<b>", NULL, false}};
    struct gsq_tensor_rule *owned = malloc(sizeof rules);
    assert_non_null(owned);
    memcpy(owned, rules, sizeof rules);
    f.args.rules = owned;
    f.args.q.rules = owned;
    f.args.q.n_rules = 2;
    f.args.out = f.o.out_dir = "out\"onload=\"x";
    f.o.model_dir = HOSTILE;
    f.in.device = "a <b> & \"c\"";
    f.in.eval.text = HOSTILE;
    snprintf(f.r.linears[0].module, sizeof f.r.linears[0].module, "<i>\"layers.0.&q");
    f.plan.items[1].keep = true;
    snprintf(f.plan.items[1].module, sizeof f.plan.items[1].module, "</code><b x='1'>");
    char *text = page(&f, "hostile");
    assert_non_null(strstr(text, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;co&#39;"));
    assert_null(strstr(text, "<i>\"layers"));
    assert_non_null(strstr(text, "<code>&lt;&amp;&quot;&gt;=4,g64</code>"));
    free(text);
    fake_free(&f);
}

static void test_axes(void **state)
{
    (void)state;
    static const double ranges[][2] = {{0.012, 0.034},  {1e-9, 3},  {0.5, 0.5}, {7, 7.0001},
                                       {1e-300, 1e300}, {3, 40000}, {-20, -3}};
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
        for (int kind = 0; kind < 8; kind++) {
            struct axis a = {.log = kind & 1, .unit = kind & 2 ? AXIS_BYTES : AXIS_NUMBER};
            double ticks[AXIS_TICKS];
            axis_add(&a, ranges[r][0]);
            axis_add(&a, ranges[r][1]);
            axis_add(&a, NAN);
            axis_settle(&a, kind & 4);
            assert_true(isfinite(a.lo) && isfinite(a.hi) && a.lo < a.hi);
            for (unsigned most = 2; most <= 9; most++) {
                unsigned n = axis_ticks(&a, most, ticks);
                assert_true(n <= most);
                for (unsigned i = 1; i < n; i++)
                    assert_true(ticks[i] > ticks[i - 1]);
            }
            assert_true(axis_at(&a, a.lo) == 0 && axis_at(&a, a.hi) == 1 && axis_at(&a, NAN) == 0);
        }
    }
}

static void test_paths(void **state)
{
    (void)state;
    struct fake f;
    struct err e = {0};
    fake_run(&f, 1);
    assert_true(report_html_check(DIR_NAME "/r.html", "out", false, false, &e));
    assert_int_equal(os_stat(DIR_NAME "/r.html", NULL), OS_ABSENT); /* nothing is left behind */
    assert_true(report_html_check("r.html", "out", true, false, &e));
    assert_true(
        report_html_check(DIR_NAME "/out/r.html", DIR_NAME "/out/", false, false, &e)); /* the run creates it */
    assert_false(report_html_check(DIR_NAME "/none/r.html", "out", false, false, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, "none/r.html"));
    assert_string_not_equal(e.hint, "");
    assert_false(report_html_check(DIR_NAME, "out", false, false, &e));
    assert_string_not_equal(e.hint, "");
    assert_true(os_write_file(DIR_NAME "/r.html", "<html>mine</html>", 17, &e));
    assert_false(report_html_check(DIR_NAME "/r.html", "out", false, false, &e));
    assert_non_null(strstr(e.msg, "gsq did not write it"));
    assert_true(report_html_check(DIR_NAME "/r.html", "out", false, true, &e));
    assert_true(report_html_write(DIR_NAME "/r.html", &f.in, &e));
    assert_true(report_html_check(DIR_NAME "/r.html", "out", false, false, &e)); /* one of gsq's */
    assert_false(report_html_write(DIR_NAME "/none/r.html", &f.in, &e));
    assert_non_null(strstr(e.msg, "none/r.html"));
    fake_free(&f);
}

static int make_dir(void **state)
{
    (void)state;
    struct err e;
    return os_remove_tree(DIR_NAME) && os_mkdirs(DIR_NAME, &e) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    return os_getenv("GSQ_KEEP_REPORTS") || os_remove_tree(DIR_NAME) ? 0 : -1; /* to be looked at */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checker), cmocka_unit_test(test_whole),      cmocka_unit_test(test_small),
        cmocka_unit_test(test_bare),    cmocka_unit_test(test_odd_values), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_axes),    cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
