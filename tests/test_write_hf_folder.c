/* formats/write/write_hf, the folder: shards, files that are carried along, dtypes, what is refused, what a failure
 * leaves. */
#ifndef _WIN32
#define _POSIX_C_SOURCE 200809L /* symlink */
#include <unistd.h>
#endif
#include "formats/write/carried.h"
#include "formats/write/export.h"
#include "formats/write/export_plan.h"
#include "formats/write/hf_linear.h"
#include "formats/write/hf_plan.h"
#include "formats/write/write_hf.h"
#include "host/base/pool.h"
#include "formats/gguf/gguf.h"
#include "tests/export_checks.h"

#define DIR_ "tmp_write_hf_folder"
#include "tests/scratch_dir.h"

#define BASE DIR_ "/base"
#define OUT  DIR_ "/out"

/* ---- the folder ---- */

static void test_shards(void **state)
{
    (void)state;
    struct items x;
    struct err e = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_BF16, .bias = true});
    items_all(&x, "2", 32, SCALE_BF16);
    os_remove_tree(OUT);
    OK(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_COMPRESSED_TENSORS}, &e), e);
    const struct export_options o = {.format = EXPORT_COMPRESSED_TENSORS, .shard_bytes = 20000};
    struct checkpoint *c = open_ok(BASE);
    uint64_t predicted = size_out(c, x.items, x.n, &o, NULL), actual = 0, size;
    checkpoint_close(&c);
    /* Over the single file of before, and a shard of an older numbering. */
    OK(os_rename(OUT "/model.safetensors", OUT "/model-00001-of-00099.safetensors", &e), e);
    write_text_file(OUT, "model.safetensors.bak", "not ours");
    write_text_file(OUT, "adapter.safetensors", "not ours");
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    assert_int_equal(os_stat(OUT "/model.safetensors", NULL), OS_ABSENT);
    assert_int_equal(os_stat(OUT "/model-00001-of-00099.safetensors", NULL), OS_ABSENT);
    assert_int_equal(os_stat(OUT "/model.safetensors.bak", NULL), OS_FILE);
    assert_int_equal(os_stat(OUT "/adapter.safetensors", NULL), OS_FILE);
    check_codes(OUT, &x);
    check_rest(BASE, OUT, &x, DTYPE_BF16);
    char *index = read_text(OUT, "model.safetensors.index.json");
    assert_non_null(strstr(index, "-of-00003"));
    free(index);
    const int n = 3;
    for (int i = 1; i <= n; i++) {
        char path[256];
        snprintf(path, sizeof path, OUT "/model-%05d-of-%05d.safetensors", i, n);
        assert_int_equal(os_stat(path, &size), OS_FILE);
        actual += size;
    }
    assert_int_equal(os_stat(OUT "/config.json", &size), OS_FILE);
    actual += size;
    assert_int_equal(os_stat(OUT "/model.safetensors.index.json", &size), OS_FILE);
    assert_int_equal(predicted, actual + size);
    /* And back to one file: index and shards go. */
    OK(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_GPTQ}, &e), e);
    assert_int_equal(os_stat(OUT "/model.safetensors.index.json", NULL), OS_ABSENT);
    check_codes(OUT, &x);
}

static void test_deterministic(void **state)
{
    (void)state;
    static const char *const metadata[][2] = {{"seed", "7"}, {"method", "gsq \"quoted\""}};
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "merges.txt",
                                        "chat_template.jinja"};
    struct items x;
    struct err e = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    write_text_file(BASE, "tokenizer.json", "{\"a\":  1}\r\n");
    write_text_file(BASE, "tokenizer_config.json", "");
    write_text_file(BASE, "merges.txt", "#version\na b\n");
    write_text_file(BASE, "chat_template.jinja", "{{ x }}");
    write_text_file(BASE, "README.md", "not carried");
    mixed(&x);
    for (int f = 0; export_is_packed((enum export_format)f); f++) {
        const struct export_options o = {.format = (enum export_format)f, .metadata = metadata, .n_metadata = 2};
        OK(write_random(DIR_ "/a", BASE, &x, &o, &e), e);
        OK(write_random(DIR_ "/b", BASE, &x, &o, &e), e);
        for (int i = 0; i < 5; i++)
            assert_same_file(DIR_ "/a", DIR_ "/b", files[i]);
        for (int i = 2; i < 5; i++)
            assert_same_file(DIR_ "/a", BASE, files[i]);
        assert_same_file(DIR_ "/a", BASE, "tokenizer_config.json");
        assert_int_equal(os_stat(DIR_ "/a/README.md", NULL), OS_ABSENT);
        struct safetensors *written;
        OK(safetensors_open_dir(&written, DIR_ "/a", &e), e);
        const char *seed = safetensors_metadata(written, "seed");
        if (f == EXPORT_GPTQ || f == EXPORT_GPTQ_V2)
            assert_config_has(DIR_ "/a", "\"seed\":\"7\",\"method\":\"gsq\\\"quoted\\\"\"}");
        else
            assert_string_equal(seed, "7");
        assert_string_equal(safetensors_metadata(written, "format"), f == EXPORT_MLX ? "mlx" : "pt");
        safetensors_close(&written);
    }
}

/* Named templates of a folder go where the others go; those of an earlier export do not stay. Links into the folder are
 * followed, others not. */
static void test_templates(void **state)
{
    (void)state;
    struct items x;
    struct err e = {0};
    const struct export_options o = {.format = EXPORT_GPTQ};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    write_text_file(BASE, "chat_template.jinja", "{{ x }}");
    mixed(&x);
    OK(os_mkdirs(BASE "/" EXPORT_TEMPLATES, &e), e);
    write_text_file(BASE "/" EXPORT_TEMPLATES, "rag.jinja", "{{ rag }}");
    write_text_file(BASE "/" EXPORT_TEMPLATES, "tool_use.jinja", "{{ tool }}");
    write_text_file(BASE "/" EXPORT_TEMPLATES, "notes.txt", "no template");
#ifndef _WIN32
    OK(os_mkdirs(DIR_ "/else", &e), e);
    write_text_file(DIR_ "/else", "secret", "of somebody");
    assert_int_equal(symlink("rag.jinja", BASE "/" EXPORT_TEMPLATES "/same.jinja"), 0);
    assert_int_equal(symlink("../../else/secret", BASE "/" EXPORT_TEMPLATES "/stolen.jinja"), 0);
#endif
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    assert_same_file(OUT, BASE, EXPORT_TEMPLATES "/rag.jinja");
    assert_same_file(OUT, BASE, EXPORT_TEMPLATES "/tool_use.jinja");
    assert_int_equal(os_stat(OUT "/" EXPORT_TEMPLATES "/notes.txt", NULL), OS_ABSENT);
#ifndef _WIN32
    assert_same_file(OUT, BASE, EXPORT_TEMPLATES "/same.jinja");
    assert_int_equal(os_stat(OUT "/" EXPORT_TEMPLATES "/stolen.jinja", NULL), OS_ABSENT);
#endif
    assert_true(os_remove(BASE "/" EXPORT_TEMPLATES "/rag.jinja"));
#ifndef _WIN32
    FAILS(write_random(OUT, BASE, &x, &o, &e), e, ERR_USER, "same.jinja is a broken link");
    assert_true(os_remove(BASE "/" EXPORT_TEMPLATES "/same.jinja"));
    e = (struct err){0};
#endif
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    assert_int_equal(os_stat(OUT "/" EXPORT_TEMPLATES "/rag.jinja", NULL), OS_ABSENT);
    assert_same_file(OUT, BASE, EXPORT_TEMPLATES "/tool_use.jinja");
    assert_true(os_remove_tree(BASE "/" EXPORT_TEMPLATES));
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    assert_int_equal(os_stat(OUT "/" EXPORT_TEMPLATES, NULL), OS_ABSENT);
#ifndef _WIN32
    /* A folder that is a link: of another model its templates, of anything else nothing; none is written through. */
    OK(os_mkdirs(DIR_ "/else/" EXPORT_TEMPLATES, &e), e);
    write_text_file(DIR_ "/else/" EXPORT_TEMPLATES, "lent.jinja", "{{ lent }}");
    write_text_file(DIR_ "/else", "no.jinja", "of somebody");
    assert_int_equal(symlink("../else/" EXPORT_TEMPLATES, BASE "/" EXPORT_TEMPLATES), 0);
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    assert_same_file(OUT, BASE, EXPORT_TEMPLATES "/lent.jinja");
    assert_true(os_remove(BASE "/" EXPORT_TEMPLATES));
    assert_int_equal(symlink("../else", BASE "/" EXPORT_TEMPLATES), 0);
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    assert_int_equal(os_stat(OUT "/" EXPORT_TEMPLATES, NULL), OS_ABSENT);
    assert_int_equal(symlink("../else", OUT "/" EXPORT_TEMPLATES), 0);
    FAILS(write_random(OUT, BASE, &x, &o, &e), e, ERR_USER, "is a link");
    assert_int_equal(os_stat(DIR_ "/else/no.jinja", NULL), OS_FILE);
    assert_true(os_remove(OUT "/" EXPORT_TEMPLATES));
#endif
}

static void test_dtypes(void **state)
{
    (void)state;
    struct items x;
    struct err e = {0};
    struct raw_model m;
    const struct export_options o = {.format = EXPORT_MLX};
    items_all(&x, "4", 32, SCALE_F16);
    /* F32 with a value beyond fp16: the whole model becomes bf16; not if only a quantized weight has it. */
    struct tiny_options t = {.dtype = DTYPE_F32, .config_extra = ",\"dtype\":\"float32\""};
    for (int dense = 0; dense < 2; dense++) {
        os_remove_tree(BASE);
        tiny_config(BASE, &t);
        tiny_tensors(&m, &t);
        raw_set(raw_find(&m, dense ? "lm_head.weight" : "model.layers.0.mlp.up_proj.weight"), 17, -65505.0f);
        struct raw_tensor *freq = raw_add(&m, "model.layers.0.self_attn.rotary_emb.inv_freq", DTYPE_F32, 0, 8);
        raw_set(freq, 0, 1e-7f);
        raw_add(&m, "model.some.position_ids", DTYPE_I64, 1, 16);
        raw_write(&m, BASE, true);
        raw_free(&m);
        OK(write_random(OUT, BASE, &x, &o, &e), e);
        struct checkpoint *c = open_ok(OUT);
        assert_int_equal(checkpoint_dense(c, "lm_head")->dtype, dense ? DTYPE_BF16 : DTYPE_F16);
        const struct tensor *f = checkpoint_tensor_find(c, "model.layers.0.self_attn.rotary_emb.inv_freq");
        assert_int_equal(f->dtype, DTYPE_F32);
        assert_int_equal(load_u32le(f->data), 0x33D6BF95);
        assert_int_equal(checkpoint_tensor_find(c, "model.some.position_ids")->dtype, DTYPE_I64);
        assert_config_has(OUT, dense ? "\"torch_dtype\":\"bfloat16\"" : "\"torch_dtype\":\"float16\"");
        assert_config_has(OUT, dense ? "\"dtype\":\"bfloat16\"" : "\"dtype\":\"float16\"");
        checkpoint_close(&c);
    }
    /* Said to be bf16, stored in F32. */
    t = (struct tiny_options){.dtype = DTYPE_F32, .torch_dtype = "bfloat16"};
    tiny_write(BASE, &t);
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    check_rest(BASE, OUT, &x, DTYPE_BF16);
    /* A tensor that threads share, and that is converted in several rounds. */
    char *one, *many;
    size_t size, again;
    raw_read(&m, BASE);
    raw_drop(&m, "model.embed_tokens.weight");
    raw_weight(&m, "model.embed_tokens.weight", DTYPE_F32, (5u << 20) / HIDDEN + 1, HIDDEN, &(uint32_t){1});
    raw_write(&m, BASE, false);
    raw_free(&m);
    pool_set_threads(1);
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    OK(os_read_file(OUT "/model.safetensors", 1u << 28, &one, &size, &e), e);
    pool_set_threads(5);
    OK(write_random(OUT, BASE, &x, &o, &e), e);
    OK(os_read_file(OUT "/model.safetensors", 1u << 28, &many, &again, &e), e);
    pool_set_threads(0);
    assert_int_equal(again, size);
    assert_memory_equal(many, one, size);
    check_rest(BASE, OUT, &x, DTYPE_BF16);
    free(one);
    free(many);
    /* What scales are rounded to. */
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int d = 0; d < 3; d++) {
        tiny_write(BASE, &(struct tiny_options){.dtype = dtypes[d]});
        struct checkpoint *c = open_ok(BASE);
        enum scale_type own = d == 2 ? SCALE_BF16 : SCALE_F16;
        assert_int_equal(export_scale_type(EXPORT_GPTQ, c), SCALE_F16);
        assert_int_equal(export_scale_type(EXPORT_GPTQ_V2, c), SCALE_F16);
        assert_int_equal(export_scale_type(EXPORT_MLX, c), own);
        assert_int_equal(export_scale_type(EXPORT_COMPRESSED_TENSORS, c), own);
        assert_int_equal(export_scale_type(EXPORT_HUMMING, c), own);
        checkpoint_close(&c);
    }
}

/* ---- refusals ---- */

static void test_check(void **state)
{
    (void)state;
    static const struct {
        enum export_format format;
        uint32_t rows, cols;
        const char *type;
        uint32_t group;
        unsigned container;
        enum export_verdict verdict;
        const char *part;
    } cases[] = {
        {EXPORT_GPTQ, 64, 64, "2", 32, 0, EXPORT_OK, ""},
        {EXPORT_GPTQ, 64, 64, "ternary", 128, 0, EXPORT_OK, ""},
        {EXPORT_GPTQ, 48, 64, "2", 32, 0, EXPORT_REFUSED, "--keep"},
        {EXPORT_GPTQ_V2, 64, 80, "2", 16, 0, EXPORT_REFUSED, "--keep"},
        {EXPORT_GPTQ, 64, 64, "5", 32, 0, EXPORT_REFUSED, "no 5-bit codes"},
        {EXPORT_GPTQ, 64, 160, "4", 128, 0, EXPORT_WARN, "GPTQModel's Torch kernel"},
        {EXPORT_GPTQ, 64, 64, "2", 32, 4, EXPORT_REFUSED, "--container"},
        {EXPORT_COMPRESSED_TENSORS, 7, 33, "5", 32, 0, EXPORT_WARN, "vLLM"},
        {EXPORT_COMPRESSED_TENSORS, 7, 33, "7", 0, 0, EXPORT_OK, ""},
        {EXPORT_COMPRESSED_TENSORS, 64, 64, "3", 32, 4, EXPORT_OK, ""},
        {EXPORT_COMPRESSED_TENSORS, 64, 64, "3", 32, 8, EXPORT_REFUSED, "--container"},
        {EXPORT_HUMMING, 64, 64, "7", 32, 0, EXPORT_OK, ""},
        {EXPORT_HUMMING, 96, 64, "2", 32, 0, EXPORT_REFUSED, "multiples of 64"},
        {EXPORT_HUMMING, 64, 48, "2", 16, 0, EXPORT_REFUSED, "of 32"},
        {EXPORT_HUMMING, 64, 192, "2", 96, 0, EXPORT_REFUSED, "power of two"},
        {EXPORT_HUMMING, 64, 96, "2", 64, 0, EXPORT_REFUSED, "smaller --group"},
        {EXPORT_MLX, 7, 64, "6", 64, 0, EXPORT_OK, ""},
        {EXPORT_MLX, 64, 64, "7", 64, 0, EXPORT_REFUSED, "no 7-bit codes"},
        {EXPORT_MLX, 64, 64, "4", 16, 0, EXPORT_REFUSED, "32, 64 and 128"},
        {EXPORT_MLX, 64, 256, "4", 0, 0, EXPORT_REFUSED, "32, 64 and 128"},
        {EXPORT_MLX, 64, 160, "4", 64, 0, EXPORT_REFUSED, "not a multiple of the group"},
        {EXPORT_NONE, 64, 64, "4", 64, 0, EXPORT_REFUSED, "--format"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char why[256] = "x";
        struct matrix item = {.module = "model.x",
                              .rows = cases[i].rows,
                              .cols = cases[i].cols,
                              .coded = true,
                              .spec = {quant_type_find(cases[i].type), cases[i].group, SCALE_F16}};
        enum export_verdict v = export_check(cases[i].format, NULL, &item, cases[i].container, why, sizeof why);
        if (v != cases[i].verdict || !strstr(why, cases[i].part) || (v == EXPORT_OK) != !why[0])
            fail_msg("case %zu: %d, %s", i, (int)v, why);
        assert_true(strlen(why) < sizeof why - 1);
    }
    for (int f = 0; f <= EXPORT_NONE; f++)
        assert_int_equal(export_format_parse(export_format_name((enum export_format)f)), f);
    assert_int_equal(export_format_parse("awq"), EXPORT_NONE);
}

static bool large_scale(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    if (!random_linear(NULL, item, q, e))
        return false;
    q->scales[9] = *(const float *)ctx;
    return true;
}

static bool failing(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    (void)ctx;
    (void)q;
    return err_set(e, ERR_ENV, "no codes for %s", item->module);
}

static bool wrong_size(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    struct matrix other = *item;
    other.cols /= 2;
    return random_linear(ctx, &other, q, e);
}

static bool stop(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    return done < total / 2;
}

struct seen {
    uint64_t done, total, calls;
};

static bool watch(void *ctx, uint64_t done, uint64_t total)
{
    struct seen *s = ctx;
    assert_true(done > s->done && done <= total);
    *s = (struct seen){done, total, s->calls + 1};
    return true;
}

static bool watched_linear(void *ctx, const struct matrix *item, struct qlinear *q, struct err *e)
{
    (void)ctx;
    return random_linear(NULL, item, q, e);
}

static bool nothing_left(void *ctx, const char *name, struct err *e)
{
    (void)ctx;
    return err_set(e, ERR_BUG, "%s was left behind", name);
}

static void test_failures(void **state)
{
    (void)state;
    struct items x;
    struct err e = {0};
    float big = 40000.0f, huge = 70000.0f;
    const struct export_options mlx = {.format = EXPORT_MLX}, gptq = {.format = EXPORT_GPTQ};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
    items_all(&x, "4", 32, SCALE_F16);
    struct checkpoint *c = open_ok(BASE);
    os_remove_tree(OUT);
    struct {
        struct export_source source;
        const struct export_options *o;
        enum err_kind kind;
        const char *part;
    } cases[] = {
        {{.linear = failing}, &gptq, ERR_ENV, "no codes for model.layers.0"},
        {{.linear = wrong_size}, &gptq, ERR_BUG, "codes in"},
        {{.ctx = &huge, .linear = large_scale}, &gptq, ERR_USER, "f16 cannot hold"},
        {{.ctx = &big, .linear = large_scale}, &mlx, ERR_USER, "needs -320000"},
        {{.linear = random_linear, .progress = stop}, &gptq, ERR_STOPPED, "stopped"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FAILS(write_out(OUT, c, x.items, x.n, cases[i].o, &cases[i].source, &e), e, cases[i].kind, cases[i].part);
        OK(os_list(OUT, nothing_left, NULL, &e), e);
    }
    struct seen seen = {0};
    OK(write_out(OUT, c, x.items, x.n, &gptq, &(struct export_source){&seen, watched_linear, watch, NULL}, &e), e);
    assert_int_equal(seen.done, seen.total);
    assert_true(seen.calls > 20);
    /* A failed rewrite leaves no folder that looks whole. */
    FAILS(write_out(OUT, c, x.items, x.n, &gptq, &cases[0].source, &e), e, ERR_ENV, "no codes");
    assert_int_equal(os_stat(OUT "/config.json", NULL), OS_ABSENT);
    const struct export_source ok = {.linear = random_linear};
    FAILS(write_out(DIR_ "/out/../base", c, x.items, x.n, &gptq, &ok, &e), e, ERR_USER, "own folder");
    assert_int_equal(os_stat(BASE "/config.json", NULL), OS_FILE);
    FAILS(hf_check_out(BASE "/", c, true, &e), e, ERR_USER, "own folder");
    tiny_write(DIR_ "/foreign", &(struct tiny_options){.dtype = DTYPE_F16});
    FAILS(write_out(DIR_ "/foreign", c, x.items, x.n, &gptq, &ok, &e), e, ERR_USER, "did not write");
    assert_int_equal(os_stat(DIR_ "/foreign/model.safetensors", NULL), OS_FILE);
    const struct export_options over = {.format = EXPORT_GPTQ, .force = true};
    OK(hf_check_out(DIR_ "/foreign", c, true, &e), e);
    OK(write_out(DIR_ "/foreign", c, x.items, x.n, &over, &ok, &e), e);
    OK(write_out(DIR_ "/foreign", c, x.items, x.n, &gptq, &ok, &e), e); /* now it is gsq's */
    /* Weights alone, as an interrupted download leaves them, and a tokenizer alone. */
    os_remove_tree(DIR_ "/foreign");
    tiny_write(DIR_ "/foreign", &(struct tiny_options){.dtype = DTYPE_F16});
    assert_true(os_remove(DIR_ "/foreign/config.json"));
    FAILS(write_out(DIR_ "/foreign", c, x.items, x.n, &gptq, &ok, &e), e, ERR_USER, "did not write");
    os_remove_tree(DIR_ "/foreign");
    OK(os_mkdirs(DIR_ "/foreign", &e), e);
    OK(os_write_file(DIR_ "/foreign/tokenizer.json", "{}", 2, &e), e);
    FAILS(write_out(DIR_ "/foreign", c, x.items, x.n, &gptq, &ok, &e), e, ERR_USER, "did not write");
    OK(os_write_file(DIR_ "/foreign/.gsq-lock", "1", 1, &e), e); /* of an export that was killed */
    OK(write_out(DIR_ "/foreign", c, x.items, x.n, &gptq, &ok, &e), e);
    OK(hf_check_out(DIR_ "/fresh/folder", c, false, &e), e);
    assert_int_equal(os_stat(DIR_ "/fresh", NULL), OS_ABSENT);
    FAILS(write_out(BASE "/config.json/x", c, x.items, x.n, &gptq, &ok, &e), e, ERR_USER, "config.json");
    strcpy(x.items[3].module, "model.layers.9.self_attn.o_proj");
    FAILS(write_out(OUT, c, x.items, x.n, &gptq, &ok, &e), e, ERR_USER, "layers.9.self_attn.o_proj.weight is missing");
    assert_int_equal(size_out(c, x.items, x.n, &gptq, NULL), 0);
    x.items[3] = x.items[2];
    FAILS(write_out(OUT, c, x.items, x.n, &gptq, &ok, &e), e, ERR_BUG, "twice");
    items_all(&x, "4", 32, SCALE_F16);
    x.items[4].rows = HIDDEN;
    FAILS(write_out(OUT, c, x.items, x.n, &gptq, &ok, &e), e, ERR_BUG, "128 x 64");
    checkpoint_close(&c);
}

/* What can be refused is refused before any code is asked for; types that nobody computes with are copied. */
static void test_foreign_types(void **state)
{
    (void)state;
    const struct export_options o = {.format = EXPORT_COMPRESSED_TENSORS};
    const enum dtype types[] = {DTYPE_F8_E4M3, DTYPE_F8_E5M2, DTYPE_F8_E8M0, DTYPE_C64, DTYPE_OTHER};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct items x;
        struct err e = {0};
        struct raw_model m = {0};
        os_remove_tree(OUT);
        tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16});
        raw_read(&m, BASE);
        struct raw_tensor *t = raw_add(&m, "extra.table", types[i], 8, 8);
        for (uint64_t k = 0; k < t->bytes; k++)
            t->data[k] = (uint8_t)(k * 37);
        raw_write(&m, BASE, false);
        raw_free(&m);
        items_all(&x, "2", 32, SCALE_F16);
        struct checkpoint *c = open_ok(BASE);
        uint64_t size = size_out(c, x.items, x.n, &o, &e);
        checkpoint_close(&c);
        if (types[i] == DTYPE_OTHER) {
            assert_int_equal(size, 0);
            assert_non_null(strstr(e.msg, "extra.table"));
            assert_non_null(strstr(e.msg, "cannot be carried"));
            continue;
        }
        OK(write_random(OUT, BASE, &x, &o, &e), e);
        struct raw_model made = {0};
        raw_read(&made, OUT);
        t = raw_find(&made, "extra.table");
        assert_int_equal(t->dtype, types[i]);
        assert_int_equal(t->shape[0] * t->shape[1], 64);
        for (uint64_t k = 0; k < t->bytes; k++)
            assert_int_equal(t->data[k], (uint8_t)(k * 37));
        raw_free(&made);
    }
}

/* No items: the model in 16 bits, without a word of quantization. */
static void test_nothing_quantized(void **state)
{
    (void)state;
    struct err e = {0};
    struct items x = {.n = 0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32, .tied = TIED_HEAD});
    OK(write_random(OUT, BASE, &x, &(struct export_options){.format = EXPORT_GPTQ}, &e), e);
    struct checkpoint *c = open_ok(OUT);
    assert_int_equal(checkpoint_config(c)->quant, QUANT_NONE);
    assert_string_equal(checkpoint_embedding_module(c), "lm_head");
    checkpoint_close(&c);
    check_rest(BASE, OUT, &x, DTYPE_F16);
}

/* A plan is made before hours of work, and written behind them: with the run's name as it is by then, and with another look at
 * where it goes. */
static void test_planned_before(void **state)
{
    (void)state;
    static const char name[] = "0123456789abcdef0123456789abcdef";
    struct err e = {0};
    struct export_plan *folder, *file;
    struct matrix *list;
    struct items x;
    char run[33] = "00000000000000000000000000000000", found[33];
    const char *const keys[][2] = {{GGUF_RUN, run}};
    uint64_t predicted, size;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F32});
    items_all(&x, "4", 32, SCALE_F16);
    struct checkpoint *c = open_ok(BASE);
    const struct export_options mlx = {.format = EXPORT_MLX, .run = run};
    const struct export_options gguf = {
        .format = EXPORT_GGUF, .file_type = -1, .metadata = keys, .n_metadata = sizeof keys / sizeof *keys};
    const struct export_source source = {.linear = random_linear};
    OK(checkpoint_matrices(c, &list, &x.n, &e), e); /* all in F32 */
    OK(export_plan_make(&folder, c, x.items, 14, &mlx, &e), e);
    OK(export_plan_make(&file, c, list, x.n, &gguf, &e), e);
    OK(export_plan_size(file, &predicted, &e), e);
    memcpy(run, name, sizeof run);
    os_remove_tree(OUT);
    OK(export_plan_write(folder, OUT, &source, &e), e);
    assert_true(export_run(OUT, found));
    assert_string_equal(found, name);
    OK(export_plan_write(file, DIR_ "/out.gguf", &source, &e), e);
    assert_true(gguf_run(DIR_ "/out.gguf", found));
    assert_string_equal(found, name);
    assert_int_equal(os_stat(DIR_ "/out.gguf", &size), OS_FILE);
    assert_int_equal(size, predicted);
    tiny_write(OUT, &(struct tiny_options){.dtype = DTYPE_F32});
    FAILS(export_plan_write(folder, OUT, &source, &e), e, ERR_USER, "did not write");
    FAILS(export_plan_write(file, BASE "/model.safetensors", &source, &e), e, ERR_USER, "is the model itself");
    os_remove_tree(OUT);
    OK(os_mkdirs(BASE "/tokenizer.json", &e), e);
    FAILS(export_plan_write(folder, OUT, &source, &e), e, ERR_USER, "tokenizer.json");
    FAILS(export_plan_write(file, DIR_ "/out.gguf", &source, &e), e, ERR_USER, "tokenizer.json");
    export_plan_free(&folder);
    export_plan_free(&file);
    free(list);
    checkpoint_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planned_before),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_nothing_quantized),
        cmocka_unit_test(test_foreign_types),
        cmocka_unit_test(test_templates),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
