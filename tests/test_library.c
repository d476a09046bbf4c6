/* gsq.h as a program uses it: handles, sized structs, callbacks, stop and resume, what is refused and how it is said. */
#include <math.h>

#include "lib/gsq.h"
#include "tests/check.h"

#define DIR_ "library-test"
#include "tests/scratch_dir.h"

static struct gsq_error e;
static gsq_device *device;
static gsq_model *model;
static char demo[1024], calib[1100], eval_text[1100];

#define WORKS(call)                                                                                                    \
    do {                                                                                                               \
        if (!(call))                                                                                                   \
            fail_msg("%s: %s", #call, e.message);                                                                      \
    } while (0)
#define REFUSED(call, want, part)                                                                                      \
    do {                                                                                                               \
        e = (struct gsq_error){0};                                                                                     \
        assert_false(call);                                                                                            \
        if (e.kind != (want) || !strstr(e.message, part))                                                              \
            fail_msg("%s: kind %d, \"%s\" has no \"%s\"", #call, (int)e.kind, e.message, part);                        \
    } while (0)

static int open_all(void **state)
{
    const char *source = os_getenv("GSQ_SOURCE");
    snprintf(demo, sizeof demo, "%s/models/demo", source ? source : "..");
    snprintf(calib, sizeof calib, "%s/calib.txt", demo);
    snprintf(eval_text, sizeof eval_text, "%s/eval.txt", demo);
    return make_dir(state) == 0 && gsq_device_open(&device, NULL, &e) && gsq_model_open(&model, demo, &e) ? 0 : -1;
}

/* A quick run: seconds. */
static void quick(struct gsq_quantize_options *o, const char *out)
{
    gsq_quantize_options_init(o);
    assert_true(gsq_quantize_options_set_effort(o, "balanced"));
    o->out = out;
    o->calib = calib;
    o->context = 32;
    o->samples = 8;
    o->steps = 10;
    o->epochs = 1;
    o->scale_epochs = 1;
}

static void same_file(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    struct err why;
    OK(os_read_file(a, 1 << 28, &x, &n, &why), why);
    OK(os_read_file(b, 1 << 28, &y, &m, &why), why);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void test_info(void **state)
{
    (void)state;
    struct gsq_model_info m = {.size = sizeof m};
    struct gsq_device_info d = {.size = sizeof d};
    gsq_model_get_info(model, &m);
    assert_string_equal(m.architecture, "LlamaForCausalLM");
    assert_true(m.supported && m.layers > 0 && m.hidden_size > 0 && m.vocab_size > 0 && m.bytes > 100000);
    gsq_device_get_info(device, &d);
    assert_true(d.name[0] && d.kind[0] && d.memory_limit > 0 && d.memory_limit <= d.memory_bytes);
    assert_true(strlen(gsq_version()) >= 5);
    char *text = gsq_devices_text(&e), *json = gsq_devices_json(&e);
    assert_true(text && strstr(text, d.name));
    assert_true(json && json[0] == '[' && strstr(json, d.name));
    gsq_free(text);
    gsq_free(json);
    text = gsq_kernels_text(device, &e);
    json = gsq_kernels_json(device, &e);
    assert_true(text && strstr(text, "gemm"));
    assert_true(json && strstr(json, "\"gemm\":\""));
    gsq_free(text);
    gsq_free(json);
    gsq_free(NULL);
}

/* What is in a model is told of any that opens, and what would be refused is said, not an error. */
static void test_inspect(void **state)
{
    (void)state;
    struct gsq_inspect_options o;
    gsq_model *odd = NULL;
    gsq_inspect_options_init(&o);
    char *text = gsq_model_text(model, NULL, &e), *json = gsq_model_json(model, &o, &e);
    assert_true(text && strstr(text, "formats at 2 bits, group 128") && !strstr(text, "\ntensors\n"));
    assert_true(json && strstr(json, "\"supported\":true") && strstr(json, "\"gptq\":{\"verdict\":\"ok\"}"));
    assert_null(strstr(json, "\"event\"")); /* that is the program's */
    assert_null(strstr(json, "\"tensors\":"));
    gsq_free(text);
    gsq_free(json);
    o.bits = "3";
    o.type = "q2_k";
    o.group = 64;
    o.tensors = true;
    text = gsq_model_text(model, &o, &e);
    json = gsq_model_json(model, &o, &e);
    assert_true(text && strstr(text, "formats at 3 bits, group 64; gguf as Q2_K") && strstr(text, "\ntensors\n"));
    assert_true(json && strstr(json, "\"tensors\":[{\"name\":"));
    gsq_free(text);
    gsq_free(json);
    o.type = "Q2_Z";
    REFUSED(gsq_model_text(model, &o, &e), GSQ_ERROR_USER, "Q2_Z");
    o.type = NULL;
    o.bits = "17";
    REFUSED(gsq_model_json(model, &o, &e), GSQ_ERROR_USER, "17");
    const struct gsq_inspect_options unset = {0};
    REFUSED(gsq_model_text(model, &unset, &e), GSQ_ERROR_USER, "size is not set");

    char config[4096] = "", path[1100];
    struct err why;
    char *from, *weights;
    size_t n, m;
    snprintf(path, sizeof path, "%s/config.json", demo);
    OK(os_read_file(path, sizeof config - 16, &from, &n, &why), why);
    snprintf(path, sizeof path, "%s/model.safetensors", demo);
    OK(os_read_file(path, 1 << 28, &weights, &m, &why), why);
    char *name = strstr(from, "LlamaForCausalLM");
    assert_non_null(name);
    snprintf(config, sizeof config, "%.*sZebraForCausalLM%s", (int)(name - from), from, name + 16);
    OK(os_mkdirs(DIR_ "/zebra", &why), why);
    OK(os_write_file(DIR_ "/zebra/config.json", config, strlen(config), &why), why);
    OK(os_write_file(DIR_ "/zebra/model.safetensors", weights, m, &why), why);
    free(from);
    free(weights);
    WORKS(gsq_model_open(&odd, DIR_ "/zebra", &e));
    text = gsq_model_text(odd, NULL, &e);
    json = gsq_model_json(odd, NULL, &e);
    assert_true(text && strstr(text, "ZebraForCausalLM") && strstr(text, "gsq quantize would refuse this model: "));
    assert_true(json && strstr(json, "\"supported\":false") && !strstr(json, "\"formats\""));
    gsq_free(text);
    gsq_free(json);
    gsq_model_close(&odd);
}

/* A caller that was compiled with an older, shorter struct gets no byte beyond it, and defaults for the rest. */
static void test_sizes(void **state)
{
    (void)state;
    struct gsq_model_info m;
    memset(&m, 0x5a, sizeof m);
    m.size = offsetof(struct gsq_model_info, layers);
    gsq_model_get_info(model, &m);
    assert_string_equal(m.model_type, "llama");
    assert_int_equal(m.layers, 0x5a5a5a5a);

    struct gsq_quantize_options o;
    memset(&o, 0x5a, sizeof o);
    gsq_quantize_options_init_sized(&o, offsetof(struct gsq_quantize_options, steps));
    assert_int_equal(o.steps, 0x5a5a5a5a);
    assert_int_equal(o.seed, 1);
    gsq_plan *plan = NULL;
    o.out = DIR_ "/sizes";
    o.method = "rtn";
    o.steps = 0; /* not read: it lies beyond the size */
    WORKS(gsq_plan_make(&plan, device, model, &o, NULL, &e));
    gsq_plan_free(&plan);

    struct gsq_quantize_options unset = {.out = DIR_ "/sizes"};
    REFUSED(gsq_plan_make(&plan, device, model, &unset, NULL, &e), GSQ_ERROR_USER, "size is not set");
    assert_null(plan);
}

struct seen {
    unsigned planned, progress, linears, stages, written, stop_after;
    double share;
};

static void on_planned(void *ctx, const gsq_plan *p)
{
    struct seen *s = ctx;
    struct gsq_plan_info info = {.size = sizeof info};
    gsq_plan_get_info(p, &info);
    assert_true(info.weights_quantized > 0 && info.bits_per_weight > 2 && info.bits_per_weight < 2.2);
    s->planned++;
}

static bool on_progress(void *ctx, const struct gsq_progress *p)
{
    struct seen *s = ctx;
    assert_true(p->size == sizeof *p && p->phase && p->done >= 0 && p->done <= 1.0001);
    s->progress++;
    s->share = p->done;
    return true;
}

static void on_linear(void *ctx, const struct gsq_linear *l)
{
    struct seen *s = ctx;
    assert_true(strstr(l->module, "_proj") && isfinite(l->loss));
    s->linears++;
    if (s->linears == s->stop_after)
        gsq_request_stop();
}

static void on_stage(void *ctx, const struct gsq_stage *t)
{
    struct seen *s = ctx;
    assert_true(t->name[0] && t->steps > 0 && isfinite(t->loss) && t->loss <= t->loss_start * 1.0001);
    assert_true(t->n_losses == t->epochs + 1 && fabs((double)t->losses[0] - t->loss_start) <= 1e-6 * t->loss_start);
    s->stages++;
}

static void on_written(void *ctx)
{
    struct seen *s = ctx;
    assert_true(s->planned == 1);
    s->written++;
}

static struct gsq_quantize_callbacks callbacks(struct seen *s)
{
    return (struct gsq_quantize_callbacks){.size = sizeof(struct gsq_quantize_callbacks),
                                           .ctx = s,
                                           .planned = on_planned,
                                           .progress = on_progress,
                                           .linear_done = on_linear,
                                           .stage_done = on_stage,
                                           .written = on_written};
}

static void test_run_stop_resume(void **state)
{
    (void)state;
    struct gsq_model_info m = {.size = sizeof m};
    struct gsq_quantize_options o;
    struct gsq_quantize_result r = {.size = sizeof r};
    struct seen whole = {0}, cut = {.stop_after = 10}, rest = {0};
    gsq_model_get_info(model, &m);
    quick(&o, DIR_ "/whole");
    struct gsq_quantize_callbacks cb = callbacks(&whole);
    WORKS(gsq_quantize(device, model, &o, &cb, &r, &e));
    assert_int_equal(whole.planned, 1);
    assert_int_equal(whole.linears, 7 * m.layers);
    assert_int_equal(whole.stages, 2 * m.layers + 1);
    assert_true(whole.progress > 0);
    assert_int_equal(r.blocks, m.layers);
    assert_int_equal(r.blocks_resumed, 0);
    assert_true(isfinite(r.mean_loss) && r.out_bytes > 0 && r.seconds > 0);
    assert_true(r.stage_loss <= r.stage_loss_start && r.reach > 0 && r.predicted_seconds > 0);
    assert_string_equal(r.method, "gsq");
    assert_string_equal(r.format, "gptq");
    assert_null(r.type);
    assert_true(r.written && !r.finished_before && !r.reported && isnan(r.perplexity) && whole.written == 1);
    WORKS(gsq_quantize(device, model, &o, NULL, &r, &e));
    assert_true(r.written && r.finished_before);

    quick(&o, DIR_ "/resumed");
    cb = callbacks(&cut);
    REFUSED(gsq_quantize(device, model, &o, &cb, &r, &e), GSQ_ERROR_STOPPED, "stopped");
    assert_int_equal(cut.written, 0);
    assert_int_equal(cut.linears, 10 + (7 * ((10 + 6) / 7) - 10)); /* the block's report comes whole */
    gsq_clear_stop();
    cb = callbacks(&rest);
    WORKS(gsq_quantize(device, model, &o, &cb, &r, &e));
    assert_true(r.blocks_resumed >= 1 && r.blocks_resumed < m.layers);
    same_file(DIR_ "/whole/model.safetensors", DIR_ "/resumed/model.safetensors");
}

static void test_eval(void **state)
{
    (void)state;
    struct gsq_quantize_options o;
    struct gsq_eval_options t;
    struct gsq_eval_result plain = {.size = sizeof plain}, r = {.size = sizeof r};
    gsq_model *small = NULL;
    quick(&o, DIR_ "/eval.gguf");
    o.method = "rtn";
    o.type = "Q2_0";
    WORKS(gsq_quantize(device, model, &o, NULL, NULL, &e));
    WORKS(gsq_model_open(&small, o.out, &e));
    gsq_eval_options_init(&t);
    t.text = eval_text;
    t.context = 64;
    t.windows = 4;
    WORKS(gsq_eval(device, model, &t, &plain, &e));
    assert_true(plain.perplexity > 1 && fabs(plain.perplexity - exp(plain.mean_nll)) < 1e-9 * plain.perplexity);
    assert_int_equal(plain.windows, 4);
    assert_int_equal(plain.scored, 4 * 63);
    WORKS(gsq_compare(device, small, model, &t, &r, &e));
    assert_true(r.mean_kl > 0 && r.mean_kl < 5 && r.top1 > 0.2 && r.top1 < 1);
    assert_true(r.reference_perplexity == plain.perplexity && r.perplexity > plain.perplexity);
    gsq_model_close(&small);
    gsq_model_close(&small); /* of nothing */
}

static void stop_now(void *ctx)
{
    (void)ctx;
    gsq_request_stop();
}

/* What the program does after a run, and what it says of the result. */
static void test_eval_report(void **state)
{
    (void)state;
    struct gsq_quantize_options o;
    struct gsq_quantize_result r = {.size = sizeof r};
    struct gsq_eval_options t;
    struct gsq_eval_result apart = {.size = sizeof apart};
    const struct gsq_setting setting = {"Options", "--colour", "green <&>", "of the walls", true, true};
    struct err why;
    gsq_model *small = NULL;
    char *page;
    size_t n;
    quick(&o, DIR_ "/judged.gguf");
    o.method = "rtn";
    o.bits = "2";
    o.context = 64;
    o.eval = eval_text;
    o.eval_windows = 3;
    o.report = DIR_ "/judged.html";
    o.settings = &setting;
    o.n_settings = 1;
    o.command = "paint --it green";
    WORKS(gsq_quantize(device, model, &o, NULL, &r, &e));
    assert_true(r.written && r.reported && r.eval_windows == 3 && r.eval_context == 64);
    assert_string_equal(r.type, "Q2_0");
    WORKS(gsq_model_open(&small, o.out, &e));
    gsq_eval_options_init(&t);
    t.text = eval_text;
    t.context = 64;
    t.windows = 3;
    WORKS(gsq_compare(device, small, model, &t, &apart, &e));
    gsq_model_close(&small);
    assert_true(r.perplexity == apart.perplexity && r.mean_kl == apart.mean_kl && r.top1 == apart.top1);
    assert_true(r.reference_perplexity == apart.reference_perplexity && r.mean_kl_error == apart.mean_kl_error);
    OK(os_read_file(o.report, 1 << 24, &page, &n, &why), why);
    assert_true(strstr(page, "paint --it green") && strstr(page, "green \\u003c\\u0026\\u003e"));
    free(page);

    /* A stop there leaves a complete model, and its figures. */
    const struct gsq_quantize_callbacks stop = {.size = sizeof stop, .written = stop_now};
    quick(&o, DIR_ "/unjudged");
    o.method = "rtn";
    o.eval = eval_text;
    r = (struct gsq_quantize_result){.size = sizeof r};
    REFUSED(gsq_quantize(device, model, &o, &stop, &r, &e), GSQ_ERROR_STOPPED, "stopped during the evaluation");
    gsq_clear_stop();
    assert_true(strstr(e.hint, "gsq compare") && r.written && r.out_bytes > 0 && isnan(r.perplexity));
    WORKS(gsq_model_open(&small, o.out, &e));
    gsq_model_close(&small);

    /* Refused before any work, with and without a device. */
    quick(&o, DIR_ "/y");
    o.eval = DIR_ "/nowhere.txt";
    REFUSED(gsq_quantize_check(model, &o, false, &e), GSQ_ERROR_USER, "nowhere.txt");
    REFUSED(gsq_quantize(device, model, &o, NULL, NULL, &e), GSQ_ERROR_USER, "nowhere.txt");
    WORKS(gsq_quantize_check(NULL, &o, false, &e));
    o.eval = NULL;
    o.report = calib;
    REFUSED(gsq_quantize(device, model, &o, NULL, NULL, &e), GSQ_ERROR_USER, "calib.txt");
    o.report = NULL;
    o.eval_windows = 3;
    REFUSED(gsq_quantize_check(NULL, &o, true, &e), GSQ_ERROR_USER, "--windows");
    o.eval_windows = 0;
    o.out = demo;
    REFUSED(gsq_quantize(device, model, &o, NULL, NULL, &e), GSQ_ERROR_USER, "demo");
    quick(&o, DIR_ "/y");
    o.calib = NULL; /* the model writes it */
    WORKS(gsq_quantize_check(model, &o, false, &e));
    o.bits = "2";
    o.type = "Q2_K";
    REFUSED(gsq_quantize_check(NULL, &o, true, &e), GSQ_ERROR_USER, "--bits and --type");
    quick(&o, DIR_ "/y");
    REFUSED(gsq_quantize(NULL, model, &o, NULL, NULL, &e), GSQ_ERROR_USER, "needs a device");
    assert_int_equal(os_stat(DIR_ "/y", NULL), OS_ABSENT);
}

/* llama-quantize's exceptions reach the file, and are refused where there is none. */
static void test_gguf_options(void **state)
{
    (void)state;
    static const char *const named[] = {"general.name=str:another", "general.quantized=bool:true"}, *const bad[] = {
                                                                                                        "x"};
    struct gsq_tensor_rule v = {"ATTN_V", "q8_0", true}, grouped = {"down_proj", "4,g32x", false};
    struct gsq_quantize_options o;
    gsq_plan *p = NULL;
    struct err why;
    char *file;
    size_t n;
    quick(&o, DIR_ "/named.gguf");
    o.method = "rtn";
    o.type = "q2_k";
    o.embedding_type = "q5_0";
    o.head_type = "8";
    o.rules = &v;
    o.n_rules = 1;
    o.overrides = named;
    o.n_overrides = 2;
    WORKS(gsq_plan_make(&p, NULL, model, &o, NULL, &e));
    char *json = gsq_plan_json(p);
    assert_true(strstr(json, "\"Q5_0\"") && strstr(json, "\"Q8_0\""));
    gsq_free(json);
    gsq_plan_free(&p);
    WORKS(gsq_quantize(device, model, &o, NULL, NULL, &e));
    OK(os_read_file(o.out, 1 << 28, &file, &n, &why), why);
    bool found = false;
    for (size_t i = 0; i + 7 < n && !found; i++)
        found = memcmp(file + i, "another", 7) == 0;
    free(file);
    assert_true(found);
    o.rules = &grouped;
    REFUSED(gsq_quantize_check(NULL, &o, true, &e), GSQ_ERROR_USER, "g and a group size");
    o.n_rules = 0;
    o.overrides = bad;
    o.n_overrides = 1;
    REFUSED(gsq_quantize_check(NULL, &o, true, &e), GSQ_ERROR_USER, "KEY=TYPE:VALUE");
    o.n_overrides = 0;
    o.head_type = "IQ2_XXS";
    REFUSED(gsq_quantize_check(NULL, &o, true, &e), GSQ_ERROR_USER, "IQ2_XXS");
    quick(&o, DIR_ "/folder");
    o.pure = true;
    REFUSED(gsq_quantize_check(NULL, &o, true, &e), GSQ_ERROR_USER, "--pure");
}

/* A type that rounds nothing: no device, and a plan of the size alone. */
static void test_copy(void **state)
{
    (void)state;
    struct gsq_quantize_options o;
    struct gsq_quantize_result r = {.size = sizeof r};
    struct gsq_plan_info info = {.size = sizeof info};
    gsq_plan *p = NULL;
    uint64_t size = 0;
    quick(&o, DIR_ "/copy.gguf");
    o.type = "bf16";
    WORKS(gsq_plan_make(&p, NULL, model, &o, NULL, &e));
    gsq_plan_get_info(p, &info);
    char *text = gsq_plan_text(p), *json = gsq_plan_json(p);
    assert_true(strstr(text, "a copy as BF16") && json[0] == '{');
    gsq_free(text);
    gsq_free(json);
    gsq_plan_free(&p);
    assert_int_equal(os_stat(o.out, NULL), OS_ABSENT);
    WORKS(gsq_quantize(NULL, model, &o, NULL, &r, &e));
    assert_int_equal(os_stat(o.out, &size), OS_FILE);
    assert_true(r.written && r.out_bytes == size && info.out_bytes == size);
    assert_string_equal(r.type, "BF16");
    o.group = 32;
    REFUSED(gsq_quantize(NULL, model, &o, NULL, &r, &e), GSQ_ERROR_USER, "all weights in one type");
}

/* Every name that is listed is found as itself; others have an error that names what there is. */
static void test_names(void **state)
{
    (void)state;
    static const struct {
        enum gsq_name_kind kind;
        const char *text, *name, *wrong, *part;
    } rows[] = {
        {GSQ_NAME_METHOD, "gptq", "gptq", "GPTQ", "is unknown"},
        {GSQ_NAME_EFFORT, "best", "best", "heroic", "is unknown"},
        {GSQ_NAME_START, "hessian", "hessian", "", "is unknown"},
        {GSQ_NAME_PROTOCOL, "llama.cpp", "llama.cpp", "llama", "is unknown"},
        {GSQ_NAME_BITS, "ternary", "ternary", "Q2_K", "a GGUF type"},
        {GSQ_NAME_FORMAT, "mlx", "mlx", "hf", "is unknown"},
        {GSQ_NAME_CONVERT_FORMAT, "hf", "hf", "none", "is unknown"},
        {GSQ_NAME_TYPE, "10", "Q2_K", "iq3_xxs", "cannot be written by gsq"},
        {GSQ_NAME_COPY_TYPE, "copy", "COPY", "Q2_K", "is unknown"},
        {GSQ_NAME_TENSOR_TYPE, "q4_k", "Q4_K", "Q4_K_M", "is a mixture"},
        {GSQ_NAME_GGUF_TYPE, "4", "Q4_0", "3", "not a GGUF type"},
        {GSQ_NAME_LLAMA_TYPE, "iq3_xxs", "iq3_xxs", "zebra", "is unknown"},
        {GSQ_NAME_OUTPUT_HESSIAN, "on", "on", "ON", "is unknown"},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const char *name;
        size_t n = 0;
        for (; (name = gsq_name_at(rows[r].kind, n)); n++) {
            const char *found = gsq_name_find(rows[r].kind, name, "--x", &e);
            if (!found || strcmp(found, name) != 0)
                fail_msg("%s is not itself but %s: %s", name, found ? found : "nothing", e.message);
        }
        assert_true(n >= 2 || rows[r].kind == GSQ_NAME_LLAMA_TYPE);
        name = gsq_name_find(rows[r].kind, rows[r].text, "--x", &e);
        if (!name)
            fail_msg("%s: %s", rows[r].text, e.message);
        assert_string_equal(name, rows[r].name);
        REFUSED(gsq_name_find(rows[r].kind, rows[r].wrong, "--x", &e), GSQ_ERROR_USER, rows[r].part);
        assert_true(strstr(e.message, "--x") && e.hint[0]);
    }
    char *place = gsq_model_locate(demo, &e);
    assert_string_equal(place, demo);
    gsq_free(place);
    REFUSED(gsq_model_locate("nobody/nothing", &e), GSQ_ERROR_USER, "nobody/nothing");
}

static void test_convert_imatrix(void **state)
{
    (void)state;
    struct gsq_convert_options c;
    struct gsq_imatrix_options i;
    gsq_model *m = NULL;
    gsq_convert_options_init(&c);
    c.out = DIR_ "/f16.gguf";
    c.type = "F16";
    WORKS(gsq_convert(model, &c, &e));
    WORKS(gsq_model_open(&m, c.out, &e));
    struct gsq_model_info info = {.size = sizeof info};
    gsq_model_get_info(m, &info);
    assert_true(info.supported && info.layers > 0);
    gsq_model_close(&m);
    gsq_imatrix_options_init(&i);
    i.out = DIR_ "/imatrix.gguf";
    i.calib = calib;
    i.samples = 2;
    i.context = 32;
    struct gsq_imatrix_result done = {.size = sizeof done};
    WORKS(gsq_imatrix(device, model, &i, &done, &e));
    assert_true(done.windows == 2 && done.context == 32 && done.entries > 7);
    assert_int_equal(os_stat(i.out, NULL), OS_FILE);
}

static void test_refused(void **state)
{
    (void)state;
    struct gsq_quantize_options o;
    struct gsq_eval_options t;
    struct gsq_eval_result r = {.size = sizeof r};
    gsq_model *m = (gsq_model *)1;
    gsq_plan *p = NULL;
    const struct gsq_tensor_rule keep = {.pattern = "down_proj"}, bad = {.pattern = "up_proj", .type = "7"},
                                 none = {.pattern = "", .type = "2"};
    REFUSED(gsq_model_open(&m, DIR_ "/nowhere", &e), GSQ_ERROR_USER, "nowhere");
    assert_null(m);
    assert_true(e.hint[0]);
    assert_false(gsq_model_open(&m, DIR_ "/nowhere", NULL)); /* the error may be left out */
    quick(&o, DIR_ "/x");
    o.out = NULL;
    REFUSED(gsq_plan_make(&p, device, model, &o, NULL, &e), GSQ_ERROR_USER, "out is not set");
    quick(&o, DIR_ "/x");
    o.method = "magic";
    REFUSED(gsq_plan_make(&p, device, model, &o, NULL, &e), GSQ_ERROR_USER, "magic");
    quick(&o, DIR_ "/x");
    o.bits = "17";
    REFUSED(gsq_plan_make(&p, device, model, &o, NULL, &e), GSQ_ERROR_USER, "17");
    quick(&o, DIR_ "/x.gguf");
    o.format = "gptq";
    REFUSED(gsq_plan_make(&p, device, model, &o, NULL, &e), GSQ_ERROR_USER, "x.gguf");
    quick(&o, DIR_ "/x");
    o.rules = &bad;
    o.n_rules = 1;
    REFUSED(gsq_plan_make(&p, device, model, &o, NULL, &e), GSQ_ERROR_USER, "7");
    o.rules = &none;
    REFUSED(gsq_plan_make(&p, device, model, &o, NULL, &e), GSQ_ERROR_USER, "pattern");
    assert_null(p);
    o.rules = &keep;
    struct gsq_plan_info info = {.size = sizeof info}, bare = {.size = sizeof bare};
    WORKS(gsq_plan_make(&p, NULL, model, &o, NULL, &e)); /* on a machine without a device */
    gsq_plan_get_info(p, &bare);
    gsq_plan_free(&p);
    assert_int_equal(bare.device_limit, 0);
    WORKS(gsq_plan_make(&p, device, model, &o, NULL, &e));
    gsq_plan_get_info(p, &info);
    assert_true(info.device_limit > 0 && bare.out_bytes == info.out_bytes);
    assert_true(info.weights_quantized > 0 && info.weights_quantized < info.weights);
    char *text = gsq_plan_text(p), *json = gsq_plan_json(p);
    assert_true(strstr(text, "16 bits") && strstr(text, DIR_ "/x"));
    assert_true(json[0] == '{' && strstr(json, "\"bits_per_weight\":"));
    gsq_free(text);
    gsq_free(json);
    gsq_plan_free(&p);
    assert_int_equal(os_stat(DIR_ "/x", NULL), OS_ABSENT); /* a plan writes nothing */
    assert_false(gsq_quantize_options_set_effort(&o, "heroic"));
    gsq_eval_options_init(&t);
    REFUSED(gsq_eval(device, model, &t, &r, &e), GSQ_ERROR_USER, "text is not set");
    t.text = eval_text;
    t.protocol = "guess";
    REFUSED(gsq_eval(device, model, &t, &r, &e), GSQ_ERROR_USER, "guess");
}

static void on_log(void *ctx, enum gsq_log_level level, const char *line)
{
    unsigned *warnings = ctx;
    *warnings += level == GSQ_LOG_WARNING && strchr(line, '\n') == NULL;
}

static void test_log(void **state)
{
    (void)state;
    struct gsq_quantize_options o;
    gsq_plan *p = NULL;
    unsigned warnings = 0;
    gsq_set_log(GSQ_LOG_WARNING, on_log, &warnings);
    quick(&o, DIR_ "/log");
    o.context = 64;
    o.samples = 1 << 20; /* more than the text holds */
    WORKS(gsq_plan_make(&p, device, model, &o, NULL, &e));
    gsq_plan_free(&p);
    assert_true(warnings > 0);
    gsq_set_log(GSQ_LOG_WARNING, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),    cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_run_stop_resume),
        cmocka_unit_test(test_eval),    cmocka_unit_test(test_convert_imatrix),
        cmocka_unit_test(test_log),     cmocka_unit_test(test_inspect),
        cmocka_unit_test(test_names),   cmocka_unit_test(test_eval_report),
        cmocka_unit_test(test_copy),    cmocka_unit_test(test_gguf_options),
    };
    int failed = cmocka_run_group_tests(tests, open_all, remove_dir);
    struct gsq_device_info d = {.size = sizeof d};
    if (device)
        gsq_device_get_info(device, &d);
    if (d.validation_messages)
        print_error("%u validation messages\n", (unsigned)d.validation_messages);
    gsq_model_close(&model);
    gsq_device_close(&device);
    return failed + (d.validation_messages != 0);
}
