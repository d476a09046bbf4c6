/* host/model on tiny models of every family: the forward pass against the reference in double, the tiers of
 * hidden states against each other, and what model_open refuses. */
#include "tests/device.h"
#include "tests/family_model.h"

#include <math.h>

#include "host/gpu/gpu_gemm.h"
#include "host/model/block_fwd.h"
#include "host/model/speed.h"
#include "host/model/stored_embedding.h"
#include "host/model/walk.h"

#define DIR_ "tmp_model"
#include "tests/scratch_dir.h"

enum { CTX = 19, WINDOWS = 5 };

static void random_ids(struct windows *w, uint32_t vocab)
{
    uint32_t seed = 5;
    *w = (struct windows){.n = WINDOWS, .ctx = CTX, .tokens = WINDOWS * CTX};
    w->ids = malloc(sizeof(uint32_t) * WINDOWS * CTX);
    assert_non_null(w->ids);
    for (int i = 0; i < WINDOWS * CTX; i++)
        w->ids[i] = tiny_random(&seed) % vocab;
}

/* A folder opened as checkpoint and model. */
struct opened {
    struct checkpoint *ck;
    struct model *m;
    struct raw_model raw;
};

static void open_shape(struct opened *o, const struct shape *s)
{
    struct err e = {0};
    family_write(DIR_, s, &o->raw);
    OK(checkpoint_open(&o->ck, DIR_, &e), e);
    OK(model_open(&o->m, cmd, o->ck, CTX, &e), e);
}

static void close_opened(struct opened *o)
{
    model_close(&o->m);
    checkpoint_close(&o->ck);
    raw_free(&o->raw);
}

static void compare(const char *what, const float *got, const double *want, size_t n, double tolerance)
{
    double scale = 0, worst = 0;
    for (size_t i = 0; i < n; i++)
        scale = fmax(scale, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, isnan(got[i]) ? INFINITY : fabs(got[i] - want[i]));
    if (!(worst <= tolerance * scale))
        fail_msg("%s: off by %g, the largest number is %g", what, worst, scale);
}

/* ---- forward ---- */

static void check_forward(const struct shape *s)
{
    struct opened o;
    struct windows w;
    struct family_numbers f;
    struct err e = {0};
    open_shape(&o, s);
    random_ids(&w, s->c.vocab);
    family_numbers(&f, &o.raw, s);
    struct ref_config c = s->c;
    c.ctx = CTX;
    size_t n = (size_t)WINDOWS * CTX * c.hidden;
    double *x = malloc(n * sizeof *x), *h = malloc(n * sizeof *h);
    float *got = malloc(n * sizeof *got);
    assert_true(x && h && got);

    struct gpu_arena *weights;
    struct gpu_view gx, gh;
    struct block_scratch scratch;
    OK(gpu_arena_create(&weights, gpu, "block", &e), e);
    OK(gpu_alloc(arena, n * 4, &gx, &e), e);
    OK(gpu_alloc(arena, n * 4, &gh, &e), e);
    OK(block_scratch_create(&scratch, arena, o.m, WINDOWS, SCRATCH_FORWARD, &e), e);
    OK(model_embed(o.m, w.ids, WINDOWS * CTX, NULL, gx, &e), e);
    OK(gpu_download(cmd, gx, got, n * 4, &e), e);
    family_embed(&f, s, w.ids, WINDOWS * CTX, x);
    compare("embeddings", got, x, n, 0);

    struct block_ahead ahead = {0};
    o.m->ahead = &ahead;
    for (uint32_t l = 0; l < s->layers; l++) {
        struct block_weights b = {0};
        char what[64];
        assert_int_equal(block_ahead_has(&ahead, l), l > 0); /* the first one is not read ahead */
        OK(model_load_block(o.m, l, weights, &b, &e), e);
        assert_true(ref_block_forward(&c, &f.blocks[l], WINDOWS, x, h, x));
        /* Once into a second view, once in place. */
        block_attn_fwd(o.m, &b, &scratch, gx, gh, WINDOWS);
        OK(gpu_download(cmd, gh, got, n * 4, &e), e);
        snprintf(what, sizeof what, "%s, block %u, attention", s->name, l);
        compare(what, got, h, n, 2e-5 * (l + 1));
        block_attn_fwd(o.m, &b, &scratch, gx, gx, WINDOWS);
        block_ffn_fwd(o.m, &b, &scratch, gh, gh, WINDOWS);
        block_ffn_fwd(o.m, &b, &scratch, gx, gx, WINDOWS);
        float *twice = malloc(n * sizeof *twice);
        assert_non_null(twice);
        OK(gpu_download(cmd, gh, twice, n * 4, &e) && gpu_download(cmd, gx, got, n * 4, &e), e);
        snprintf(what, sizeof what, "%s, block %u", s->name, l);
        compare(what, got, x, n, 2e-5 * (l + 1));
        assert_memory_equal(got, twice, n * 4);
        free(twice);
        OK(gpu_cmd_finish(cmd, &e), e);
        gpu_arena_reset(weights, 0);
        block_weights_free(&b);
        if (l + 1 < s->layers)
            block_ahead_begin(&ahead, gpu, o.ck, l + 1, model_block(o.m, l + 1));
    }
    o.m->ahead = NULL;
    block_ahead_free(&ahead);
    gpu_arena_reset(arena, 0);
    gpu_arena_destroy(&weights);
    family_numbers_free(&f);
    windows_free(&w);
    close_opened(&o);
    free(x);
    free(h);
    free(got);
}

static void test_forward(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++)
        check_forward(&shapes[i]);
}

static bool never(void *ctx)
{
    (void)ctx;
    return false;
}

/* Embeddings as types store them, with and without weights of their columns. */
static void check_stored_embedding(const struct opened *o, const struct windows *w)
{
    static const char *const types[] = {"Q8_0", "Q4_0", "IQ4_NL", "F16"};
    const uint32_t cols = o->m->cfg->hidden_size;
    const float scale = (float)config_factor(o->m->cfg->embedding_scale);
    const size_t n = (size_t)WINDOWS * CTX * cols;
    float *got = malloc(n * sizeof *got), *row = malloc(cols * sizeof *row),
          *importance = malloc(cols * sizeof *importance);
    uint8_t *packed = malloc(cols * sizeof(float));
    struct gpu_view x;
    struct err e = {0};
    OK(gpu_alloc(arena, n * 4, &x, &e), e);
    assert_true(got && row && importance && packed);
    for (uint32_t i = 0; i < cols; i++)
        importance[i] = (float)(i % 7 * i);
    for (int t = 0; t < 4; t++) {
        const struct gguf_type *type = gguf_type_named(types[t]);
        assert_int_equal(cols % type->block, 0);
        for (int weighed = 0; weighed < 2; weighed++) {
            const struct rounding as = {type, weighed ? importance : NULL};
            struct stored_embedding stored;
            OK(stored_embedding_create(&stored, o->ck, w->ids, WINDOWS * CTX, as, NULL, NULL, &e), e);
            OK(model_embed(o->m, w->ids, WINDOWS * CTX, &stored, x, &e) && gpu_download(cmd, x, got, n * 4, &e), e);
            stored_embedding_free(&stored);
            for (uint32_t i = 0; i < WINDOWS * CTX; i++) {
                OK(checkpoint_read_f32(o->ck, checkpoint_embedding_module(o->ck), w->ids[i], 1, row, &e), e);
                gguf_round_row(type, row, as.importance, cols, packed);
                gguf_dequant(type, packed, cols, row);
                for (uint32_t k = 0; k < cols; k++)
                    assert_true(got[(size_t)i * cols + k] == row[k] * scale);
            }
        }
    }
    /* Asked to stop; and a token that is not there. */
    const struct rounding as = {gguf_type_named("Q8_0"), NULL};
    struct stored_embedding stored;
    FAILS(stored_embedding_create(&stored, o->ck, w->ids, WINDOWS * CTX, as, never, NULL, &e), e, ERR_STOPPED,
          "stopped");
    assert_null(stored_embedding_of(&stored));
    w->ids[3] = o->m->cfg->vocab_size;
    FAILS(stored_embedding_create(&stored, o->ck, w->ids, WINDOWS * CTX, as, NULL, NULL, &e), e, ERR_USER,
          "outside the vocabulary");
    gpu_arena_reset(arena, 0);
    free(got);
    free(row);
    free(importance);
    free(packed);
}

static void test_stored_embedding(void **state)
{
    (void)state;
    static const char *const names[] = {"llama2", "gemma2", "qwen3"};
    for (int k = 0; k < 3; k++) {
        struct shape s = *shape_named(names[k]);
        struct opened o;
        struct windows w;
        s.c.hidden = 64;
        open_shape(&o, &s);
        random_ids(&w, s.c.vocab);
        check_stored_embedding(&o, &w);
        windows_free(&w);
        close_opened(&o);
    }
}

/* Who is asked first may refuse: the block is not there, and loading it says why. Another block than the one that was
 * begun is loaded as ever. */
static bool refuse(void *ctx, uint32_t layer, struct err *e)
{
    unsigned *times = ctx;
    return ++*times > 1 || err_set(e, ERR_USER, "block %u has changed", layer);
}

static void test_ahead(void **state)
{
    (void)state;
    struct opened o;
    struct err e = {0};
    unsigned times = 0;
    open_shape(&o, &shapes[0]);
    assert_true(shapes[0].layers > 1);
    struct block_ahead ahead = {.check = refuse, .ctx = &times};
    struct block_weights b = {0};
    o.m->ahead = &ahead;
    assert_true(block_ahead_bytes(o.ck, 0, model_block(o.m, 0)) >= 2 * (uint64_t)model_block_products(o.m, 0));
    block_ahead_begin(&ahead, gpu, o.ck, 1, model_block(o.m, 1));
    assert_true(block_ahead_has(&ahead, 1) && !block_ahead_has(&ahead, 0));
    FAILS(model_load_block(o.m, 1, arena, &b, &e), e, ERR_USER, "block 1 has changed");
    assert_false(block_ahead_has(&ahead, 1));
    gpu_arena_reset(arena, 0);
    OK(model_load_block(o.m, 1, arena, &b, &e), e);
    block_ahead_begin(&ahead, gpu, o.ck, 1, model_block(o.m, 1));
    OK(model_load_block(o.m, 0, arena, &b, &e), e);
    OK(block_ahead_wait(&ahead, &e), e);
    assert_true(block_ahead_has(&ahead, 1));
    assert_int_equal(times, 2);
    OK(gpu_cmd_finish(cmd, &e), e);
    block_weights_free(&b);
    block_ahead_free(&ahead);
    gpu_arena_reset(arena, 0);
    close_opened(&o);
}

/* ---- tiers and batches ---- */

/* The hidden states behind the last block. */
static void run_tier(struct model *m, const struct windows *w, const struct acts_options *o, enum acts_tier tier,
                     uint32_t batch, float *out)
{
    struct err e = {0};
    struct acts *a;
    struct gpu_arena *weights;
    struct gpu_view staging, x;
    struct block_scratch scratch;
    OK(gpu_arena_create(&weights, gpu, "block", &e), e);
    OK(gpu_alloc(arena, acts_bytes(m, batch), &staging, &e), e);
    OK(block_scratch_create(&scratch, arena, m, batch, SCRATCH_FORWARD, &e), e);
    assert_int_equal(acts_tier_for(o, acts_bytes(m, w->n)), tier);
    OK(acts_create(&a, m, w->n, o, &e), e);
    assert_int_equal(acts_where(a), tier);
    OK(acts_embed(a, w, NULL, w->n, staging, &e), e);
    for (uint32_t l = 0; l < m->cfg->num_layers; l++) {
        struct block_weights b = {0};
        OK(model_load_block(m, l, weights, &b, &e), e);
        struct walk k = {
            .cmd = cmd, .acts = a, .windows = w->n, .batch = batch, .even = l % 2, .staging = staging, .keep = true};
        while (walk_next(&k, &e)) {
            block_attn_fwd(m, &b, &scratch, k.x, k.x, k.n);
            block_ffn_fwd(m, &b, &scratch, k.x, k.x, k.n);
        }
        OK(walk_end(&k, &e), e);
        gpu_arena_reset(weights, 0);
        block_weights_free(&b);
    }
    uint64_t bytes = acts_bytes(m, 1);
    for (uint32_t i = 0; i < w->n; i++) {
        OK(acts_get(a, i, 1, staging, &x, &e), e);
        OK(gpu_download(cmd, x, (uint8_t *)out + i * bytes, bytes, &e), e);
    }
    acts_destroy(&a);
    assert_null(a);
    gpu_arena_reset(arena, 0);
    gpu_arena_destroy(&weights);
}

static void test_tiers(void **state)
{
    (void)state;
    /* The first one's windows start at any multiple of 4 bytes: most cannot be bound where they lie. */
    static const char *const names[] = {"llama-bias", "mistral"};
    for (int k = 0; k < 2; k++) {
        const struct shape *s = shape_named(names[k]);
        struct opened o;
        struct windows w;
        open_shape(&o, s);
        random_ids(&w, s->c.vocab);
        uint64_t bytes = acts_bytes(o.m, WINDOWS);
        float *first = malloc((size_t)bytes), *other = malloc((size_t)bytes);
        assert_true(first && other);
        const struct acts_options tiers[] = {
            [ACTS_DEVICE] = {.device_bytes = bytes},
            [ACTS_HOST] = {.device_bytes = bytes - 1, .host_bytes = bytes},
            [ACTS_FILE] = {.host_bytes = bytes - 1, .spill_dir = DIR_},
        };
        /* As on a device whose buffers hold less than all: batches of 3 cross from one chunk of 2 to the
         * next. */
        const struct acts_options chunks = {.device_bytes = bytes, .chunk_bytes = bytes / WINDOWS * 2};
        run_tier(o.m, &w, &tiers[ACTS_DEVICE], ACTS_DEVICE, WINDOWS, first);
        run_tier(o.m, &w, &chunks, ACTS_DEVICE, 3, other);
        assert_memory_equal(first, other, bytes);
        for (int tier = 0; tier < 3; tier++) {
            static const uint32_t batches[] = {1, 2, 3, WINDOWS};
            for (int b = 0; b < 4; b++) {
                memset(other, 0xff, (size_t)bytes);
                run_tier(o.m, &w, &tiers[tier], (enum acts_tier)tier, batches[b], other);
                if (memcmp(first, other, (size_t)bytes) != 0)
                    fail_msg("%s: tier %d, batch %u differs", s->name, tier, batches[b]);
            }
        }
        free(first);
        free(other);
        windows_free(&w);
        close_opened(&o);
    }
}

/* Windows on their way to a file: what was put last is what is read, whatever is still under way, and whether there is host
 * memory for the way (a buffer of this device may hold less than a batch) or not. */
static void behind(const char *limits)
{
    struct err e = {0};
    struct opened o;
    struct acts *a;
    os_setenv("GSQ_DEVICE_LIMITS", limits, true);
    device_open((struct gpu_options){0});
    open_shape(&o, shape_named("mistral"));
    const struct acts_options file = acts_in(ACTS_FILE, DIR_);
    const uint64_t bytes = acts_bytes(o.m, 1);
    const uint32_t n = (uint32_t)(((2u << 20) + bytes - 1) / bytes) * 2; /* a half of them is 2 MiB */
    struct gpu_view part[8], out, staging;
    for (int i = 0; i < 8; i++)
        OK(gpu_alloc(arena, bytes, &part[i], &e), e);
    OK(gpu_alloc_rows(arena, n / 2, bytes, 64, &staging, &e), e);
    OK(acts_create(&a, o.m, n, &file, &e), e);
    uint32_t *last = calloc(n, sizeof *last), *words = malloc((size_t)bytes);
    assert_true(last && words);
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t at = i * 7 % (i % 3 ? n : 3), read = i * 5 % n; /* often one that is under way */
        gpu_fill(cmd, part[i % 8], last[at] = i + 1);
        OK(acts_put(a, at, 1, part[i % 8], &e), e);
        acts_fetch(a, &read, 1);
        bool gathers = i % 2;
        out = gpu_slice(staging, 0, bytes);
        OK(gathers ? acts_gather(a, &read, 1, out, &e) : acts_get(a, read, 1, out, &out, &e), e);
        OK(gpu_download(cmd, out, words, bytes, &e), e);
        assert_true(!last[read] || (words[0] == last[read] && words[bytes / 4 - 1] == last[read]));
    }
    gpu_fill(cmd, staging, 7);
    OK(acts_put(a, 1, n / 2, staging, &e), e);
    OK(acts_get(a, n / 2, 1, part[0], &out, &e), e);
    OK(gpu_download(cmd, out, words, bytes, &e), e);
    assert_int_equal(words[3], 7);
    OK(acts_put(a, 0, n / 2, staging, &e), e); /* and is under way as all ends */
    acts_destroy(&a);
    free(last);
    free(words);
    gpu_arena_reset(arena, 0);
    close_opened(&o);
    assert_int_equal(device_close(), 0);
    os_setenv("GSQ_DEVICE_LIMITS", "", true);
}

static void test_behind(void **state)
{
    (void)state;
    behind("");
    behind("alloc=1");
}

/* ---- walks ---- */

/* Batches of all sizes: without a gap, in order, none larger than asked for; even ones differ by one at most. */
static void test_batches(void **state)
{
    (void)state;
    for (uint32_t windows = 0; windows < 40; windows++)
        for (uint32_t batch = 1; batch < 12; batch++)
            for (int even = 0; even < 2; even++) {
                struct walk k = {.windows = windows, .batch = batch, .even = even};
                uint32_t at = 0, n = 0, least = UINT32_MAX, most = 0;
                while (walk_next(&k, NULL)) {
                    assert_true(k.at == at && k.n > 0 && k.n <= batch && !k.ended);
                    at += k.n;
                    n++;
                    least = k.n < least ? k.n : least;
                    most = k.n > most ? k.n : most;
                }
                assert_true(k.ended && at == windows && n == (windows + batch - 1) / batch);
                assert_true(!even || n == 0 || most - least <= 1);
                assert_true(even || n < 2 || most == batch);
            }
}

static bool on_progress(void *ctx, const struct progress_event *ev)
{
    double *left = ctx;
    assert_string_equal(ev->unit, "windows");
    return *left -= 1, *left > 0 && ev->count > 0;
}

/* A stop comes behind the batch it was asked in, and the walk has not ended; nor has one that was left. */
static void test_stop(void **state)
{
    (void)state;
    for (int stop = 1; stop <= 4; stop++) {
        double left = stop;
        const struct progress to = {on_progress, &left};
        struct progress_watch watch;
        struct eta eta;
        struct err e = {0};
        uint32_t n = 0;
        eta_start(&eta, os_now_ns(), 0);
        progress_watch_begin(&watch, &to, &eta, NULL);
        struct walk k = {
            .cmd = cmd, .windows = 6, .batch = 2, .watch = &watch, .event = {.phase = "walk", .loss = NAN}};
        while (walk_next(&k, &e))
            n++;
        assert_int_equal(n, stop < 4 ? stop : 3);
        assert_true(walk_end(&k, &e) == (stop == 4) && e.kind == (stop == 4 ? ERR_NONE : ERR_STOPPED));
        progress_watch_end(&watch);
    }
    struct walk k = {.cmd = cmd, .windows = 6, .batch = 2};
    assert_true(walk_next(&k, NULL) && !walk_end(&k, NULL));
}

/* Bytes that an arena of its own holds with scratch for so many windows. */
static uint64_t scratch_held(const struct model *m, uint32_t windows)
{
    struct gpu_arena *own = NULL;
    struct block_scratch s;
    struct err e = {0};
    OK(gpu_arena_create(&own, gpu, "test", &e), e);
    OK(block_scratch_create(&s, own, m, windows, SCRATCH_FORWARD, &e), e);
    uint64_t held = gpu_arena_bytes(own);
    gpu_arena_destroy(&own);
    return held;
}

static void test_scratch_windows(void **state)
{
    (void)state;
    struct opened o;
    open_shape(&o, shape_named("llama2"));
    assert_int_equal(block_scratch_windows(o.m, UINT64_MAX, 7), 7);
    assert_int_equal(block_scratch_windows(o.m, 0, 7), 1);
    /* The most windows that real scratch has room for, and one less where a byte is missing. */
    uint64_t last = 0;
    for (uint32_t windows = 2000; windows < 5000; windows += 700) {
        uint64_t held = scratch_held(o.m, windows);
        uint32_t most = block_scratch_windows(o.m, held, 100000);
        assert_true(most >= windows && held > last);
        assert_true(scratch_held(o.m, most) <= held && scratch_held(o.m, most + 1) > held);
        most = block_scratch_windows(o.m, held - 1, 100000);
        assert_true(most < windows && scratch_held(o.m, most) < held);
        last = held;
    }
    uint32_t n = block_scratch_windows(o.m, UINT64_MAX, UINT32_MAX);
    assert_true((uint64_t)n * CTX * 72 * 4 <= gpu_info(gpu)->max_range);
    close_opened(&o);
}

/* ---- weights ---- */

static void check_rows(struct model *m, const char *module, uint32_t row0, uint32_t rows, uint32_t cols)
{
    struct err e = {0};
    struct gpu_view v;
    size_t n = (size_t)rows * cols;
    float *want = malloc(n * 4), *got = malloc(n * 4);
    assert_true(want && got);
    OK(gpu_alloc(arena, n * 4, &v, &e), e);
    gpu_fill(cmd, v, 0x7fc00000);
    OK(model_load_matrix(m, module, row0, rows, v, &e), e);
    OK(gpu_download(cmd, v, got, n * 4, &e), e);
    OK(checkpoint_read_f32(m->ck, module, row0, rows, want, &e), e);
    assert_memory_equal(got, want, n * 4);
    gpu_arena_reset(arena, 0);
    free(want);
    free(got);
}

/* A product, which says how often it was recorded; and what may come before it. */
static unsigned recorded, prepared;
static bool product(struct speed_bench *b, struct gpu_arena *in, const struct speed_size *z, struct err *e)
{
    struct gpu_view x = {0}, y = {0};
    bool ok =
        gpu_alloc(in, (uint64_t)z->rows * z->cols * 4, &x, e) && gpu_alloc(in, (uint64_t)z->rows * z->rows * 4, &y, e);
    if (ok)
        gpu_fill(b->cmd, x, SPEED_FILL);
    const struct gpu_product p = {
        .a = {x, z->cols}, .b = {x, z->cols}, .c = {y, z->rows}, .m = z->rows, .n = z->rows, .k = z->cols, .alpha = 1};
    for (unsigned i = 0; ok && i < prepared; i++)
        gpu_gemm(b->cmd, &p);
    ok = ok && speed_ready(b, e);
    while (ok && speed_again(b, &ok, e)) {
        gpu_gemm(b->cmd, &p);
        recorded++;
    }
    return ok;
}

/* Speeds are measured warm and for as long as was asked, however short a piece is; predictions count it once. */
static void test_speed(void **state)
{
    (void)state;
    struct err e = {0};
    struct opened o;
    struct speed_bench b = {0};
    struct speed_rates r;
    double took, same, twice;
    open_shape(&o, shapes);
    OK(speed_begin(&b, o.m, &e), e);
    struct speed_size z = {.rows = 128, .cols = 64}, large = {.rows = 128, .cols = 128};
    recorded = 0;
    OK(speed_time(&b, product, &z, &r, &took, &e), e);
    struct gpu_profile p = gpu_cmd_profile(cmd, KERNEL_ID_gemm);
    assert_true(b.recorded > 1 && recorded > b.recorded);
    assert_int_equal(p.dispatches, b.recorded);
    const double waited = took * b.recorded * 1e9, budget = (double)b.budget_ns;
    assert_true(took > 0 && waited >= budget);
    if (gpu_info(gpu)->timestamp_ns > 0) {
        /* Of a device that is busy elsewhere, less than the budget. */
        assert_true(p.seconds * 1e9 >= budget || waited >= SPEED_WAIT_MOST * budget);
        assert_true(p.seconds * 1e9 < 20.0 * budget);
        recorded = 0;
        OK(speed_predict(&b, product, &z, &r, &same, &e), e);
        OK(speed_predict(&b, product, &large, &r, &twice, &e), e);
        assert_int_equal(recorded, 2);
        assert_true(same > 0 && same <= took * 1.0001 && twice > same && twice <= 2.0001 * same);
        /* What makes its operands ready is not part of it. */
        double after;
        prepared = 3;
        OK(speed_predict(&b, product, &z, &r, &after, &e), e);
        prepared = 0;
        assert_true(after == same);
    }
    /* Slices that grow are looked at once each. */
    b.budget_ns = 0;
    recorded = 0;
    OK(speed_time(&b, product, &z, &r, &took, &e), e);
    assert_int_equal(recorded, 1);
    OK(speed_end(&b, true, &took, &e), e);
    /* A head's product has a speed, whichever products the passes consist of. */
    for (int steering = 0; steering < 2; steering++) {
        struct speed_bench c = {.steering = steering};
        struct speed s = {0};
        struct speed_size all = speed_size_whole(o.m, 2), slice;
        OK(speed_begin(&c, o.m, &e), e);
        OK(speed_forward(&c, &s, &all, &slice, &e), e);
        OK(speed_end(&c, true, &took, &e), e);
        assert_true(s.gemm > 0 && s.n_blocks > 0);
    }
    close_opened(&o);
}

static void test_load_matrix(void **state)
{
    (void)state;
    for (int i = 0; i < N_PLAIN; i++) {
        struct opened o;
        open_shape(&o, &shapes[i]);
        const char *module = "model.layers.1.mlp.gate_proj";
        uint32_t rows = o.m->shape.matrices[REF_GATE].rows, cols = o.m->shape.matrices[REF_GATE].cols;
        check_rows(o.m, module, 0, rows, cols);
        check_rows(o.m, module, 0, 1, cols);
        check_rows(o.m, module, 3, 5, cols);
        check_rows(o.m, module, rows - 1, 1, cols);
        check_rows(o.m, "model.norm", 0, 1, o.m->cfg->hidden_size);
        check_rows(o.m, checkpoint_head_module(o.ck), 7, 100, o.m->cfg->hidden_size);
        struct err e = {0};
        struct gpu_view none = {0};
        FAILS(model_load_matrix(o.m, module, rows - 1, 2, none, &e), e, ERR_BUG, "gate_proj");
        FAILS(model_load_matrix(o.m, "model.layers.9.mlp.up_proj", 0, 1, none, &e), e, ERR_USER, "layers.9");
        close_opened(&o);
    }
}

/* More than one trip through the staging area: 16-bit numbers of an odd count. */
static void test_load_large(void **state)
{
    (void)state;
    struct shape s = *shape_named("llama-bias");
    s.c.vocab = 300001; /* x 37 */
    struct opened o;
    open_shape(&o, &s);
    check_rows(o.m, "lm_head", 0, s.c.vocab, s.c.hidden);
    check_rows(o.m, "model.embed_tokens", 1, s.c.vocab - 1, s.c.hidden);
    close_opened(&o);
}

static void test_load_quantized(void **state)
{
    (void)state;
    static const enum export_format formats[] = {EXPORT_GPTQ, EXPORT_COMPRESSED_TENSORS, EXPORT_MLX};
    for (int f = 0; f < 3; f++) {
        struct items x;
        struct err e = {0};
        struct checkpoint *ck;
        struct model *m;
        tiny_write(DIR_ "/base", &(struct tiny_options){.dtype = DTYPE_F16, .bias = true});
        items_all(&x, "3", 32, SCALE_F16);
        OK(write_random(DIR_ "/out", DIR_ "/base", &x, &(struct export_options){.format = formats[f]}, &e), e);
        OK(checkpoint_open(&ck, DIR_ "/out", &e), e);
        OK(model_open(&m, cmd, ck, CTX, &e), e);
        check_rows(m, "model.layers.0.self_attn.q_proj", 0, HIDDEN, HIDDEN);
        check_rows(m, "model.layers.1.mlp.down_proj", 3, 9, INNER);
        OK(model_check_finite(m, NULL, NULL, NULL, &e), e);
        model_close(&m);
        checkpoint_close(&ck);
        os_remove_tree(DIR_);
    }
}

/* ---- refusals ---- */

/* model_open on a changed model fails with this message. */
static void refuse_raw(const struct shape *s, struct raw_model *raw, const char *says)
{
    struct err e = {0};
    struct checkpoint *ck;
    struct model *m;
    os_remove_tree(DIR_);
    family_config(DIR_, s);
    raw_write(raw, DIR_, false);
    OK(checkpoint_open(&ck, DIR_, &e), e);
    FAILS(model_open(&m, cmd, ck, CTX, &e), e, ERR_USER, says);
    assert_null(m);
    checkpoint_close(&ck);
}

static void test_missing_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *shape, *name;
    } cases[] = {{"llama2", "model.embed_tokens.weight"},
                 {"llama2", "model.norm.weight"},
                 {"llama2", "model.layers.1.mlp.down_proj.weight"},
                 {"llama2", "model.layers.0.input_layernorm.weight"},
                 {"llama3.1", "lm_head.weight"},
                 {"qwen3", "model.layers.1.self_attn.k_norm.weight"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct shape *s = shape_named(cases[i].shape);
        struct raw_model raw;
        char says[256];
        family_tensors(&raw, s);
        raw_drop(&raw, cases[i].name);
        /* A head may be missing because the config says no word of its being tied. */
        bool head = strcmp(cases[i].name, "lm_head.weight") == 0;
        snprintf(says, sizeof says, head ? "has no %s, and its config.json" : "%s is missing", cases[i].name);
        refuse_raw(s, &raw, says);
        refuse_raw(s, &raw, DIR_);
        raw_free(&raw);
    }
}

/* Tensors that the forward pass would pass over. */
static void test_tensors_too_many(void **state)
{
    (void)state;
    static const struct {
        const char *shape, *module, *part;
        uint64_t cols;
    } cases[] = {{"llama3.1", "lm_head", "bias", 258},
                 {"llama2", "model.norm", "bias", 40},
                 {"llama2", "model.layers.1.input_layernorm", "bias", 40},
                 {"llama2", "model.layers.0.self_attn.q_norm", "weight", 8}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct shape *s = shape_named(cases[i].shape);
        struct raw_model raw;
        char name[128], says[256];
        uint32_t seed = 1;
        family_tensors(&raw, s);
        snprintf(name, sizeof name, "%s.%s", cases[i].module, cases[i].part);
        raw_weight(&raw, name, s->dtype, 0, cases[i].cols, &seed);
        snprintf(says, sizeof says, "unexpected tensor %s in ", name);
        refuse_raw(s, &raw, says);
        raw_free(&raw);
    }
}

static void test_wrong_shapes(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.1.self_attn.o_proj", "model.layers.0.mlp.up_proj", "lm_head",
                                        "model.layers.1.post_attention_layernorm"};
    const struct shape *s = shape_named("llama-bias");
    for (int i = 0; i < 5; i++) {
        struct raw_model raw;
        char name[128];
        family_tensors(&raw, s);
        snprintf(name, sizeof name, "%s.%s", i < 4 ? names[i] : "model.layers.1.self_attn.v_proj",
                 i < 4 ? "weight" : "bias");
        struct raw_tensor *t = raw_find(&raw, name);
        t->shape[0]--;
        t->bytes = t->shape[0] * (t->n_dims == 2 ? t->shape[1] : 1) * 2;
        refuse_raw(s, &raw, name);
        raw_free(&raw);
    }
}

static void test_families(void **state)
{
    (void)state;
    struct model_config c = {.architecture = "FalconForCausalLM", .model_type = "falcon"};
    struct err e = {0};
    assert_null(family_find(&c, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, "FalconForCausalLM"));
    for (size_t i = 0; family_at(i); i++) {
        char listed[64];
        snprintf(listed, sizeof listed, "%.*s%s", (int)(strlen(family_at(i)->architecture) - strlen("ForCausalLM")),
                 family_at(i)->architecture, family_at(i + 1) ? "," : "");
        assert_non_null(strstr(e.hint, listed));
        struct model_config known = {0}, typed = {0};
        snprintf(known.architecture, sizeof known.architecture, "%s", family_at(i)->architecture);
        snprintf(typed.model_type, sizeof typed.model_type, "%s", family_at(i)->model_type);
        assert_ptr_equal(family_find(&known, &e), family_at(i));
        assert_ptr_equal(family_find(&typed, &e), family_at(i));
    }
    /* A named architecture counts, whatever its model_type resembles. */
    struct model_config other = {.architecture = "LlamaForSomethingElse", .model_type = "llama"};
    assert_null(family_find(&other, &e));
    assert_null(family_find(&(struct model_config){0}, &e));
}

static void test_limits(void **state)
{
    (void)state;
    struct shape s = *shape_named("llama2");
    struct raw_model raw;
    struct checkpoint *ck;
    struct model *m;
    struct err e = {0};
    s.c.head_dim = 258;
    family_write(DIR_, &s, &raw);
    OK(checkpoint_open(&ck, DIR_, &e), e);
    FAILS(model_open(&m, cmd, ck, CTX, &e), e, ERR_USER, "head_dim");
    checkpoint_close(&ck);
    raw_free(&raw);
    family_write(DIR_, shape_named("llama2"), &raw);
    OK(checkpoint_open(&ck, DIR_, &e), e);
    FAILS(model_open(&m, cmd, ck, 1, &e), e, ERR_USER, "2 tokens");
    uint64_t longest = gpu_info(gpu)->max_range / (4 * 8 * 4);
    if (longest < UINT32_MAX) {
        FAILS(model_open(&m, cmd, ck, (uint32_t)longest + 1, &e), e, ERR_USER, "too long for this device");
        assert_non_null(strstr(e.hint, "--ctx"));
    }
    OK(model_open(&m, cmd, ck, CTX, &e), e);
    model_close(&m);
    checkpoint_close(&ck);
    raw_free(&raw);
}

static bool count_calls(void *ctx, double done)
{
    int *left = ctx;
    assert_true(done >= 0 && done <= 1);
    return --*left > 0;
}

static void test_finite(void **state)
{
    (void)state;
    static const char *const names[] = {"model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight",
                                        "model.layers.0.self_attn.k_norm.weight", "model.norm.weight"};
    const struct shape *s = shape_named("qwen3");
    struct opened o;
    struct err e = {0};
    open_shape(&o, s);
    int many = 1000, few = 2;
    OK(model_check_finite(o.m, NULL, count_calls, &many, &e), e);
    assert_true(many < 1000);
    FAILS(model_check_finite(o.m, NULL, count_calls, &few, &e), e, ERR_STOPPED, "stopped");
    close_opened(&o);
    for (int i = 0; i < 4; i++) {
        struct raw_model raw;
        family_tensors(&raw, s);
        struct raw_tensor *t = raw_find(&raw, names[i]);
        raw_set(t, t->bytes / 2 - 1, i % 2 ? NAN : INFINITY);
        os_remove_tree(DIR_);
        family_config(DIR_, s);
        raw_write(&raw, DIR_, false);
        struct checkpoint *ck;
        struct model *m;
        OK(checkpoint_open(&ck, DIR_, &e), e);
        OK(model_open(&m, cmd, ck, CTX, &e), e);
        FAILS(model_check_finite(m, NULL, NULL, NULL, &e), e, ERR_USER, names[i]);
        model_close(&m);
        checkpoint_close(&ck);
        raw_free(&raw);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),         cmocka_unit_test(test_stored_embedding),
        cmocka_unit_test(test_tiers),           cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_batches),         cmocka_unit_test(test_stop),
        cmocka_unit_test(test_scratch_windows), cmocka_unit_test(test_load_matrix),
        cmocka_unit_test(test_load_large),      cmocka_unit_test(test_load_quantized),
        cmocka_unit_test(test_missing_tensors), cmocka_unit_test(test_tensors_too_many),
        cmocka_unit_test(test_wrong_shapes),    cmocka_unit_test(test_families),
        cmocka_unit_test(test_limits),          cmocka_unit_test(test_finite),
        cmocka_unit_test(test_speed),
    };
    const struct CMUnitTest by_staging[] = {cmocka_unit_test(test_forward), cmocka_unit_test(test_tiers)};
    const struct CMUnitTest on_the_way[] = {cmocka_unit_test(test_behind)};
    int failed = device_done(cmocka_run_group_tests(tests, device_setup, NULL));
    failed += device_done(cmocka_run_group_tests_name("with staging", by_staging, device_setup_no_push, NULL));
    return failed + cmocka_run_group_tests_name("on the way to a file", on_the_way, NULL, remove_dir);
}
