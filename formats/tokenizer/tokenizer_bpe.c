/* Byte pair encoding: the adjacent pair with the lowest rank is merged first, the leftmost of equals first.
 * A SentencePiece-style text is one word, so the symbols are a linked list and the candidates a heap. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer/tokenizer_parts.h"
#include "host/base/grow.h"

#define NONE UINT32_MAX

/* (left, right) -> rank and the token they become; open addressing. */
struct merge_slot {
    uint64_t pair; /* EMPTY: a free slot */
    uint32_t rank, id;
};
#define EMPTY UINT64_MAX

struct bpe {
    char *strings; /* all tokens, each with its NUL */
    struct strmap vocab;
    struct merge_slot *merges;
    size_t cap_merges; /* a power of two */
    uint32_t *ranks;   /* by id, instead of merges: SentencePiece. Equal scores have equal ranks */
    size_t longest;    /* then: bytes of the longest token */
    uint32_t size;     /* largest id + 1 */
    uint32_t unk;      /* NONE: none */
    char *unk_missing; /* unk_token that is not in the vocabulary: an error once it is needed */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool all_bytes;         /* byte_ids has them all */
    bool bytes_join;        /* a merge takes in a token of byte_ids */
    uint32_t byte_ids[256]; /* of "<0x41>"; NONE if missing */
};

struct bpe_symbol {
    uint32_t id;         /* NONE: no token, at least not yet (SentencePiece) */
    uint32_t prev, next; /* NONE: no neighbour */
    uint32_t begin;      /* in the word */
    bool dead;           /* merged into its left neighbour */
};

struct bpe_merge {
    uint32_t rank, pos, id;
};

bool id_list_add(struct id_list *l, uint32_t id, struct err *e)
{
    uint32_t *ids = grow(l->ids, &l->cap, l->n, sizeof *ids, "token ids", e);
    if (!ids)
        return false;
    l->ids = ids;
    l->ids[l->n++] = id;
    return true;
}

bool id_list_take(struct id_list *l, uint32_t **ids, size_t *n, struct err *e)
{
    if (!l->ids && !(l->ids = malloc(sizeof *l->ids))) /* no tokens: still something to free */
        return err_nomem(e, "token ids", sizeof *l->ids);
    *ids = l->ids;
    *n = l->n;
    *l = (struct id_list){0};
    return true;
}

/* ---- parsing ---- */

static bool bad(struct err *e, const char *path, const char *what)
{
    err_set(e, ERR_USER, "%s: model: %s", path, what);
    return err_hint(e, "download it again, or save the tokenizer anew with a current `tokenizers`");
}

static struct merge_slot *merge_slot(const struct bpe *b, uint64_t pair)
{
    size_t i = (size_t)(pair * 0x9E3779B97F4A7C15u >> 36) & (b->cap_merges - 1);
    while (b->merges[i].pair != pair && b->merges[i].pair != EMPTY)
        i = (i + 1) & (b->cap_merges - 1);
    return &b->merges[i];
}

/* The text, which stays the caller's, with its NUL after it. */
static bool add_token(struct bpe *b, const char *text, size_t len, uint32_t id, const char *path, struct err *e)
{
    bool added;
    if (!strmap_add(&b->vocab, text, len, id, &added))
        return err_nomem(e, "the vocabulary", len);
    if (!added) {
        err_set(e, ERR_USER, "%s: model: the token \"%.100s\" occurs twice in the vocabulary", path, text);
        return err_hint(e, "download it again");
    }
    if (id >= b->size)
        b->size = id + 1;
    if (len > b->longest)
        b->longest = len;
    return true;
}

static bool parse_vocab(struct bpe *b, const cJSON *vocab, const char *path, struct err *e)
{
    if (!cJSON_IsObject(vocab) || !vocab->child)
        return bad(e, path, "\"vocab\" is missing or empty");
    size_t n = 0, bytes = 0;
    for (const cJSON *item = vocab->child; item; item = item->next) {
        n++;
        bytes += strlen(item->string) + 1;
    }
    b->strings = malloc(bytes);
    if (!b->strings || !strmap_reserve(&b->vocab, n))
        return err_nomem(e, "the vocabulary", bytes + n * sizeof(struct strmap_slot));
    char *at = b->strings;
    for (const cJSON *item = vocab->child; item; item = item->next) {
        uint64_t id;
        if (!json_u64(item, &id) || id >= INT32_MAX)
            return bad(e, path, "a token of \"vocab\" has no proper id");
        size_t len = strlen(item->string);
        memcpy(at, item->string, len + 1);
        if (!add_token(b, at, len, (uint32_t)id, path, e))
            return false;
        at += len + 1;
    }
    return true;
}

/* "left right", or ["left", "right"]. */
static bool split_merge(const cJSON *item, const char **left, size_t *n_left, const char **right)
{
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        *left = item->valuestring;
        *n_left = (size_t)(space - item->valuestring);
        *right = space + 1;
        return true;
    }
    if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2 || !cJSON_IsString(item->child) ||
        !cJSON_IsString(item->child->next))
        return false;
    *left = item->child->valuestring;
    *n_left = strlen(*left);
    *right = item->child->next->valuestring;
    return true;
}

static bool reserve_merges(struct bpe *b, size_t n, struct err *e)
{
    for (b->cap_merges = 16; b->cap_merges / 2 < n;)
        b->cap_merges *= 2;
    b->merges = malloc(b->cap_merges * sizeof *b->merges);
    if (!b->merges)
        return err_nomem(e, "the merges", b->cap_merges * sizeof *b->merges);
    for (size_t i = 0; i < b->cap_merges; i++)
        b->merges[i].pair = EMPTY;
    return true;
}

/* joined: room for the text of both. */
static bool add_merge(struct bpe *b, uint32_t rank, const char *left, size_t n_left, const char *right, size_t n_right,
                      struct strbuf *joined, const char *path, struct err *e)
{
    uint32_t a, c, id;
    joined->size = 0;
    strbuf_add(joined, left, n_left);
    strbuf_add(joined, right, n_right);
    if (joined->failed)
        return err_nomem(e, "a merge", n_left + n_right);
    if (!strmap_find(&b->vocab, left, n_left, &a) || !strmap_find(&b->vocab, right, n_right, &c) ||
        !strmap_find(&b->vocab, joined->data, joined->size, &id)) {
        err_set(e, ERR_USER, "%s: model: merge %u makes \"%.100s\" of tokens that are not all in the vocabulary", path,
                (unsigned)rank, joined->data);
        return err_hint(e, "download it again");
    }
    uint64_t pair = (uint64_t)a << 32 | c;
    *merge_slot(b, pair) = (struct merge_slot){pair, rank, id}; /* of two equal ones, the last counts */
    return true;
}

static bool parse_merges(struct bpe *b, const cJSON *merges, const char *path, struct err *e)
{
    if (!cJSON_IsArray(merges))
        return bad(e, path, "\"merges\" is missing or not a list");
    if (!reserve_merges(b, (size_t)cJSON_GetArraySize(merges), e))
        return false;
    struct strbuf joined = {0};
    uint32_t rank = 0;
    bool ok = true;
    const cJSON *item;
    cJSON_ArrayForEach(item, merges)
    {
        const char *left, *right;
        size_t n_left;
        if (!split_merge(item, &left, &n_left, &right)) {
            ok = bad(e, path, "a merge is not a pair of tokens");
            break;
        }
        ok = add_merge(b, rank++, left, n_left, right, strlen(right), &joined, path, e);
        if (!ok)
            break;
    }
    strbuf_free(&joined);
    return ok;
}

static bool refuse_unread(const cJSON *model, const char *path, struct err *e)
{
    const cJSON *type = json_get(model, "type");
    if (!cJSON_IsObject(model))
        return bad(e, path, "is missing");
    if (type ? !cJSON_IsString(type) || strcmp(type->valuestring, "BPE") != 0 : !json_get(model, "merges")) {
        err_set(e, ERR_USER, "%s: the tokenizer model \"%.100s\" is not supported", path,
                cJSON_IsString(type) ? type->valuestring : "unknown");
        return err_hint(e, "gsq reads BPE tokenizers (byte-level, or with byte fallback)");
    }
    const cJSON *dropout = json_get(model, "dropout");
    if (dropout && !(cJSON_IsNumber(dropout) && dropout->valuedouble == 0))
        return bad(e, path, "\"dropout\" makes the tokens random, which gsq does not do");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const cJSON *affix = json_get(model, affixes[i]);
        if (affix && !(cJSON_IsString(affix) && !affix->valuestring[0])) {
            err_set(e, ERR_USER, "%s: model: \"%s\" is not read", path, affixes[i]);
            return err_hint(e, "gsq reads BPE tokenizers without marks inside or at the end of words");
        }
    }
    return true;
}

static bool parse_unk(struct bpe *b, const cJSON *model, const char *path, struct err *e)
{
    const cJSON *unk = json_get(model, "unk_token");
    b->unk = NONE;
    if (!unk)
        return true;
    if (!cJSON_IsString(unk))
        return bad(e, path, "\"unk_token\" is not a string");
    if (bpe_find(b, unk->valuestring, &b->unk))
        return true;
    b->unk_missing = str_dup(unk->valuestring);
    return b->unk_missing ? true : err_nomem(e, "the unknown token", strlen(unk->valuestring));
}

static bool is_byte(const struct bpe *b, uint32_t id)
{
    for (unsigned i = 0; i < 256; i++)
        if (b->byte_ids[i] == id)
            return true;
    return false;
}

static void find_bytes(struct bpe *b)
{
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        b->byte_ids[i] = NONE;
        b->all_bytes = bpe_find(b, name, &b->byte_ids[i]) && (b->all_bytes || i == 0);
    }
    for (size_t i = 0; i < b->cap_merges && !b->ranks; i++)
        b->bytes_join = b->bytes_join ||
                        (b->merges[i].pair != EMPTY &&
                         (is_byte(b, (uint32_t)(b->merges[i].pair >> 32)) || is_byte(b, (uint32_t)b->merges[i].pair)));
}

bool bpe_parse(struct bpe **out, const cJSON *model, const char *path, struct err *e)
{
    *out = NULL;
    if (!refuse_unread(model, path, e))
        return false;
    struct bpe *b = *out = calloc(1, sizeof *b);
    if (!b)
        return err_nomem(e, "the tokenizer", sizeof *b);
    b->byte_fallback = cJSON_IsTrue(json_get(model, "byte_fallback"));
    b->fuse_unk = cJSON_IsTrue(json_get(model, "fuse_unk"));
    b->ignore_merges = cJSON_IsTrue(json_get(model, "ignore_merges"));
    if (!parse_vocab(b, json_get(model, "vocab"), path, e) || !parse_merges(b, json_get(model, "merges"), path, e) ||
        !parse_unk(b, model, path, e)) {
        bpe_destroy(out);
        return false;
    }
    find_bytes(b);
    return true;
}

/* ---- lists ---- */

static bool list_vocab(struct bpe *b, const struct bpe_lists *l, const char *path, struct err *e)
{
    size_t bytes = 1;
    for (size_t i = 0; i < l->n; i++)
        bytes += l->tokens[i].size + 1;
    b->strings = malloc(bytes);
    if (!b->strings || !strmap_reserve(&b->vocab, l->n))
        return err_nomem(e, "the vocabulary", bytes + l->n * sizeof(struct strmap_slot));
    char *at = b->strings;
    for (size_t i = 0; i < l->n; i++) {
        size_t len = l->tokens[i].size;
        memcpy(at, l->tokens[i].text, len);
        at[len] = 0;
        if (len && !add_token(b, at, len, (uint32_t)i, path, e))
            return false;
        at += len + 1;
    }
    return true;
}

static bool list_merges(struct bpe *b, const struct bpe_lists *l, const char *path, struct err *e)
{
    if (!reserve_merges(b, l->n_merges, e))
        return false;
    struct strbuf joined = {0};
    bool ok = true;
    for (size_t i = 0; i < l->n_merges && ok; i++) {
        struct gguf_string s = l->merges[i];
        const char *space = s.size > 1 ? memchr(s.text + 1, ' ', s.size - 1) : NULL;
        if (!space) {
            ok = bad(e, path, "a merge is not a pair of tokens");
            break;
        }
        size_t n_left = (size_t)(space - s.text);
        ok = add_merge(b, (uint32_t)i, s.text, n_left, space + 1, s.size - n_left - 1, &joined, path, e);
    }
    strbuf_free(&joined);
    return ok;
}

struct scored {
    float score;
    uint32_t id;
};

static int compare_scores(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->id < y->id ? -1 : 1;
}

static bool rank_scores(struct bpe *b, const struct bpe_lists *l, const char *path, struct err *e)
{
    struct scored *list = malloc((l->n + 1) * sizeof *list);
    b->ranks = malloc((l->n + 1) * sizeof *b->ranks);
    bool ok = list && b->ranks ? true : err_nomem(e, "the scores", l->n * sizeof *list);
    for (size_t i = 0; i < l->n && ok; i++) {
        list[i] = (struct scored){l->scores[i], (uint32_t)i};
        if (l->scores[i] != l->scores[i])
            ok = bad(e, path, "a score is NaN");
    }
    if (ok) {
        qsort(list, l->n, sizeof *list, compare_scores);
        for (uint32_t i = 0, rank = 0; i < l->n; i++) {
            rank = i && list[i].score == list[i - 1].score ? rank : i;
            b->ranks[list[i].id] = rank;
        }
    }
    free(list);
    return ok;
}

bool bpe_build(struct bpe **out, const struct bpe_lists *l, const char *path, struct err *e)
{
    struct bpe *b = *out = calloc(1, sizeof *b);
    if (!b)
        return err_nomem(e, "the tokenizer", sizeof *b);
    b->unk = l->unk >= 0 ? (uint32_t)l->unk : NONE;
    b->byte_fallback = b->fuse_unk = l->scores != NULL;
    b->ignore_merges = l->ignore_merges;
    if (!list_vocab(b, l, path, e) || !(l->scores ? rank_scores(b, l, path, e) : list_merges(b, l, path, e))) {
        bpe_destroy(out);
        return false;
    }
    find_bytes(b);
    return true;
}

void bpe_destroy(struct bpe **b)
{
    if (!*b)
        return;
    strmap_free(&(*b)->vocab);
    free((*b)->strings);
    free((*b)->merges);
    free((*b)->ranks);
    free((*b)->unk_missing);
    free(*b);
    *b = NULL;
}

bool bpe_find(const struct bpe *b, const char *token, uint32_t *id)
{
    return strmap_find(&b->vocab, token, strlen(token), id);
}

uint32_t bpe_size(const struct bpe *b)
{
    return b->size;
}

/* ---- cuts ---- */

/* The character is never the unknown token, which comes late and once for a run. */
static bool is_known(const struct bpe *b, const char *c, size_t n)
{
    uint32_t id;
    return (b->byte_fallback && b->all_bytes) || strmap_find(&b->vocab, c, n, &id);
}

/* A symbol across the place would be a token with both characters side by side. */
bool bpe_apart(const struct bpe *b, const char *left, size_t n_left, const char *right, size_t n_right)
{
    if (b->ignore_merges || b->bytes_join || !is_known(b, left, n_left) || !is_known(b, right, n_right))
        return false;
    for (size_t i = 0; i < b->vocab.cap; i++) {
        const char *key = b->vocab.slots[i].key, *end = key ? key + b->vocab.slots[i].len : NULL;
        for (const char *p = key; p && (p = memchr(p, left[0], (size_t)(end - p))); p++)
            if ((size_t)(end - p) >= n_left + n_right && memcmp(p, left, n_left) == 0 &&
                memcmp(p + n_left, right, n_right) == 0)
                return false;
    }
    return true;
}

/* ---- encoding ---- */

void bpe_work_free(struct bpe_work *w)
{
    free(w->symbols);
    free(w->heap);
    *w = (struct bpe_work){0};
}

static bool add_symbol(struct bpe_work *w, uint32_t id, size_t begin, struct err *e)
{
    if (w->n_symbols >= NONE / 2 || begin >= NONE)
        return err_nomem(e, "a word to tokenize", begin);
    struct bpe_symbol *symbols =
        grow(w->symbols, &w->cap_symbols, w->n_symbols, sizeof *symbols, "a word to tokenize", e);
    if (!symbols)
        return false;
    w->symbols = symbols;
    uint32_t at = (uint32_t)w->n_symbols++;
    w->symbols[at] =
        (struct bpe_symbol){.id = id, .prev = at ? at - 1 : NONE, .next = at + 1, .begin = (uint32_t)begin};
    return true;
}

static void end_symbols(struct bpe_work *w)
{
    if (w->n_symbols)
        w->symbols[w->n_symbols - 1].next = NONE;
}

/* SentencePiece: one symbol per character, whether it is a token or not. */
static bool make_characters(const struct bpe *b, struct bpe_work *w, struct err *e)
{
    for (size_t i = 0, len; i < w->word_size; i += len) {
        uint32_t c, id = NONE;
        len = utf8_decode(w->word + i, &c);
        strmap_find(&b->vocab, w->word + i, len, &id);
        if (!add_symbol(w, id, i, e))
            return false;
    }
    end_symbols(w);
    return true;
}

/* A symbol that never became a token: its bytes, or the unknown token, one for a run of them. */
static bool emit_bytes(const struct bpe *b, const char *s, size_t n, bool *unk_before, struct id_list *out,
                       struct err *e)
{
    bool bytes = b->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++)
        bytes = b->byte_ids[(uint8_t)s[i]] != NONE;
    for (size_t i = 0; i < n && bytes; i++)
        if (!id_list_add(out, b->byte_ids[(uint8_t)s[i]], e))
            return false;
    bool unk = !bytes && b->unk != NONE;
    if (unk && !(*unk_before && b->fuse_unk) && !id_list_add(out, b->unk, e))
        return false;
    *unk_before = unk;
    return true;
}

/* One symbol per character; bytes or the unknown token where the vocabulary lacks it. */
static bool make_symbols(const struct bpe *b, struct bpe_work *w, const char *word, size_t n, struct err *e)
{
    bool unk_waits = false; /* the unknown token is added late, so that a run of them can become one */
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c, id;
        len = utf8_decode(word + i, &c);
        if (strmap_find(&b->vocab, word + i, len, &id)) {
            if (unk_waits && !add_symbol(w, b->unk, i, e))
                return false;
            unk_waits = false;
            if (!add_symbol(w, id, i, e))
                return false;
            continue;
        }
        bool bytes = b->byte_fallback;
        for (size_t k = 0; k < len && bytes; k++)
            bytes = b->byte_ids[(uint8_t)word[i + k]] != NONE;
        if (bytes) {
            for (size_t k = 0; k < len; k++)
                if (!add_symbol(w, b->byte_ids[(uint8_t)word[i + k]], i, e))
                    return false;
            continue;
        }
        if (b->unk_missing)
            return err_set(e, ERR_USER,
                           "the character U+%04X has no token, and the unknown token \"%.100s\" is not in the "
                           "vocabulary",
                           c, b->unk_missing);
        if (b->unk == NONE)
            continue; /* the reference implementation drops it too */
        if (unk_waits && !b->fuse_unk && !add_symbol(w, b->unk, i, e))
            return false;
        unk_waits = true;
    }
    if (unk_waits && !add_symbol(w, b->unk, n, e))
        return false;
    end_symbols(w);
    return true;
}

/* Bytes of the word from symbol pos up to symbol `next`. */
static size_t span(const struct bpe_work *w, uint32_t pos, uint32_t next)
{
    return (next == NONE ? w->word_size : w->symbols[next].begin) - w->symbols[pos].begin;
}

/* What the symbol at pos and its right neighbour become, if anything. */
static bool find_merge(const struct bpe *b, const struct bpe_work *w, uint32_t pos, struct bpe_merge *out)
{
    const struct bpe_symbol *s = &w->symbols[pos], *right = &w->symbols[s->next];
    out->pos = pos;
    if (b->ranks) {
        size_t n = span(w, pos, right->next);
        if (n > b->longest || !strmap_find(&b->vocab, w->word + s->begin, n, &out->id))
            return false;
        out->rank = b->ranks[out->id];
        return true;
    }
    const struct merge_slot *found = merge_slot(b, (uint64_t)s->id << 32 | right->id);
    out->rank = found->rank;
    out->id = found->id;
    return found->pair != EMPTY;
}

static bool before(const struct bpe_merge *a, const struct bpe_merge *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static bool push_merge(const struct bpe *b, struct bpe_work *w, uint32_t pos, struct err *e)
{
    struct bpe_merge merge;
    if (!find_merge(b, w, pos, &merge))
        return true;
    struct bpe_merge *heap = grow(w->heap, &w->cap_heap, w->n_heap, sizeof *heap, "a word to tokenize", e);
    if (!heap)
        return false;
    w->heap = heap;
    size_t i = w->n_heap++;
    for (; i > 0 && before(&merge, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = merge;
    return true;
}

static struct bpe_merge pop_merge(struct bpe_work *w)
{
    struct bpe_merge top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        child += child + 1 < w->n_heap && before(&w->heap[child + 1], &w->heap[child]);
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

static bool merge_symbols(const struct bpe *b, struct bpe_work *w, struct err *e)
{
    w->n_heap = 0;
    for (uint32_t i = 0; i + 1 < w->n_symbols; i++)
        if (!push_merge(b, w, i, e))
            return false;
    for (size_t i = 1; w->n_heap; i++) {
        struct bpe_merge top = pop_merge(w);
        if (!tokenizer_go_on(i, e))
            return false;
        struct bpe_symbol *s = &w->symbols[top.pos];
        if (s->dead || s->next == NONE)
            continue;
        /* The pair may have changed since it was pushed. */
        struct bpe_symbol *right = &w->symbols[s->next];
        struct bpe_merge now;
        if (!find_merge(b, w, top.pos, &now) || now.id != top.id)
            continue;
        s->id = top.id;
        right->dead = true;
        s->next = right->next;
        if (s->next != NONE)
            w->symbols[s->next].prev = top.pos;
        if (s->prev != NONE && !push_merge(b, w, s->prev, e))
            return false;
        if (s->next != NONE && !push_merge(b, w, top.pos, e))
            return false;
    }
    return true;
}

bool bpe_encode(const struct bpe *b, struct bpe_work *w, const char *word, size_t n, struct id_list *out, struct err *e)
{
    uint32_t id;
    if (b->ignore_merges && strmap_find(&b->vocab, word, n, &id))
        return id_list_add(out, id, e);
    w->word = word;
    w->word_size = n;
    w->n_symbols = 0;
    if (!(b->ranks ? make_characters(b, w, e) : make_symbols(b, w, word, n, e)) || !merge_symbols(b, w, e))
        return false;
    bool unk = false;
    for (uint32_t i = 0; i < w->n_symbols; i++) {
        const struct bpe_symbol *s = &w->symbols[i];
        if (s->dead)
            continue;
        if (s->id == NONE ? !emit_bytes(b, word + s->begin, span(w, i, s->next), &unk, out, e)
                          : !id_list_add(out, s->id, e))
            return false;
        unk &= s->id == NONE;
    }
    return true;
}
