#include "host/model/windows.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/shipped_text.h"
#include "formats/text_file.h"
#include "formats/tokenizer/tokenizer.h"
#include "host/base/log.h"

/* As little-endian bytes. */
static struct hash128 hash_ids(uint32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        store_u32le(&ids[i], ids[i]);
    struct hash128 hash = hash_bytes(ids, n * 4, (struct hash128){0});
    for (size_t i = 0; i < n; i++)
        ids[i] = load_u32le(&ids[i]);
    return hash;
}

struct loading {
    struct text_file *file;
    struct progress_watch *watch;
    uint64_t at_most, bytes; /* bytes: read so far */
};

static bool read_text(void *ctx, char *buf, size_t cap, size_t *got, struct err *e)
{
    struct loading *l = ctx;
    bool ok = text_file_read(l->file, buf, cap, got, e);
    l->bytes += ok ? *got : 0;
    return ok;
}

static bool tell(struct progress_watch *watch, const char *detail, struct err *e)
{
    return !watch ||
           progress_report(watch, &(struct progress_event){.phase = "tokenize", .detail = detail, .loss = NAN}, e);
}

/* The nearer of two ends: that of the text, or enough ids. */
static bool on_ids(void *ctx, uint64_t bytes, uint64_t ids)
{
    const struct loading *l = ctx;
    char detail[24];
    double read = l->bytes ? text_file_share(l->file) * (double)bytes / (double)l->bytes : 0;
    double made = l->at_most ? (double)ids / (double)l->at_most : 0;
    snprintf(detail, sizeof detail, "%.0f %% of the text", 100 * fmin(fmax(read, made), 1));
    return tell(l->watch, detail, NULL);
}

bool windows_check_ids(const uint32_t *ids, size_t n, uint32_t vocab, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < vocab)
            continue;
        err_set(e, ERR_USER, "the tokenizer gives token %" PRIu32 ", the model's vocabulary has %" PRIu32, ids[i],
                vocab);
        return err_hint(e, "tokenizer.json and the weights do not belong to the same model");
    }
    return true;
}

/* All ids of a text, or `at_most`. */
static bool tokenize(struct windows *w, size_t *n_ids, const struct tokenizer *t, const char *text_path,
                     bool calibration, uint64_t at_most, struct progress_watch *watch, struct err *e)
{
    struct loading l = {.watch = watch, .at_most = at_most};
    const struct text_source source = {.read = read_text, .progress = on_ids, .ctx = &l, .at_most = at_most};
    if (!text_file_open(&l.file, text_path, e))
        return false;
    if (calibration)
        text_file_skip_repeats(l.file);
    bool ok = tokenizer_encode_text(t, &source, &w->ids, n_ids, e);
    if (ok && text_file_repeats(l.file))
        log_info("%s: %" PRIu64 " repeated documents are left out", text_path, text_file_repeats(l.file));
    text_file_close(&l.file);
    if (ok)
        return true;
    w->ids = NULL;
    return e && e->kind == ERR_STOPPED ? false : err_context(e, "%s", text_path);
}

static bool load_text(struct windows *w, const struct checkpoint *ck, const struct tokenizer *t, const char *text_path,
                      bool calibration, uint32_t ctx, uint32_t at_most, struct progress_watch *watch, struct err *e)
{
    size_t n_ids = 0;
    *w = (struct windows){.ctx = ctx, .bos = tokenizer_bos(t)};
    if (!tokenize(w, &n_ids, t, text_path, calibration, (uint64_t)at_most * ctx, watch, e))
        return false;
    bool ok = true;
    w->tokens = n_ids;
    w->n = (uint32_t)min_u64(ctx ? n_ids / ctx : 0, UINT32_MAX);
    if (w->n == 0) {
        err_set(e, ERR_USER, "%s has %zu tokens, less than one window of %" PRIu32, text_path, n_ids, ctx);
        ok = err_hint(e, "use a longer text or a smaller --ctx");
    }
    if (!ok || !windows_check_ids(w->ids, n_ids, checkpoint_config(ck)->vocab_size, e)) {
        windows_free(w);
        return false;
    }
    w->hash = hash_ids(w->ids, at_most ? (size_t)w->n * ctx : n_ids);
    return true;
}

bool windows_load(struct windows *w, const struct checkpoint *ck, const char *text_path, uint32_t ctx, uint32_t at_most,
                  struct progress_watch *watch, struct err *e)
{
    struct tokenizer *t = NULL;
    *w = (struct windows){.ctx = ctx, .bos = -1};
    bool ok = tell(watch, NULL, e) && tokenizer_load(&t, checkpoint_dir(ck), e) &&
              load_text(w, ck, t, text_path, false, ctx, at_most, watch, e);
    tokenizer_destroy(&t);
    return ok;
}

/* ---- several texts ---- */

bool windows_texts(const char *texts[TEXTS_MOST], size_t *n, const char *first, const char *const *more, size_t n_more,
                   char *buf, size_t cap, struct err *e)
{
    bool ok = true;
    *n = first ? 1 + n_more : 0;
    if (*n > TEXTS_MOST)
        return err_set(e, ERR_USER, "%zu calibration texts are more than the %d that gsq mixes", *n, TEXTS_MOST);
    for (size_t i = 0; ok && i < *n; i++)
        ok = shipped_text_path(&texts[i], buf, cap, i ? more[i - 1] : first, e);
    return ok;
}

static bool is_repeat(const struct windows *parts, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (parts[k].n == parts[i].n &&
            memcmp(parts[k].ids, parts[i].ids, (size_t)parts[i].n * parts[i].ctx * sizeof *parts[i].ids) == 0)
            return true;
    return false;
}

/* A window of each part in turn. */
static bool mix(struct windows *w, const struct windows *parts, size_t n, uint32_t at_most, struct err *e)
{
    const size_t ids = w->ctx;
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += parts[i].n;
    uint32_t want = (uint32_t)min_u64(all, at_most ? at_most : UINT32_MAX);
    w->ids = calloc((size_t)want * ids, sizeof *w->ids);
    if (!w->ids)
        return err_nomem(e, "windows", (uint64_t)want * ids * sizeof *w->ids);
    for (uint32_t round = 0; w->n < want; round++)
        for (size_t i = 0; i < n && w->n < want; i++)
            if (round < parts[i].n)
                memcpy(w->ids + w->n++ * ids, parts[i].ids + round * ids, ids * sizeof *w->ids);
    w->tokens = (uint64_t)w->n * ids;
    w->bos = parts[0].bos;
    w->hash = hash_ids(w->ids, w->n * ids);
    return true;
}

bool windows_load_texts(struct windows *w, const struct checkpoint *ck, const char *const *texts, size_t n,
                        uint32_t ctx, uint32_t at_most, struct progress_watch *watch, struct err *e)
{
    struct tokenizer *t = NULL;
    struct windows parts[TEXTS_MOST] = {0};
    *w = (struct windows){.ctx = ctx, .bos = -1};
    bool ok = tell(watch, NULL, e) && tokenizer_load(&t, checkpoint_dir(ck), e);
    for (size_t i = 0; ok && i < n; i++) {
        ok = load_text(&parts[i], ck, t, texts[i], true, ctx, at_most, watch, e);
        if (ok && is_repeat(parts, i)) {
            log_warn("%s holds the same as a text before it, and is left out", texts[i]);
            parts[i].n = 0;
        }
    }
    tokenizer_destroy(&t);
    if (ok && n == 1) {
        *w = parts[0];
        return true;
    }
    ok = ok && mix(w, parts, n, at_most, e);
    for (size_t i = 0; i < n; i++)
        windows_free(&parts[i]);
    return ok;
}

void windows_free(struct windows *w)
{
    free(w->ids);
    *w = (struct windows){0};
}

uint32_t windows_context(const struct checkpoint *ck, uint32_t asked)
{
    enum { MOST = 2048 };
    uint32_t own = checkpoint_config(ck)->max_position;
    return asked ? asked : own && own < MOST ? own : MOST;
}

void windows_tell_short(const struct windows *w, const char *text_path, uint32_t asked)
{
    if (w->n < asked)
        log_warn("%s holds %" PRIu32 " windows of %" PRIu32 " tokens, %" PRIu32 " were asked for", text_path, w->n,
                 w->ctx, asked);
}
