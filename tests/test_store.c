/* The store against damage: what is not whole is said and made anew, never read past its arrays, never
 * another run's. */
#include <math.h>

#include "host/base/log.h"
#include "host/base/version.h"
#include "host/quant/store/store_internal.h"

#define DIR_ "tmp_store"
#include "tests/scratch_dir.h"

#define WORK DIR_ "/work"
/* Layers of 7, 9 and 4 matrices: MIDDLE is the number of the second one's first. */
enum { LAYERS = 3, MIDDLE = 7, MOST = 9, ALL = 20, ROWS = 3, COLS = 40, GROUP = 16, GROUPS = 3 };

static const uint32_t first[LAYERS + 1] = {0, MIDDLE, MIDDLE + MOST, ALL};
static struct matrix items[ALL];
static struct qlinear linears[ALL];
static struct plan plan = {.items = items, .n_items = ALL, .n_layers = LAYERS};
static const struct store_field fields[] = {{"seed", "1"}, {"device", "one"}, {"kernels", "k"}};
#define FIELDS fields, sizeof fields / sizeof *fields

static struct store *open_ok(void)
{
    struct err e = {0};
    struct store *s;
    OK(store_open(&s, WORK, FIELDS, NULL, &e), e);
    assert_int_equal(e.kind, ERR_NONE); /* what is mended is no error of the command */
    return s;
}

static bool write_block(struct store *s, uint32_t layer, struct err *e)
{
    static const struct linear_report reports[MOST];
    static const struct stage_report stages[2];
    struct block_items b = plan_block(&plan, layer);
    return store_write_block(s, layer, b, linears + b.items[0].number, reports, stages, e);
}

/* A work folder with all blocks. */
static int setup(void **state)
{
    struct err e = {0};
    log_set_level(LOG_ERROR);
    if (make_dir(state) != 0)
        return -1;
    for (uint32_t i = 0, layer = 0; i < ALL; i++) {
        layer += i == first[layer + 1];
        items[i] = (struct matrix){.layer = layer,
                                   .place = i - first[layer],
                                   .number = i,
                                   .rows = ROWS,
                                   .cols = COLS,
                                   .coded = true,
                                   .spec = {quant_type_find("ternary"), GROUP, SCALE_F16}};
        snprintf(items[i].module, sizeof items[i].module, "model.layers.%u.mlp.experts.%u.up_proj", layer, i);
        OK(qlinear_init(&linears[i], ROWS, COLS, items[i].spec, &e), e);
        for (size_t k = 0; k < ROWS * COLS; k++)
            linears[i].codes[k] = (int8_t)((k + i) % 3) - 1;
        for (size_t k = 0; k < ROWS * GROUPS; k++)
            linears[i].scales[k] = 0.5f + (float)k;
    }
    struct store *s = open_ok();
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        OK(write_block(s, layer, &e), e);
    store_close(&s);
    return 0;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < ALL; i++)
        qlinear_free(&linears[i]);
    return remove_dir(state);
}

static void read_file(const char *path, char **data, size_t *size)
{
    struct err e = {0};
    OK(os_read_file(path, 1 << 24, data, size, &e), e);
}

/* Opens the folder and says which blocks are whole, as bits. What is whole is what was written. */
static unsigned whole(void)
{
    struct err e = {0};
    struct store *s = open_ok();
    unsigned bits = 0, n = store_check(s, &plan), counted = 0;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        if (!store_has_block(s, layer))
            continue;
        bits |= 1u << layer;
        counted++;
        for (uint32_t i = first[layer]; i < first[layer + 1]; i++) {
            struct qlinear q;
            struct linear_report r;
            OK(store_read_linear(s, &items[i], &q, &r, &e), e);
            assert_memory_equal(q.codes, linears[i].codes, ROWS * COLS);
            assert_memory_equal(q.scales, linears[i].scales, ROWS * GROUPS * sizeof(float));
            qlinear_free(&q);
        }
    }
    assert_int_equal(n, counted);
    store_close(&s);
    return bits;
}

/* Every bit of a header and one of each byte of the rest, one at a time. */
static void test_flips(void **state)
{
    (void)state;
    struct err e = {0};
    char *data;
    size_t size, tried = 0;
    read_file(WORK "/block-0001.safetensors", &data, &size);
    assert_int_equal(whole(), 7);
    for (size_t at = 0; at < size; at += at < 64 ? 1 : 29) {
        data[at] ^= (char)(1 << at % 8);
        OK(os_write_file(WORK "/block-0001.safetensors", data, size, &e), e);
        if (whole() != 5)
            fail_msg("byte %zu is not missed", at);
        data[at] ^= (char)(1 << at % 8);
        tried++;
    }
    assert_true(tried > 100);
    for (size_t cut = 0; cut < size; cut += size / 11) {
        OK(os_write_file(WORK "/block-0001.safetensors", data, cut, &e), e);
        assert_int_equal(whole(), 5);
    }
    OK(os_write_file(WORK "/block-0001.safetensors", data, size, &e), e);
    assert_int_equal(whole(), 7);
    free(data);
}

static void test_swapped(void **state)
{
    (void)state;
    struct err e = {0};
    OK(os_rename(WORK "/block-0000.safetensors", WORK "/x", &e), e);
    OK(os_rename(WORK "/block-0002.safetensors", WORK "/block-0000.safetensors", &e), e);
    OK(os_rename(WORK "/x", WORK "/block-0002.safetensors", &e), e);
    assert_int_equal(whole(), 2);
}

/* A file of block 1 with a checksum that is right, and these values in all its linears. */
static void forge(uint64_t rows, uint32_t word, float scale)
{
    struct err e = {0};
    struct safetensors *real;
    struct safetensors_writer *w;
    struct tensor_plan tensors[2 * MOST];
    char names[2 * MOST][128], run[64];
    OK(safetensors_open_file(&real, WORK "/block-0000.safetensors", &e), e);
    snprintf(run, sizeof run, "%s", safetensors_metadata(real, "run"));
    safetensors_close(&real);
    const char *metadata[2][2] = {{SAFETENSORS_CHECKSUM, SAFETENSORS_NO_SUM_YET}, {"run", run}};
    for (int i = 0; i < 2 * MOST; i++) {
        snprintf(names[i], sizeof names[i], "%s.%s", items[MIDDLE + i / 2].module, i % 2 ? "scales" : "codes");
        tensors[i] =
            (struct tensor_plan){names[i], i % 2 ? DTYPE_F32 : DTYPE_U32, 2, {rows, i % 2 ? GROUPS : (COLS + 15) / 16}};
    }
    OK(safetensors_writer_open(&w, WORK "/block-0001.safetensors", tensors, 2 * MOST, (const char *const(*)[2])metadata,
                               2, &e),
       e);
    for (int i = 0; i < 2 * MOST; i++)
        for (uint64_t k = 0; k < rows * tensors[i].shape[1]; k++)
            OK(safetensors_writer_put(w, i % 2 ? (const void *)&scale : (const void *)&word, 4, &e), e);
    OK(safetensors_writer_close(&w, &e), e);
}

static void test_values(void **state)
{
    (void)state;
    struct err e = {0};
    struct store *s;
    forge(ROWS, 0xAAAAAAAA, NAN); /* codes all 0 */
    assert_int_equal(whole(), 5);
    forge(ROWS, 0xAAAAAAAA, INFINITY);
    assert_int_equal(whole(), 5);
    forge(ROWS, 0x00000000, 1); /* codes all -2: not ternary */
    assert_int_equal(whole(), 5);
    forge(ROWS + 1, 0xAAAAAAAA, 1);
    assert_int_equal(whole(), 5);
    forge(ROWS - 1, 0xAAAAAAAA, 1);
    assert_int_equal(whole(), 5);
    /* Nor is such a thing written. */
    s = open_ok();
    linears[MIDDLE].scales[4] = NAN;
    FAILS(write_block(s, 1, &e), e, ERR_BUG, "not finite");
    linears[MIDDLE].scales[4] = 4.5f;
    linears[MIDDLE].codes[7] = 2;
    FAILS(write_block(s, 1, &e), e, ERR_BUG, "outside its type's range");
    linears[MIDDLE].codes[7] = (int8_t)((7 + MIDDLE) % 3) - 1;
    e = (struct err){0};
    OK(write_block(s, 1, &e), e);
    store_close(&s);
    assert_int_equal(whole(), 7);
    /* And counting it stays within its bins. */
    struct qlinear q = linears[0];
    int8_t code = q.codes[0];
    q.codes[0] = 100;
    q.scales[0] = NAN;
    code_stats_of(&q, q.spec.type);
    q.codes[0] = code;
    q.scales[0] = 0.5f;
}

/* Scales of super-blocks: d, -dmin and integers come back as they went, and only what the type holds is written. */
static void test_super_blocks(void **state)
{
    (void)state;
    struct err e = {0};
    struct store *s = open_ok();
    static const struct linear_report reports[1];
    static const struct stage_report stages[2];
    const struct quant_type *type = quant_type_find("Q4_K");
    const struct matrix item = {.module = "m",
                                .layer = 1,
                                .part = items[0].part,
                                .rows = 2,
                                .cols = 512,
                                .coded = true,
                                .spec = {type, type->group, SCALE_F16}};
    const struct block_items one = {&item, 1};
    struct qlinear q, back;
    OK(qlinear_init(&q, 2, 512, item.spec, &e), e);
    enum { D = 2 * 2 * 2, INTEGERS = 2 * 2 * 16 }; /* rows, planes, super-blocks or groups */
    assert_int_equal(2 * quant_row_scales(&q.spec, 512), D);
    assert_int_equal(2 * quant_row_groups(&q.spec, 512), INTEGERS);
    for (int k = 0; k < D; k++)
        q.scales[k] = k / 2 % 2 ? -0.25f * (float)k : 0.5f * (float)k;
    for (int k = 0; k < INTEGERS; k++)
        q.integers[k] = (int8_t)k;
    OK(store_write_block(s, 1, one, &q, reports, stages, &e), e);
    OK(store_read_linear(s, &item, &back, NULL, &e), e);
    assert_memory_equal(back.scales, q.scales, D * sizeof *q.scales);
    assert_memory_equal(back.integers, q.integers, INTEGERS);
    /* Row 1, the second super-block's first group: its scale and its offset. */
    assert_true(qlinear_scale(&back, 1, 0, 8) == 2.5f * 40 && qlinear_scale(&back, 1, 1, 8) == -1.75f * 56);
    qlinear_free(&back);
    q.integers[20] = 64;
    FAILS(store_write_block(s, 1, one, &q, reports, stages, &e), e, ERR_BUG, "outside its type's range");
    q.integers[20] = -1;
    FAILS(store_write_block(s, 1, one, &q, reports, stages, &e), e, ERR_BUG, "outside its type's range");
    qlinear_free(&q);
    store_close(&s);
}

/* The manifest as an earlier gsq would have left it: whole, but the files beside it are others. */
static void earlier_format(void)
{
    struct err e = {0};
    char *data, hex[33];
    size_t size, at = strlen("{\n\t\"" SAFETENSORS_CHECKSUM "\":\t\""), n = strlen(SAFETENSORS_NO_SUM_YET);
    read_file(WORK "/manifest.json", &data, &size);
    char *format = strstr(data, "gsq work folder 3");
    assert_non_null(format);
    format[strlen("gsq work folder ")] = '2';
    struct hash128 h = hash_bytes(data, at, (struct hash128){0});
    h = hash_bytes(SAFETENSORS_NO_SUM_YET, n, h);
    hash_hex(hash_bytes(data + at + n, size - at - n, h), hex);
    memcpy(data + at, hex, n);
    OK(os_write_file(WORK "/manifest.json", data, size, &e), e);
    free(data);
}

/* The manifest: missing, damaged, with other fields. */
static void test_manifest(void **state)
{
    (void)state;
    struct err e = {0};
    struct store *s;
    char *data;
    size_t size;
    read_file(WORK "/manifest.json", &data, &size);
    for (size_t at = 0; at < size; at++) {
        data[at] ^= (char)(1 << at % 8);
        OK(os_write_file(WORK "/manifest.json", data, size, &e), e);
        assert_int_equal(whole(), 7);
        data[at] ^= (char)(1 << at % 8);
    }
    free(data);
    assert_true(os_remove(WORK "/manifest.json"));
    assert_int_equal(whole(), 7);
    /* Without it the blocks still say whose they are. */
    const struct store_field other[] = {{"seed", "2"}, {"device", "one"}, {"kernels", "k"}};
    assert_true(os_remove(WORK "/manifest.json"));
    FAILS(store_open(&s, WORK, other, 3, NULL, &e), e, ERR_USER, "its seed is 1, this run's is 2");
    /* Fields more and fewer. */
    const struct store_field more[] = {{"seed", "1"}, {"device", "one"}, {"kernels", "k"}, {"types", "3"}};
    FAILS(store_open(&s, WORK, more, 4, NULL, &e), e, ERR_USER, "its types is missing");
    FAILS(store_open(&s, WORK, fields + 1, 2, NULL, &e), e, ERR_USER, "this run's is missing");
    /* One of an earlier gsq, and blocks that are none. */
    s = open_ok();
    store_close(&s);
    earlier_format();
    FAILS(store_open(&s, WORK, FIELDS, NULL, &e), e, ERR_USER, "earlier gsq, whose files are of another format");
    OK(os_write_file(WORK "/manifest.json", "{\"gsq\": \"0.1.0\", \"kernels\": \"k\"}", 32, &e), e);
    FAILS(store_open(&s, WORK, FIELDS, NULL, &e), e, ERR_USER, "earlier gsq");
    assert_true(os_remove(WORK "/manifest.json"));
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        char path[64];
        snprintf(path, sizeof path, WORK "/block-%04u.safetensors", (unsigned)layer);
        OK(os_write_file(path, "none", 4, &e), e);
    }
    assert_int_equal(whole(), 0);
}

static void test_accept(void **state)
{
    (void)state;
    struct err e = {0};
    struct store *s;
    char value[64], *data;
    size_t size;
    const struct store_field moved[] = {{"seed", "1"}, {"device", "two"}, {"kernels", "l"}};
    FAILS(store_open(&s, WORK, moved, 3, NULL, &e), e, ERR_USER, "device was one, is two");
    assert_non_null(strstr(e.hint, "--accept device,kernels"));
    FAILS(store_open(&s, WORK, moved, 3, "device", &e), e, ERR_USER, "kernels was k, is l");
    /* What is accepted already belongs to the next command, too. */
    assert_null(strstr(e.msg, "device was"));
    assert_non_null(strstr(e.hint, "--accept kernels,device continues"));
    const struct store_field other_code[] = {{"seed", "1"}, {"device", "two"}, {"kernels", "k"}, {"version", "0"}};
    FAILS(store_open(&s, WORK, other_code, 4, "device", &e), e, ERR_USER, "this is gsq 0");
    assert_non_null(strstr(e.hint, "--accept version,device continues"));
    e = (struct err){0};
    OK(store_open(&s, WORK, moved, 3, "kernels,device", &e), e);
    assert_int_equal(store_check(s, &plan), LAYERS);
    store_close(&s);
    /* Noted, and from then on the run's own. */
    assert_true(store_recorded(WORK, "device", value, sizeof value));
    assert_string_equal(value, "two");
    read_file(WORK "/manifest.json", &data, &size);
    assert_non_null(strstr(data, "accepted"));
    assert_non_null(strstr(data, "\"one\""));
    free(data);
    OK(store_open(&s, WORK, moved, 3, NULL, &e), e);
    store_close(&s);
    /* What is asked for is never a matter of acceptance. */
    const struct store_field other[] = {{"seed", "2"}, {"device", "two"}, {"kernels", "l"}};
    FAILS(store_open(&s, WORK, other, 3, "device,kernels", &e), e, ERR_USER, "belongs to another run: its seed");
    assert_true(manifest_accept_check("gsq,version,memory,files,driver", &e));
    FAILS(manifest_accept_check("device,seed", &e), e, ERR_USER, "--accept seed is unknown");
}

/* A folder that other code began: never in silence, and by name. */
static void test_version(void **state)
{
    (void)state;
    struct err e = {0};
    struct store *s;
    struct store_field now[] = {{"seed", "1"}, {"device", "one"}, {"kernels", "k"}, {"version", "0.0.1 (of old)"}};
    /* The folder has no such field: what began it is known all the same. */
    FAILS(store_open(&s, WORK, now, 4, NULL, &e), e, ERR_USER, "was begun by gsq ");
    assert_non_null(strstr(e.msg, version_text()));
    assert_non_null(strstr(e.msg, "this is gsq 0.0.1 (of old)"));
    assert_non_null(strstr(e.hint, "--accept version"));
    assert_non_null(strstr(e.hint, "finish it with that version"));
    now[3].value = version_text();
    e = (struct err){0};
    OK(store_open(&s, WORK, now, 4, NULL, &e), e);
    store_close(&s);
    /* Accepted, and from then on the run's own. */
    now[3].value = "0.0.1 (of old)";
    OK(store_open(&s, WORK, now, 4, "version", &e), e);
    assert_int_equal(store_check(s, &plan), LAYERS);
    store_close(&s);
    OK(store_open(&s, WORK, now, 4, NULL, &e), e);
    store_close(&s);
    now[3].value = version_text();
    FAILS(store_open(&s, WORK, now, 4, NULL, &e), e, ERR_USER, "was begun by gsq 0.0.1 (of old)");
    /* Beside another difference it is one of the list; beside another run it is no matter. */
    now[1].value = "two";
    FAILS(store_open(&s, WORK, now, 4, "version", &e), e, ERR_USER, "device was one, is two");
    FAILS(store_open(&s, WORK, now, 4, NULL, &e), e, ERR_USER, "version was 0.0.1 (of old)");
    now[0].value = "2";
    FAILS(store_open(&s, WORK, now, 4, "version,device", &e), e, ERR_USER, "belongs to another run: its seed");
}

/* A linear comes back with the report that says `rolled`; nothing where it is not coded. */
static void expect_stored(struct store *s, const struct matrix *item, const struct qlinear *q, uint32_t rolled)
{
    struct qlinear back;
    struct linear_report report;
    struct err e = {0};
    if (!item->coded)
        return;
    OK(store_read_linear(s, item, &back, &report, &e), e);
    assert_memory_equal(back.codes, q->codes, ROWS * COLS);
    assert_int_equal(report.rows_rolled_back, rolled);
    qlinear_free(&back);
}

/* As many matrices as a layer of experts has. */
static void test_many(void **state)
{
    (void)state;
    enum { MANY = 384 };
    struct err e = {0};
    struct matrix *many = calloc(MANY, sizeof *many);
    struct qlinear *q = calloc(MANY, sizeof *q), back;
    struct linear_report *reports = calloc(MANY, sizeof *reports);
    const struct stage_report stages[HALF_COUNT] = {{.stage = STAGE_ATTN, .trained.steps = 3}};
    struct stage_report read[HALF_COUNT];
    assert_true(many && q && reports);
    for (uint32_t i = 0; i < MANY; i++) {
        many[i] = items[i % ALL];
        many[i].layer = 0;
        many[i].place = many[i].number = i;
        many[i].coded = i % 5 != 0;
        snprintf(many[i].module, sizeof many[i].module, "model.layers.0.mlp.experts.%u.up_proj", i);
        q[i] = linears[i % ALL];
        reports[i].rows_rolled_back = i;
    }
    const struct plan p = {.items = many, .n_items = MANY, .n_layers = 1};
    struct block_items b = plan_block(&p, 0);
    struct store *s = open_ok();
    assert_int_equal(b.n, MANY);
    OK(store_write_block(s, 0, b, q, reports, stages, &e), e);
    assert_int_equal(store_check(s, &p), 1);
    for (uint32_t i = 0; i < MANY; i++)
        expect_stored(s, &many[i], &q[i], i);
    FAILS(store_read_linear(s, &many[0], &back, NULL, &e), e, ERR_ENV, "does not hold");
    store_read_stages(s, 0, read);
    assert_int_equal(read[HALF_ATTN].trained.steps, 3);
    assert_int_equal(read[HALF_FFN].trained.steps, 0);
    store_close(&s);
    free(many);
    free(q);
    free(reports);
}

/* A block with experts: what all tokens go through, then a file for every four. Each stands for itself, and a block is whole when
 * all are; a folder that has all of it in one file serves as well. */
static void test_parts(void **state)
{
    (void)state;
    enum { COMMON = 2, EXPERTS = 10, PARTS = 4, N = COMMON + EXPERTS * EXPERT_MATRICES };
    static const char *const names[PARTS] = {WORK "/block-0000.safetensors", WORK "/block-0000-part-0001.safetensors",
                                             WORK "/block-0000-part-0002.safetensors",
                                             WORK "/block-0000-part-0003.safetensors"};
    static struct matrix many[N];
    static struct qlinear q[N];
    static struct linear_report reports[N];
    const struct stage_report stages[HALF_COUNT] = {{.stage = STAGE_ATTN, .trained.steps = 3}};
    const struct block_part *of_expert = block_part_at(0);
    struct err e = {0};
    struct store *s;
    char hex[2][33], *data;
    size_t size;
    for (size_t i = 0; !block_part_is_expert(of_expert); i++)
        of_expert = block_part_at(i);
    for (uint32_t i = 0; i < N; i++) {
        many[i] = items[i % ALL];
        many[i].layer = 0;
        many[i].place = many[i].number = i;
        many[i].expert = i < COMMON ? 0 : (i - COMMON) / EXPERT_MATRICES;
        many[i].coded = many[i].expert < 4 || many[i].expert > 7; /* of part 2 nothing */
        snprintf(many[i].module, sizeof many[i].module, "model.layers.0.mlp.experts.%u.up_proj", i);
        q[i] = linears[i % ALL];
        reports[i].rows_rolled_back = i;
    }
    const struct plan p = {.items = many, .n_items = N, .n_layers = 1};
    const struct block_items b = plan_block(&p, 0);
    /* All in one. */
    s = open_ok();
    OK(store_write_block(s, 0, b, q, reports, stages, &e), e);
    store_close(&s);
    for (uint32_t i = COMMON; i < N; i++)
        many[i].part = of_expert;
    assert_int_equal(store_parts(b), PARTS);
    assert_int_equal(store_part(b, 0).n, COMMON);
    assert_int_equal(store_part(b, 3).n, 2 * EXPERT_MATRICES);
    for (int one = 1; one >= 0; one--) {
        s = open_ok();
        if (!one) {
            OK(store_forget_part(s, 0, 0, &e), e);
            OK(store_write_block(s, 0, b, q, reports, stages, &e), e);
        }
        for (int part = 1; part < PARTS; part++)
            assert_int_equal(os_stat(names[part], NULL), one || part == 2 ? OS_ABSENT : OS_FILE);
        assert_int_equal(store_check(s, &p), 1);
        OK(store_hash_blocks(s, &p, hex[one], &e), e);
        for (uint32_t i = 0; i < N; i++)
            expect_stored(s, &many[i], &q[i], i);
        struct stage_report read[HALF_COUNT];
        store_read_stages(s, 0, read);
        assert_int_equal(read[HALF_ATTN].trained.steps, 3);
        store_close(&s);
    }
    assert_string_not_equal(hex[0], hex[1]);
    /* One that is missing, damaged, another's. */
    read_file(names[3], &data, &size);
    for (int how = 0; how < 3; how++) {
        if (how == 0)
            assert_true(os_remove(names[3]));
        if (how == 1)
            OK(os_write_file(names[3], data, size / 2, &e), e);
        if (how == 2) {
            char *other;
            size_t n;
            read_file(names[1], &other, &n);
            OK(os_write_file(names[3], other, n, &e), e);
            free(other);
        }
        s = open_ok();
        assert_int_equal(store_check(s, &p), 0);
        assert_false(store_has_block(s, 0));
        assert_int_equal(store_whole_parts(s, 0), 2); /* of the three that have a file */
        assert_false(store_has_part(s, 0, 3));
        e = (struct err){0};
        assert_false(store_hash_blocks(s, &p, hex[1], &e));
        e = (struct err){0};
        /* It alone is written anew. */
        const struct block_items last = store_part(b, 3);
        OK(store_forget_part(s, 0, 3, &e), e);
        OK(store_put_part(s, 0, last, q + last.items[0].place, reports + last.items[0].place, stages, &e), e);
        assert_int_equal(store_check(s, &p), 1);
        OK(store_hash_blocks(s, &p, hex[1], &e), e);
        assert_string_equal(hex[0], hex[1]);
        store_close(&s);
    }
    char *again;
    size_t n;
    read_file(names[3], &again, &n);
    assert_true(n == size && memcmp(again, data, n) == 0);
    free(again);
    free(data);
}

static void test_importance(void **state)
{
    (void)state;
    struct err e = {0};
    float sums[5] = {1, 2, 3, 4, 5}, got[5];
    struct store *s = open_ok();
    store_check(s, &plan);
    OK(store_write_importance(s, &plan, sums, 5, &e), e);
    assert_true(store_read_importance(s, &plan, got, 5));
    assert_memory_equal(got, sums, sizeof sums);
    assert_false(store_read_importance(s, &plan, got, 4));
    /* Other codes: it is not of these blocks. */
    linears[0].codes[0] = linears[0].codes[0] == 1 ? 0 : 1;
    OK(write_block(s, 0, &e), e);
    assert_false(store_read_importance(s, &plan, got, 5));
    store_remove(&s);
    assert_int_equal(os_stat(WORK, NULL), OS_ABSENT);
}

/* Hessians of outputs: as they were written, of those that have one; a file with a flipped bit counts as none. */
static void test_outputs(void **state)
{
    (void)state;
    struct err e = {0};
    float tiles[ROWS * ROWS] = {1, 2, 3, 2, 5, 6, 3, 6, 9};
    const float *all[MOST] = {[2] = tiles}, *got;
    struct store *s = open_ok();
    assert_false(store_has_outputs(s, 1));
    OK(store_write_outputs(s, 1, plan_block(&plan, 1), all, &e), e);
    store_close(&s);
    s = open_ok();
    assert_true(store_has_outputs(s, 1) && !store_has_outputs(s, 0));
    OK(store_outputs(s, &items[MIDDLE + 2], &got, &e), e);
    assert_non_null(got);
    assert_memory_equal(got, tiles, sizeof tiles);
    OK(store_outputs(s, &items[MIDDLE], &got, &e), e);
    assert_null(got);
    assert_false(store_outputs(s, &items[0], &got, &e));
    assert_int_equal(e.kind, ERR_ENV);
    /* Replaced as a whole. */
    tiles[0] = 7;
    OK(store_write_outputs(s, 1, plan_block(&plan, 1), all, &e), e);
    OK(store_outputs(s, &items[MIDDLE + 2], &got, &e), e);
    assert_true(got && got[0] == 7);
    store_close(&s);

    char *data;
    size_t size;
    read_file(WORK "/outputs-0001.safetensors", &data, &size);
    data[size - 3] ^= 1;
    OK(os_write_file(WORK "/outputs-0001.safetensors", data, size, &e), e);
    free(data);
    s = open_ok();
    assert_false(store_has_outputs(s, 1));
    store_remove(&s);
    assert_int_equal(os_stat(WORK, NULL), OS_ABSENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_flips, setup, teardown),
        cmocka_unit_test_setup_teardown(test_swapped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_super_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_manifest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_accept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_importance, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outputs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
