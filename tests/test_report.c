/* The report page: the page as it was built, with the run in it as JSON that cannot end its script, for runs of every shape.
 * What the page draws of these runs: tests/report_page.sh. */
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
#include "formats/json.h"
#include "lib/report_html.h"
#include "lib/report_page.h"
#include "host/base/os.h"
#include "host/base/str.h"

#define DIR_NAME "test_report.tmp"
#define HOSTILE  "models/<script>alert(\"1\")</script> & 'co' \xFF\x01"

/* ---- a run that never was ---- */

static const struct {
    const char *path;
    uint32_t rows, cols;
} shapes[] = {{"self_attn.q_proj", 4096, 4096}, {"self_attn.k_proj", 1024, 4096}, {"self_attn.v_proj", 1024, 4096},
              {"self_attn.o_proj", 4096, 4096}, {"mlp.gate_proj", 14336, 4096},   {"mlp.up_proj", 14336, 4096},
              {"mlp.down_proj", 4096, 14336}};

enum { LINEARS = sizeof shapes / sizeof *shapes }; /* of a block */

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

static void fake_linear(struct linear_report *l, struct matrix *item, uint32_t layer, unsigned id)
{
    double depth = layer / 32.0,
           base = (0.02 + 0.05 * depth) * (0.5 + draw()) * (strcmp(shapes[id].path, "self_attn.k_proj") == 0 ? 0.3 : 1);
    snprintf(l->module, sizeof l->module, "model.layers.%u.%s", (unsigned)layer, shapes[id].path);
    memcpy(item->module, l->module, sizeof item->module);
    item->layer = layer;
    item->place = id;
    item->part = block_part_named(NULL, shapes[id].path, strlen(shapes[id].path), NULL);
    item->rows = shapes[id].rows;
    item->cols = shapes[id].cols;
    item->coded = true;
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
        l->stats.scales[s] = (uint64_t)((double)n / 128 * exp(-0.5 * (s - 26.0 - id) * (s - 26.0 - id)) * 0.4);
    l->stats.negative = n / 128 / 3;
    l->stats.zero = item->part->role == ROLE_O ? 3 : 0;
}

static void fake_stage(struct stage_report *s, enum tune_stage stage, uint32_t layer)
{
    *s = (struct stage_report){
        .stage = stage, .layer = layer, .trained = {.steps = 1280, .epochs = 10, .seconds = 100 + 40 * draw()}};
    s->n_soft = CURVE_POINTS;
    s->n_hard = s->trained.epochs + 1;
    s->trained.loss_start = (0.03 + 0.1 * draw()) * (stage == STAGE_SCALES ? 3 : 1);
    for (uint32_t i = 0; i < s->n_soft; i++)
        s->soft[i] = (float)(s->trained.loss_start * (0.25 + 2.2 * exp(-(double)i / 9) + 0.05 * draw()));
    s->trained.loss_final = s->trained.loss_start;
    for (uint32_t i = 0; i < s->n_hard; i++) {
        s->hard[i] = (float)(s->trained.loss_start * (i ? 0.35 + 1.2 * exp(-(double)i / 2) + 0.06 * draw() : 1));
        if ((double)s->hard[i] < s->trained.loss_final) {
            s->trained.loss_final = (double)s->hard[i];
            s->trained.best_epoch = i;
        }
    }
    s->trained.retries = draw() < 0.05;
    if (layer == 5 && stage == STAGE_FFN) {
        s->trained.best_epoch = 0;
        s->trained.loss_final = s->trained.loss_start;
    }
}

/* Everything filled in; tests take away from it. */
static void fake_run(struct fake *f, uint32_t layers)
{
    static const struct phase_report phases[PHASE_COUNT] = {{310, 300, 9ull << 30},
                                                            {5400, 5300, 14ull << 30},
                                                            {9900, 9700, 18ull << 30},
                                                            {2100, 2000, 20ull << 30},
                                                            {95, 0, 1ull << 30}};
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
    f->r.linears = calloc((size_t)layers * LINEARS + 1, sizeof *f->r.linears);
    f->plan.items = calloc((size_t)layers * LINEARS + 1, sizeof *f->plan.items);
    f->r.stages = calloc(2u * layers + 1, sizeof *f->r.stages);
    assert_true(f->r.linears && f->plan.items && f->r.stages);
    for (uint32_t layer = 0; layer < layers; layer++) {
        for (unsigned id = 0; id < LINEARS; id++, f->r.n_linears++)
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
    f->in = (struct report_input){.o = &f->o,
                                  .plan = &f->plan,
                                  .result = &f->r,
                                  .device = "Radeon RX 7900 XTX",
                                  .source_bytes = 16060000000,
                                  .command = "gsq quantize 'a <b> & \"c\"' -o out"};
    f->in.eval = (struct report_eval){
        true, "texts/wikitext-test.txt", 6.2412, 7.8851, 0.1932, 0.8123, 40, 2048, 0.051, 0.066, 0.004, 0.0021};
}

static void fake_free(struct fake *f)
{
    free(f->r.linears);
    free(f->r.stages);
    free(f->plan.items);
    args_free(&f->args);
}

/* ---- what every page must be ---- */

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
        if (*s == '&' && (s[1] != '#' ? strspn(s + 1, "abcdefghijklmnopqrstuvwxyz") == 0 : s[2] < '0' || s[2] > '9'))
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
        if (strcmp(name, "style") == 0 || strcmp(name, "script") == 0) { /* not markup */
            char end[16];
            snprintf(end, sizeof end, "</%s>", name);
            s = strstr(s, end);
            if (!s)
                return "style or script does not end";
            s--;
        }
    }
    return depth ? "a tag left open" : NULL;
}

/* Writes, checks what holds for every page, and returns the run in it (to be deleted). */
static cJSON *page(const struct fake *f, const char *name)
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
    assert_true(n <= report_html_bytes(f->r.blocks_done));
    /* Nothing but the run was put into the page, and nothing of the run leaves its script. */
    assert_true(n > report_page_size);
    size_t size = n - report_page_size;
    char *json = text + report_page_run;
    assert_memory_equal(text, report_page, report_page_run);
    assert_memory_equal(json + size, report_page + report_page_run, report_page_size - report_page_run);
    for (size_t i = 0; i < size; i++)
        if (strchr("<>&", json[i]) || ((unsigned char)json[i] < 0x20 && !strchr("\n\t", json[i])))
            fail_msg("%s: the run holds %.40s", path, json + i);
    assert_null(strstr(text, "\xE2\x80\xA8"));
    assert_null(strstr(text, "\xE2\x80\xA9"));
    cJSON *run = json_parse(json, size, path, &e);
    if (!run)
        fail_msg("%s", e.msg);
    free(text);
    strcat(path, ".tmp");
    assert_int_equal(os_stat(path, NULL), OS_ABSENT);
    return run;
}

/* A member, by its path: "plan.device_memory.Hessians". */
static const cJSON *at(const cJSON *o, const char *path)
{
    char key[64];
    for (;;) {
        size_t n = strcspn(path, ".");
        assert_true(n < sizeof key);
        memcpy(key, path, n);
        key[n] = 0;
        o = cJSON_GetObjectItemCaseSensitive(o, key);
        if (!path[n])
            return o;
        path += n + 1;
    }
}

static double number(const cJSON *o, const char *path)
{
    const cJSON *v = at(o, path);
    if (!cJSON_IsNumber(v))
        fail_msg("%s is no number", path);
    return v->valuedouble;
}

static const char *words(const cJSON *o, const char *path)
{
    const cJSON *v = at(o, path);
    if (!cJSON_IsString(v))
        fail_msg("%s is no text", path);
    return v->valuestring;
}

/* cJSON writes 15 digits where that is near enough. */
static void assert_same(double a, double b)
{
    if (!(fabs(a - b) <= 1e-14 * fabs(b)))
        fail_msg("%.17g is not %.17g", a, b);
}

/* ---- tests ---- */

static void test_page(void **state)
{
    (void)state;
    static const char *const never[] = {"src=",           "href=",     "url(",
                                        "@import",        "<link",     "fetch",
                                        "XMLHttp",        "innerHTML", "insertAdjacentHTML",
                                        "outerHTML",      "eval(",     "import(",
                                        "document.write", "https:",    "//www.",
                                        "parser",         "setTimeout"};
    assert_null(check_markup("<!doctype html><p a=\"b\">x<br/>&amp;&#39;</p>"));
    assert_null(check_markup("<!doctype html><style>a>b{}</style><script>a&&b</script>"));
    assert_non_null(check_markup("<p></p>"));
    assert_non_null(check_markup("<!doctype html><p>"));
    assert_non_null(check_markup("<!doctype html><p><b></p></b>"));
    assert_non_null(check_markup("<!doctype html><p>a & b</p>"));
    assert_non_null(check_markup("<!doctype html><p a=b></p>"));
    assert_non_null(check_markup("<!doctype html><p>a < b</p>"));
    assert_int_equal(strlen(report_page), report_page_size);
    assert_null(check_markup(report_page));
    assert_non_null(
        strstr(report_page, "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "));
    /* Nothing from elsewhere; the one address is the name of SVG. */
    char *text = str_dup(report_page);
    assert_non_null(text);
    char *svg = strstr(text, "\"http://www.w3.org/2000/svg\"");
    assert_non_null(svg);
    memset(svg, ' ', strlen("\"http://www.w3.org/2000/svg\""));
    assert_null(strstr(text, "http:"));
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strstr(text, never[i]))
            fail_msg("the page holds %s", never[i]);
    free(text);
}

static void test_whole(void **state)
{
    (void)state;
    struct fake f;
    fake_run(&f, 32);
    cJSON *run = page(&f, "whole");
    const cJSON *linears = at(run, "linears"), *stages = at(run, "stages"), *l, *s;
    assert_int_equal(cJSON_GetArraySize(linears), 32 * LINEARS);
    assert_int_equal(cJSON_GetArraySize(stages), 65);
    assert_int_equal(cJSON_GetArraySize(at(run, "phases")), PHASE_COUNT);
    assert_string_equal(words(run, "result.model"), "models/Llama-3.1-8B-Instruct");
    assert_string_equal(words(run, "result.device"), "Radeon RX 7900 XTX");
    assert_string_equal(words(run, "command_line"), f.in.command);
    assert_same(number(run, "result.perplexity"), 7.8851);
    assert_same(number(run, "result.perplexity_error"), 0.066);
    assert_same(number(run, "result.top1_agreement_error"), 0.0021);
    assert_same(number(run, "result.source_bytes"), 16060000000);
    assert_same(number(run, "result.out_bytes"), (double)f.r.out_bytes);
    assert_same(number(run, "result.predicted_seconds"), 16900);
    assert_same(number(run, "plan.device_memory.optimiser state"), (double)(9ull << 30));
    assert_same(number(run, "plan.device_bytes"), (double)f.plan.device_bytes);
    assert_same(number(run, "plan.holdout"), 16);
    size_t i = 0, kept = 0;
    cJSON_ArrayForEach(l, linears)
    {
        const struct linear_report *want = &f.r.linears[i];
        assert_string_equal(words(l, "module"), want->module);
        assert_same(number(l, "rows"), f.plan.items[i++].rows);
        assert_same(number(l, "loss_rtn"), want->loss_rtn);
        assert_same(number(l, "loss"), want->loss_final);
        assert_same(number(l, "rows_rolled_back"), want->rows_rolled_back);
        assert_same(number(l, "codes.first"), -2);
        assert_int_equal(cJSON_GetArraySize(at(l, "codes.counts")), 4);
        assert_same(cJSON_GetArrayItem(at(l, "codes.counts"), 3)->valuedouble, (double)want->stats.codes[3]);
        /* Bins at the ends without a scale are left out, none with one. */
        double first = (number(l, "scales.log2_first") - SCALE_LOW) / number(l, "scales.log2_step");
        const cJSON *counts = at(l, "scales.counts");
        double sum = 0;
        for (int c = 0; c < cJSON_GetArraySize(counts); c++) {
            assert_same(cJSON_GetArrayItem(counts, c)->valuedouble, (double)want->stats.scales[(int)first + c]);
            sum += cJSON_GetArrayItem(counts, c)->valuedouble;
        }
        for (int c = 0; c < SCALE_BINS; c++)
            sum -= (double)want->stats.scales[c];
        assert_same(sum, 0);
    }
    i = 0;
    cJSON_ArrayForEach(s, stages)
    {
        const struct stage_report *want = &f.r.stages[i++];
        assert_string_equal(words(s, "stage"), stage_name(want->stage));
        if (want->stage == STAGE_SCALES)
            assert_null(at(s, "block"));
        else
            assert_same(number(s, "block"), want->layer + 1);
        assert_int_equal(cJSON_GetArraySize(at(s, "losses")), want->n_hard);
        assert_int_equal(cJSON_GetArraySize(at(s, "soft")), want->n_soft);
        assert_same(cJSON_GetArrayItem(at(s, "losses"), 1)->valuedouble, (double)want->hard[1]);
        assert_same(number(s, "loss"), want->trained.loss_final);
        kept += number(s, "best_epoch") == 0;
    }
    assert_true(kept > 0);
    cJSON_Delete(run);
    fake_free(&f);
}

/* The setting of that option; NULL: none. *n: how many. */
static const cJSON *setting(const cJSON *run, const char *name, int *n)
{
    const cJSON *s, *found = NULL;
    *n = 0;
    cJSON_ArrayForEach(s, at(run, "settings"))
    {
        if (strcmp(words(s, "name"), name) == 0) {
            found = s;
            ++*n;
        }
    }
    return found;
}

static void test_small(void **state)
{
    (void)state;
    struct fake f;
    int n;
    fake_run(&f, 3);
    f.args.windows = 40;
    f.args.q.steps = 123;
    cJSON *run = page(&f, "small");
    /* Settings come from the option table. */
    for (const struct option *o = options; o->name; o++) {
        char want[64];
        snprintf(want, sizeof want, "--%s", o->name);
        if (o->section == SECTION_METHOD) {
            setting(run, want, &n);
            assert_int_equal(n, 1);
        }
    }
    const cJSON *steps = setting(run, "--steps", &n);
    assert_string_equal(words(steps, "value"), "123");
    assert_true(cJSON_IsTrue(at(steps, "set")) && cJSON_IsTrue(at(steps, "used")));
    cJSON_Delete(run);
    f.o.refine = "some.gguf"; /* what it is measured against is the file */
    run = page(&f, "refined");
    assert_null(at(cJSON_GetArrayItem(at(run, "linears"), 0), "loss_rtn"));
    assert_same(number(cJSON_GetArrayItem(at(run, "linears"), 0), "loss_file"), f.r.linears[0].loss_rtn);
    cJSON_Delete(run);
    fake_free(&f);
}

/* Kimi-K2.5's number of experts, in all layers but the first: expert 7 of each saw 9 tokens, 11 none, and the errors of 200 and 3 are
 * the worst. */
enum { EXPERTS = 384, FEW = 7, NONE = 11, BAD = 200, WORSE = 3 };

static void fake_expert(struct linear_report *l, struct matrix *item, uint32_t layer, uint32_t expert, unsigned role)
{
    static const char *const names[] = {"gate", "up", "down"};
    char path[48];
    fake_linear(l, item, layer, 4 + role);
    snprintf(path, sizeof path, "mlp.experts.%u.%s_proj", expert, names[role]);
    snprintf(l->module, sizeof l->module, "model.layers.%u.%s", layer, path);
    memcpy(item->module, l->module, sizeof item->module);
    item->part = block_part_named(NULL, path, strlen(path), NULL);
    item->expert = expert;
    item->place = LINEARS - 3 + expert * 3 + role;
    item->rows = role == 2 ? 7168 : 2048;
    item->cols = role == 2 ? 2048 : 7168;
    for (int c = 0; c < 4; c++)
        l->stats.codes[c] = 2048 * 7168 / 4;
    l->loss_final = expert == BAD ? 0.5 : expert == WORSE ? 0.75 : 0.01 + 0.0001 * expert;
    l->loss_gptq = 2 * l->loss_final;
    l->loss_rtn = 4 * l->loss_final;
    l->rows_rolled_back = expert == WORSE;
    l->expert = (struct expert_report){.counted = true,
                                       .starved = expert == FEW || expert == NONE,
                                       .tokens = expert == NONE  ? 0
                                                 : expert == FEW ? 9
                                                                 : 10000 + expert};
}

static void test_experts(void **state)
{
    (void)state;
    struct fake f;
    enum { LAYERS = 61, OF_LAYER = LINEARS - 3 + 3 * EXPERTS };
    fake_run(&f, LAYERS);
    struct linear_report *linears = calloc((size_t)LAYERS * OF_LAYER, sizeof *linears);
    struct matrix *items = calloc((size_t)LAYERS * OF_LAYER, sizeof *items);
    assert_true(linears && items);
    size_t n = 0;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        size_t of = layer ? LINEARS - 3 : LINEARS;
        memcpy(linears + n, f.r.linears + (size_t)layer * LINEARS, of * sizeof *linears);
        memcpy(items + n, f.plan.items + (size_t)layer * LINEARS, of * sizeof *items);
        n += of;
        for (uint32_t i = 0; layer && i < EXPERTS * 3; i++, n++)
            fake_expert(&linears[n], &items[n], layer, i / 3, i % 3);
    }
    for (size_t i = 0; i < n; i++) /* as all of one layer are, and one of another */
        if ((items[i].layer == 60 && items[i].part->role == ROLE_UP) ||
            (items[i].layer == 59 && items[i].expert == 5 && items[i].part->role == ROLE_DOWN))
            items[i].coded = false;
    free(f.r.linears);
    free(f.plan.items);
    f.r.linears = linears;
    f.plan.items = items;
    f.r.n_linears = f.plan.n_items = n;
    cJSON *run = page(&f, "experts");
    char path[64];
    uint64_t size = 0;
    snprintf(path, sizeof path, DIR_NAME "/experts.html");
    assert_int_equal(os_stat(path, &size), OS_FILE);
    if (size > 1000000)
        fail_msg("the page has %llu bytes", (unsigned long long)size);
    const cJSON *groups = at(run, "expert_linears"), *one = cJSON_GetArrayItem(groups, 4), *bad = at(one, "worst");
    assert_int_equal(cJSON_GetArraySize(groups), 60 * 3);
    assert_int_equal(cJSON_GetArraySize(at(run, "linears")), LINEARS + 60 * (LINEARS - 3));
    assert_string_equal(words(one, "module"), "model.layers.2.mlp.experts.*.up_proj");
    assert_same(number(one, "block"), 3);
    assert_same(number(one, "linears"), EXPERTS);
    assert_same(number(one, "loss"), 0.01 + 0.0001 * 193); /* of 0 .. 383 without 3 and 200, and behind these the two */
    assert_same(number(one, "loss_least"), 0.01);
    assert_same(number(one, "loss_most"), 0.75);
    assert_true(fabs(number(one, "of_rtn") - 0.25) < 1e-12 && fabs(number(one, "of_gptq") - 0.5) < 1e-12);
    assert_same(number(one, "rows_rolled_back"), 1);
    assert_same(number(cJSON_GetArrayItem(bad, 0), "expert"), WORSE);
    assert_same(number(cJSON_GetArrayItem(bad, 1), "expert"), BAD);
    assert_same(number(cJSON_GetArrayItem(bad, 2), "expert"), EXPERTS - 1);
    assert_same(number(cJSON_GetArrayItem(bad, 0), "tokens"), 10000 + WORSE);
    double codes = 0;
    const cJSON *c;
    cJSON_ArrayForEach(c, at(at(one, "codes"), "counts")) codes += c->valuedouble;
    assert_true(fabs(codes / (2048.0 * 7168 * EXPERTS) - 1) < 1e-6);
    const cJSON *layer = cJSON_GetArrayItem(at(run, "experts"), 0), *few = at(layer, "fewest");
    assert_int_equal(cJSON_GetArraySize(at(run, "experts")), 60);
    assert_same(number(layer, "block"), 2);
    assert_same(number(layer, "starved"), 2);
    assert_same(number(layer, "tokens_least"), 0);
    assert_int_equal(cJSON_GetArraySize(few), 2);
    assert_same(number(cJSON_GetArrayItem(few, 0), "expert"), FEW);
    assert_same(number(cJSON_GetArrayItem(few, 1), "tokens"), 0);
    const cJSON *kept = at(run, "kept");
    assert_int_equal(cJSON_GetArraySize(kept), 2);
    assert_string_equal(cJSON_GetArrayItem(kept, 0)->valuestring, "model.layers.59.mlp.experts.*.down_proj");
    assert_string_equal(cJSON_GetArrayItem(kept, 1)->valuestring, "model.layers.60.mlp.experts.*.up_proj (384)");
    cJSON_Delete(run);
    fake_free(&f);
}

/* Nothing measured, nothing trained, no plan, no evaluation. */
static void test_bare(void **state)
{
    (void)state;
    struct fake f;
    int n;
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
    f.in.source_bytes = 0;
    f.in.eval = (struct report_eval){0};
    cJSON *run = page(&f, "bare");
    assert_true(cJSON_IsFalse(at(run, "evaluated")));
    assert_null(at(run, "result.perplexity"));
    assert_null(at(run, "result.source_bytes"));
    assert_true(cJSON_IsNull(at(run, "result.mean_loss")));
    assert_null(at(run, "plan"));
    assert_null(at(cJSON_GetArrayItem(at(run, "linears"), 0), "loss"));
    assert_null(at(cJSON_GetArrayItem(at(run, "linears"), 0), "codes"));
    assert_true(cJSON_IsFalse(at(setting(run, "--steps", &n), "used")));
    cJSON_Delete(run);
    f.r.n_linears = 0;
    cJSON_Delete(page(&f, "empty"));
    fake_free(&f);
}

/* Values that are hard to draw: not finite, zero, negative, equal, huge. */
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
        s->trained.loss_start = odd[i % ODD];
        s->trained.loss_final = odd[i / 2 % ODD];
        s->trained.seconds = odd[i % 3];
        s->n_soft = i % 4 ? (uint32_t)i : 1000;
        s->n_hard = i % 3 ? (uint32_t)i : 1000;
        s->trained.best_epoch = (uint32_t)i * 7;
        s->trained.epochs = i % 5 ? 1000 : 0;
        for (int p = 0; p < CURVE_POINTS; p++)
            s->soft[p] = (float)odd[(p + (int)i) % ODD];
        for (int p = 0; p < CURVE_EPOCHS; p++)
            s->hard[p] = i % 2 ? 0.25f : (float)odd[(p + (int)i) % ODD];
    }
    f.in.eval = (struct report_eval){true, NULL, INFINITY, NAN, NAN, NAN, 0, 0, NAN, NAN, NAN, NAN};
    f.r.bpw = f.r.mean_loss = f.r.seconds = f.r.predicted_seconds = f.r.reach = NAN;
    f.r.phases[0] = (struct phase_report){NAN, NAN, 1};
    f.r.phases[1] = (struct phase_report){1e-9, 0, UINT64_MAX};
    cJSON *run = page(&f, "odd");
    assert_true(cJSON_IsNull(at(run, "result.seconds")));
    assert_int_equal(cJSON_GetArraySize(at(cJSON_GetArrayItem(at(run, "stages"), 0), "soft")), CURVE_POINTS);
    cJSON_Delete(run);
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
    snprintf(f.r.linears[0].module, sizeof f.r.linears[0].module, "<i>\"layers.0.&q\xE2\x80\xA8\n");
    f.plan.items[1].coded = false;
    snprintf(f.plan.items[1].module, sizeof f.plan.items[1].module, "</code><b x='1'>");
    cJSON *run = page(&f, "hostile");
    int n;
    assert_string_equal(words(run, "result.model"), "models/<script>alert(\"1\")</script> & 'co' \\xff\\x01");
    assert_string_equal(words(run, "result.eval_text"), words(run, "result.model"));
    assert_string_equal(words(run, "result.out"), "out\"onload=\"x");
    assert_string_equal(words(cJSON_GetArrayItem(at(run, "linears"), 0), "module"), "<i>\"layers.0.&q\\u2028\n");
    assert_string_equal(cJSON_GetArrayItem(at(run, "kept"), 0)->valuestring, "</code><b x='1'>");
    const cJSON *rule = setting(run, "--tensor", &n);
    assert_non_null(rule);
    assert_non_null(strstr(words(rule, "value"), "<&\">=4,g64"));
    cJSON_Delete(run);
    fake_free(&f);
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
    assert_true(report_html_check(DIR_NAME "/out/r.html", DIR_NAME "/out/", false, false, &e)); /* the run creates it */
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
        cmocka_unit_test(test_page),  cmocka_unit_test(test_whole),      cmocka_unit_test(test_small),
        cmocka_unit_test(test_bare),  cmocka_unit_test(test_odd_values), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_paths), cmocka_unit_test(test_experts),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
