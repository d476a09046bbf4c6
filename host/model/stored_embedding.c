#include "host/model/stored_embedding.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "host/base/num.h"
#include "host/base/pool.h"

uint64_t stored_embedding_bytes(const struct model_config *c, const struct gguf_type *type, uint64_t tokens)
{
    const uint64_t vocab = c->vocab_size;
    return vocab * 4 + min_u64(vocab, tokens) * (4 + gguf_row_bytes(type, c->hidden_size));
}

/* Of the i-th token of the list. */
static uint8_t *row_at(const struct stored_embedding *s, uint64_t i)
{
    return s->rows + i * gguf_row_bytes(s->as.type, s->cols);
}

/* The tokens that are there, by their first place. */
static bool list_tokens(struct stored_embedding *s, const uint32_t *ids, size_t n, uint32_t vocab, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t id = ids[i];
        if (id >= vocab)
            return err_set(e, ERR_USER, "the token %" PRIu32 " is outside the vocabulary of %" PRIu32, id, vocab);
        if (s->place[id])
            continue;
        s->ids[s->n] = id;
        s->place[id] = ++s->n;
    }
    return true;
}

struct making {
    const struct stored_embedding *s;
    const struct checkpoint *ck;
    bool (*go_on)(void *ctx);
    void *ctx;
};

static bool round_row(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    const struct making *k = ctx;
    const struct stored_embedding *s = k->s;
    float *row = malloc(s->cols * sizeof *row);
    bool ok = row ? checkpoint_read_f32(k->ck, checkpoint_embedding_module(k->ck), s->ids[i], 1, row, e)
                  : err_nomem(e, "a row of the embedding", s->cols * sizeof *row);
    (void)thread;
    if (ok)
        gguf_round_row(s->as.type, row, s->as.importance, s->cols, row_at(s, i));
    free(row);
    return ok;
}

static bool on_rows(void *ctx, uint64_t done)
{
    const struct making *k = ctx;
    (void)done;
    return !k->go_on || k->go_on(k->ctx);
}

bool stored_embedding_create(struct stored_embedding *s, const struct checkpoint *ck, const uint32_t *ids, size_t n,
                             struct rounding as, bool (*go_on)(void *ctx), void *ctx, struct err *e)
{
    const struct model_config *c = checkpoint_config(ck);
    const uint32_t vocab = c->vocab_size, cols = c->hidden_size;
    const uint64_t most = min_u64(vocab, n);
    *s = (struct stored_embedding){.as = as,
                                   .cols = cols,
                                   .place = calloc(vocab, sizeof *s->place),
                                   .ids = malloc((size_t)most * sizeof *s->ids),
                                   .rows = malloc((size_t)(most * gguf_row_bytes(as.type, cols)))};
    struct making k = {s, ck, go_on, ctx};
    bool ok =
        (s->place && s->ids && s->rows) || err_nomem(e, "the embedding", stored_embedding_bytes(c, as.type, most));
    ok = ok && list_tokens(s, ids, n, vocab, e);
    const struct pool_work work = {.n = s->n, .piece = round_row, .progress = on_rows, .ctx = &k};
    if (ok && pool_run(&work, e))
        return true;
    stored_embedding_free(s);
    return false;
}

void stored_embedding_free(struct stored_embedding *s)
{
    free(s->place);
    free(s->ids);
    free(s->rows);
    *s = (struct stored_embedding){0};
}

void stored_embedding_row(const struct stored_embedding *s, uint32_t id, float *row)
{
    assert(s->place[id]);
    gguf_dequant(s->as.type, row_at(s, s->place[id] - 1), s->cols, row);
}
