/* Long texts: read bit by bit, cut into chunks where tokenizer_cut.c allows, chunks tokenized on all threads.
 */
#include "formats/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer/tokenizer_parts.h"
#include "host/base/num.h"
#include "host/base/pool.h"

/* Bytes of a chunk and of the texts that are read at a time; how many chunks are cut at a time; how many
 * bytes to expect for an id. */
enum { CHUNK_LEAST = 16 << 10, CHUNK_MOST = 256 << 10, READ = 256 << 10, CHUNKS = 16, BYTES_PER_ID = 5 };
/* Bytes after the last cut that the search for it may want to see. */
enum { BEHIND = 16 << 10 };

struct chunk {
    size_t begin, end; /* in the text at hand */
    struct strbuf tail;
    bool tail_ends, last; /* last: the text ends with it */
    struct id_list ids;
    bool holds;
};

struct stream {
    const struct tokenizer *t;
    const struct text_source *source;
    char *text; /* at hand: after what is tokenized */
    size_t size, cap, valid;
    bool ends;      /* all is read */
    uint64_t begin; /* of the text at hand in the whole text */
    struct cut_finder finder;
    struct encoder *encoders; /* one per thread */
    unsigned n_encoders;
    struct chunk chunks[CHUNKS];
    size_t n_chunks;
    struct id_list out;
    bool bos_waits; /* the first id of the text may be a BOS, which is there already */
    struct err *e;
};

/* ---- reading ---- */

/* An incomplete character at the end is fine as long as there is more to come. */
static bool check_utf8(struct stream *s)
{
    size_t at;
    if (utf8_valid(s->text + s->valid, s->size - s->valid, &at)) {
        s->valid = s->size;
        return true;
    }
    s->valid += at;
    if (!s->ends && s->size - s->valid < 4)
        return true;
    err_set(s->e, ERR_USER, "the text is not UTF-8: byte 0x%02X at offset %llu", (unsigned)(uint8_t)s->text[s->valid],
            (unsigned long long)(s->begin + s->valid));
    return err_hint(s->e, "convert the text to UTF-8, for example with iconv");
}

static bool fill(struct stream *s, size_t want)
{
    while (s->size < want && !s->ends) {
        if (s->cap < s->size + READ) {
            size_t cap = s->size + READ + s->cap / 2;
            char *grown = realloc(s->text, cap);
            if (!grown)
                return err_nomem(s->e, "the text to tokenize", cap);
            s->text = grown;
            s->cap = cap;
        }
        size_t got = 0;
        if (!s->source->read(s->source->ctx, s->text + s->size, READ, &got, s->e))
            return false;
        s->size += got;
        s->ends = got == 0;
        if (!check_utf8(s))
            return false;
    }
    return true;
}

/* ---- chunks ---- */

static bool add_chunk(struct stream *s, size_t begin, size_t end, bool last)
{
    struct chunk *c = &s->chunks[s->n_chunks++];
    c->begin = begin;
    c->end = end;
    c->last = last;
    c->ids.n = 0;
    c->tail.size = 0;
    strbuf_add(&c->tail, s->finder.tail.data ? s->finder.tail.data : "", last ? 0 : s->finder.tail.size);
    c->tail_ends = s->finder.tail_ends;
    return !c->tail.failed || err_nomem(s->e, "the text to tokenize", s->finder.tail.size);
}

/* Cuts what is at hand, if it can be cut: n_chunks may be 0. */
static bool cut(struct stream *s, size_t chunk)
{
    size_t begin = 0;
    s->n_chunks = 0;
    while (s->n_chunks < CHUNKS) {
        size_t end = 0;
        bool few = s->ends && s->size - begin <= chunk + chunk / 2;
        if (!few && begin + chunk < s->valid &&
            !cut_find(&s->finder, s->text, s->valid, s->ends, begin + chunk, &end, s->e))
            return false;
        if (!end && !s->ends)
            return true;
        if (!end)
            return add_chunk(s, begin, s->size, true);
        if (!add_chunk(s, begin, end, false))
            return false;
        begin = end;
    }
    return true;
}

static bool encode(struct stream *s, struct chunk *c, struct encoder *x, struct err *e)
{
    struct id_list swap = x->out;
    x->e = e;
    x->out = c->ids;
    x->out.n = 0;
    x->tail = (struct cut_tail){c->tail.data, c->tail.size, c->tail_ends};
    unsigned where = (s->begin + c->begin == 0 ? AT_FIRST : AT_INSIDE) | (c->last ? 0 : AT_CUT);
    bool ok = encode_chunk(x, s->text + c->begin, c->end - c->begin, where);
    c->holds = c->last || x->cut_holds;
    c->ids = x->out;
    x->out = swap;
    return ok;
}

static bool piece(void *ctx, uint64_t i, unsigned thread, struct err *e)
{
    struct stream *s = ctx;
    return encode(s, &s->chunks[i], &s->encoders[thread], e);
}

static bool tell(struct stream *s, uint64_t bytes)
{
    return !s->source->progress || s->source->progress(s->source->ctx, s->begin + bytes, s->out.n);
}

static bool progress(void *ctx, uint64_t done)
{
    struct stream *s = ctx;
    return tell(s, s->chunks[s->n_chunks - 1].end / s->n_chunks * done);
}

static bool append(struct stream *s, const struct id_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        bool again = s->bos_waits && l->ids[i] == (uint32_t)s->t->bos;
        s->bos_waits = false;
        if (!again && !id_list_add(&s->out, l->ids[i], s->e))
            return false;
    }
    return true;
}

/* Appends the ids of the chunks, as far as they hold; *end is after the last of them. A cut that was no cut
 * makes one chunk of all from there on. */
static bool gather(struct stream *s, size_t *end)
{
    for (size_t i = 0; i < s->n_chunks; i++) {
        struct chunk *c = &s->chunks[i], *last = &s->chunks[s->n_chunks - 1];
        if (!c->holds && c != last) {
            c->end = last->end;
            c->last = last->last;
            struct strbuf swap = c->tail;
            c->tail = last->tail;
            last->tail = swap;
            c->tail_ends = last->tail_ends;
            s->n_chunks = i + 1;
            if (!encode(s, c, &s->encoders[0], s->e))
                return false;
        }
        if (!c->holds)
            return true;
        if (!append(s, &c->ids))
            return false;
        *end = c->end;
    }
    return true;
}

static bool has_enough(const struct stream *s)
{
    return s->source->at_most && s->out.n >= s->source->at_most;
}

/* Tokenizes the next chunks. *grow: what was at hand was not enough to find a cut that holds. */
static bool take_on(struct stream *s, size_t chunk, bool *grow)
{
    const struct pool_work work = {.piece = piece, .progress = progress, .ctx = s};
    size_t end = 0;
    if (!cut(s, chunk))
        return false;
    if (s->n_chunks) {
        struct pool_work w = work;
        w.n = s->n_chunks;
        if (!pool_run(&w, s->e) || !gather(s, &end))
            return false;
    }
    *grow = end == 0;
    s->size -= end;
    s->valid -= end;
    s->begin += end;
    if (s->size)
        memmove(s->text, s->text + end, s->size);
    return tell(s, 0) || err_set(s->e, ERR_STOPPED, "stopped while a text was tokenized");
}

static bool encode_all(struct stream *s)
{
    size_t factor = 1;
    do {
        uint64_t missing = s->source->at_most > s->out.n ? s->source->at_most - s->out.n : 0;
        size_t chunk = s->source->chunk;
        if (!chunk)
            chunk = missing ? (size_t)min_u64(max_u64(missing * BYTES_PER_ID / CHUNKS, CHUNK_LEAST), CHUNK_MOST)
                            : CHUNK_MOST;
        size_t want = s->finder.rule == CUT_NEVER ? SIZE_MAX : (CHUNKS * chunk + BEHIND) * factor;
        bool grow = false;
        if (!fill(s, want) || (s->size && !take_on(s, chunk * factor, &grow)))
            return false;
        factor = grow ? 2 * factor : 1;
    } while (!has_enough(s) && !(s->ends && s->size == 0));
    return true;
}

static void stream_free(struct stream *s)
{
    free(s->text);
    cut_finder_free(&s->finder);
    for (unsigned i = 0; s->encoders && i < s->n_encoders; i++)
        encoder_free(&s->encoders[i]);
    free(s->encoders);
    for (size_t i = 0; i < CHUNKS; i++) {
        strbuf_free(&s->chunks[i].tail);
        free(s->chunks[i].ids.ids);
    }
    free(s->out.ids);
}

bool tokenizer_encode_text(const struct tokenizer *t, const struct text_source *source, uint32_t **ids, size_t *n,
                           struct err *e)
{
    struct stream s = {.t = t,
                       .source = source,
                       .finder = {.t = t, .rule = cut_rule_of(t)},
                       .n_encoders = pool_threads(),
                       .bos_waits = t->bos >= 0,
                       .e = e};
    *ids = NULL;
    *n = 0;
    s.encoders = calloc(s.n_encoders, sizeof *s.encoders);
    bool ok = s.encoders ? true : err_nomem(e, "the tokenizer", s.n_encoders * sizeof *s.encoders);
    for (unsigned i = 0; ok && i < s.n_encoders; i++)
        s.encoders[i].t = t;
    ok = ok && (t->bos < 0 || id_list_add(&s.out, (uint32_t)t->bos, e)) && encode_all(&s);
    ok = ok && id_list_take(&s.out, ids, n, e);
    if (ok && source->at_most)
        *n = (size_t)min_u64(*n, source->at_most);
    stream_free(&s);
    return ok;
}
