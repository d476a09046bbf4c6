#include "host/model/windows.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/chat.h"
#include "formats/read/chat_template.h"
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

/* What all texts of a model share. */
struct texts {
    const struct checkpoint *ck;
    struct tokenizer *t;
    char *template_text; /* of its chats; NULL: it has none */
    const struct chat_format *chat;
    struct text_seen *seen; /* documents so far, of calibration; else NULL */
    uint64_t repeats;       /* left out of the text read last */
    bool others;            /* there were texts before it: all that it has may be a repeat */
};

static bool texts_open(struct texts *x, const struct checkpoint *ck, bool calibration, struct err *e)
{
    *x = (struct texts){.ck = ck, .template_text = chat_template_read(ck)};
    x->chat = chat_format_of(x->template_text);
    if (calibration && !(x->seen = text_seen_create()))
        return err_nomem(e, "the hashes of texts", 1);
    return tokenizer_load(&x->t, checkpoint_dir(ck), e);
}

static void texts_close(struct texts *x)
{
    tokenizer_destroy(&x->t);
    text_seen_destroy(&x->seen);
    free(x->template_text);
}

/* What was made of conversations: templates of other kinds are not run. */
static void tell_chats(const struct texts *x, const char *text_path, uint64_t chats)
{
    if (chats && x->chat)
        log_info("%s: %" PRIu64 " conversations, in the form of the model's chat template (%s)", text_path, chats,
                 chat_format_name(x->chat));
    else if (chats)
        log_warn("%s: %" PRIu64 " conversations are read as plain text, without what a chat template would add: %s",
                 text_path, chats,
                 x->template_text ? "the model's is of a kind that gsq does not know" : "the model has none");
}

/* All ids of a text, or `at_most`. */
static bool tokenize(struct windows *w, size_t *n_ids, struct texts *x, const char *text_path, uint64_t at_most,
                     struct progress_watch *watch, struct err *e)
{
    struct loading l = {.watch = watch, .at_most = at_most};
    const struct text_source source = {.read = read_text, .progress = on_ids, .ctx = &l, .at_most = at_most};
    if (!text_file_open(&l.file, text_path, e))
        return false;
    text_file_set_chat(l.file, x->chat);
    text_file_skip_repeats(l.file, x->seen);
    bool ok = tokenizer_encode_text(x->t, &source, &w->ids, n_ids, e);
    if (ok)
        tell_chats(x, text_path, text_file_chats(l.file));
    x->repeats = text_file_repeats(l.file);
    if (ok && x->repeats)
        log_info("%s: %" PRIu64 " repeated documents are left out", text_path, x->repeats);
    text_file_close(&l.file);
    if (ok)
        return true;
    w->ids = NULL;
    return e && e->kind == ERR_STOPPED ? false : err_context(e, "%s", text_path);
}

static bool load_text(struct windows *w, struct texts *x, const char *text_path, uint32_t ctx, uint32_t at_most,
                      struct progress_watch *watch, struct err *e)
{
    size_t n_ids = 0;
    *w = (struct windows){.ctx = ctx, .bos = tokenizer_bos(x->t)};
    if (!tokenize(w, &n_ids, x, text_path, (uint64_t)at_most * ctx, watch, e))
        return false;
    bool ok = true;
    w->tokens = n_ids;
    w->n = (uint32_t)min_u64(ctx ? n_ids / ctx : 0, UINT32_MAX);
    if (w->n == 0 && (!x->repeats || !x->others)) {
        err_set(e, ERR_USER, "%s has %zu tokens, less than one window of %" PRIu32, text_path, n_ids, ctx);
        ok = err_hint(e, "use a longer text or a smaller --ctx");
    }
    if (!ok || !windows_check_ids(w->ids, n_ids, checkpoint_config(x->ck)->vocab_size, e)) {
        windows_free(w);
        return false;
    }
    w->hash = hash_ids(w->ids, at_most ? (size_t)w->n * ctx : n_ids);
    return true;
}

bool windows_load(struct windows *w, const struct checkpoint *ck, const char *text_path, uint32_t ctx, uint32_t at_most,
                  struct progress_watch *watch, struct err *e)
{
    struct texts x = {0};
    *w = (struct windows){.ctx = ctx, .bos = -1};
    bool ok =
        tell(watch, NULL, e) && texts_open(&x, ck, false, e) && load_text(w, &x, text_path, ctx, at_most, watch, e);
    texts_close(&x);
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
    struct texts x = {0};
    struct windows parts[TEXTS_MOST] = {0};
    *w = (struct windows){.ctx = ctx, .bos = -1};
    bool ok = tell(watch, NULL, e) && texts_open(&x, ck, true, e);
    for (size_t i = 0; ok && i < n; i++) {
        x.others = i > 0;
        ok = load_text(&parts[i], &x, texts[i], ctx, at_most, watch, e);
        if (ok && i && !parts[i].n) {
            log_warn("%s: beside what the texts before it hold there is no whole window; it is left out", texts[i]);
        } else if (ok && is_repeat(parts, i)) {
            log_warn("%s holds the same as a text before it, and is left out", texts[i]);
            parts[i].n = 0;
        }
    }
    texts_close(&x);
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
