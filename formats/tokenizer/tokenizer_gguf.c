/* The tokenizer in a GGUF's metadata: "llama" (SentencePiece with scores) and "gpt2" (byte-level BPE). */
#include "formats/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer/tokenizer_parts.h"
#include "formats/tokenizer/tokenizer_pre.h"

/* tokenizer.ggml.token_type: what is recognised in the text itself. */
enum { TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4 };

#define MARK "\xE2\x96\x81" /* U+2581, SentencePiece's space */
static const char replace_spaces[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}";
static const char prepend_and_replace[] =
    "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}]}";

struct reader {
    const struct gguf *g;
    const char *path;
    struct gguf_string *tokens, *merges, *added;
    uint32_t *added_ids;
    float *scores;
    struct tokenizer_parts parts;
    struct bpe_lists lists;
    struct err *e;
};

static bool bad(const struct reader *r, const char *key, const char *what)
{
    err_set(r->e, ERR_USER, "%s: \"tokenizer.ggml.%s\" %s", r->path, key, what);
    return err_hint(r->e, "the file is damaged: download or convert the model again");
}

static bool is(struct gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}

static int shown(struct gguf_string s)
{
    return s.size < 60 ? (int)s.size : 60;
}

/* ---- arrays ---- */

static bool read_strings(struct reader *r, const char *key, struct gguf_string **list, size_t *n)
{
    char name[64] = "tokenizer.ggml.";
    const struct gguf_kv *kv = gguf_find(r->g, strcat(name, key));
    if (!kv)
        return bad(r, key, "is missing");
    if (kv->type != GGUF_ARRAY || kv->element != GGUF_STRING || kv->n >= INT32_MAX)
        return bad(r, key, "is not a list of strings");
    *n = (size_t)kv->n;
    *list = malloc((*n + 1) * sizeof **list);
    if (!*list)
        return err_nomem(r->e, "the tokenizer", (*n + 1) * sizeof **list);
    const uint8_t *at = kv->data;
    for (size_t i = 0; i < *n; i++)
        (*list)[i] = gguf_next_string(&at);
    return true;
}

/* An array of numbers, one per token; NULL: absent. */
static bool numbers(struct reader *r, const char *key, bool floats, const struct gguf_kv **out)
{
    char name[64] = "tokenizer.ggml.";
    const struct gguf_kv *kv = *out = gguf_find(r->g, strcat(name, key));
    if (!kv)
        return true;
    bool real = kv->element == GGUF_F32 || kv->element == GGUF_F64;
    if (kv->type != GGUF_ARRAY || kv->element == GGUF_STRING || kv->element == GGUF_BOOL || real != floats)
        return bad(r, key, floats ? "is not a list of floats" : "is not a list of whole numbers");
    return kv->n == r->lists.n || bad(r, key, "is not as long as the list of tokens");
}

static bool read_added(struct reader *r)
{
    const struct gguf_kv *types;
    if (!numbers(r, "token_type", false, &types))
        return false;
    r->added = malloc((r->lists.n + 1) * sizeof *r->added);
    r->added_ids = malloc((r->lists.n + 1) * sizeof *r->added_ids);
    if (!r->added || !r->added_ids)
        return err_nomem(r->e, "the added tokens", r->lists.n * sizeof *r->added);
    for (size_t i = 0; types && i < r->lists.n; i++) {
        int64_t type = gguf_integer(types, i);
        if (type < TOKEN_UNKNOWN || type > TOKEN_USER || r->tokens[i].size == 0)
            continue;
        r->added[r->parts.n_added] = r->tokens[i];
        r->added_ids[r->parts.n_added++] = (uint32_t)i;
    }
    r->parts.added = r->added;
    r->parts.added_ids = r->added_ids;
    return true;
}

/* ---- single values ---- */

/* A token of the vocabulary; absent or outside (some files say 0xFFFFFFFF for none): fallback, if that is
 * one. */
static bool read_id(struct reader *r, const char *key, int64_t fallback, int64_t *out)
{
    uint64_t id;
    enum gguf_got got = gguf_get_u64(r->g, key, &id, r->e);
    if (got == GGUF_BAD)
        return false;
    *out = got == GGUF_OK ? (id < r->lists.n ? (int64_t)id : -1) : fallback;
    if (*out >= (int64_t)r->lists.n)
        *out = -1;
    return true;
}

static bool read_bos(struct reader *r, bool add, int64_t fallback)
{
    return gguf_get_bool(r->g, "tokenizer.ggml.add_bos_token", &add, r->e) != GGUF_BAD &&
           read_id(r, "tokenizer.ggml.bos_token_id", fallback, &r->parts.bos) && (add || (r->parts.bos = -1, true));
}

/* ---- the two models ---- */

static bool read_sentencepiece(struct reader *r)
{
    const struct gguf_kv *scores;
    bool space = true;
    if (!numbers(r, "scores", true, &scores))
        return false;
    if (!scores)
        return bad(r, "scores", "is missing");
    r->scores = malloc((r->lists.n + 1) * sizeof *r->scores);
    if (!r->scores)
        return err_nomem(r->e, "the scores", r->lists.n * sizeof *r->scores);
    for (size_t i = 0; i < r->lists.n; i++)
        r->scores[i] = (float)gguf_number(scores, i);
    r->lists.scores = r->scores;
    if (gguf_get_bool(r->g, "tokenizer.ggml.add_space_prefix", &space, r->e) == GGUF_BAD ||
        !read_id(r, "tokenizer.ggml.unknown_token_id", 0, &r->lists.unk))
        return false;
    r->parts.normalizer = space ? prepend_and_replace : replace_spaces;
    return read_bos(r, true, 1);
}

static bool unknown_pre(const struct reader *r, struct gguf_string name)
{
    char known[400] = "", one[TOKENIZER_PRE_NAME];
    for (size_t i = 0; tokenizer_pre_at(i); i++) {
        size_t n = strlen(known);
        tokenizer_pre_name(tokenizer_pre_at(i), one);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", one);
    }
    err_set(r->e, ERR_USER, "%s: gsq does not know the pre-tokenizer \"%.*s\"", r->path, shown(name), name.text);
    return err_hint(r->e,
                    "gsq knows %s, and other names of these; or give the model's Hugging Face folder, which "
                    "has a tokenizer.json",
                    known);
}

static bool read_byte_level(struct reader *r)
{
    struct gguf_string name = {"default", 7};
    if (!read_strings(r, "merges", &r->merges, &r->lists.n_merges) ||
        gguf_get_name(r->g, "tokenizer.ggml.pre", &name, r->e) == GGUF_BAD)
        return false;
    const struct tokenizer_pre *pre = tokenizer_pre_named(name.text, name.size);
    if (!pre)
        return unknown_pre(r, name);
    r->lists.merges = r->merges;
    r->lists.ignore_merges = pre->ignore_merges;
    r->parts.normalizer = pre->normalizer;
    r->parts.pretokenizer = pre->pretokenizer;
    return read_bos(r, pre->add_bos, -1);
}

static bool read_all(struct reader *r)
{
    struct gguf_string model = {"", 0};
    enum gguf_got got = gguf_get_name(r->g, "tokenizer.ggml.model", &model, r->e);
    if (got == GGUF_BAD)
        return false;
    bool sentencepiece = is(model, "llama");
    if (!sentencepiece && !is(model, "gpt2")) {
        if (got == GGUF_ABSENT || is(model, "none") || is(model, "no_vocab"))
            err_set(r->e, ERR_USER, "%s holds no tokenizer", r->path);
        else
            err_set(r->e, ERR_USER, "%s: gsq does not know the tokenizer \"%.*s\"", r->path, shown(model), model.text);
        return err_hint(r->e, "gsq reads the tokenizers llama and gpt2; or give the model's Hugging Face folder");
    }
    if (!read_strings(r, "tokens", &r->tokens, &r->lists.n))
        return false;
    r->lists.tokens = r->tokens;
    r->lists.unk = -1;
    r->parts.size = (uint32_t)r->lists.n;
    return read_added(r) && (sentencepiece ? read_sentencepiece(r) : read_byte_level(r));
}

static void free_reader(struct reader *r)
{
    free(r->tokens);
    free(r->merges);
    free(r->added);
    free(r->added_ids);
    free(r->scores);
}

bool tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g, const char *path, struct err *e)
{
    struct reader r = {.g = g, .path = path, .parts = {.bos = -1}, .e = e};
    *out = NULL;
    bool ok = read_all(&r) && bpe_build(&r.parts.bpe, &r.lists, path, e) && tokenizer_build(out, &r.parts, path, e);
    free_reader(&r);
    return ok;
}

/* ---- as files of a Hugging Face folder ---- */

struct output {
    const struct reader *r;
    struct strbuf *b, text; /* text: one token with a NUL after it */
};

static void put(struct output *o, const char *key, struct gguf_string s)
{
    o->text.size = 0;
    strbuf_add(&o->text, s.text, s.size);
    strbuf_puts(o->b, key);
    if (!o->text.failed)
        strbuf_json(o->b, o->text.data ? o->text.data : "");
}

struct scored_token {
    float score;
    uint32_t id;
};

static int compare_scored(const void *a, const void *b)
{
    const struct scored_token *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->id < y->id ? -1 : 1;
}

/* Whether JSON can hold the tokens, and a tokenizer comes of them. */
static bool check_lists(struct reader *r)
{
    size_t at;
    for (size_t i = 0; i < r->lists.n; i++) {
        struct gguf_string s = r->tokens[i];
        if (!utf8_valid(s.text, s.size, &at) || memchr(s.text, 0, s.size))
            return bad(r, "tokens", "holds a token that is not UTF-8 text");
        if (s.size > TOKEN_BYTES_MAX)
            return bad(r, "tokens", "holds a token that is too long");
    }
    bool ok = bpe_build(&r->parts.bpe, &r->lists, r->path, r->e);
    bpe_destroy(&r->parts.bpe);
    return ok;
}

static void put_added(struct output *o)
{
    const struct gguf_kv *types = gguf_find(o->r->g, "tokenizer.ggml.token_type");
    for (size_t i = 0; i < o->r->parts.n_added; i++) {
        uint32_t id = o->r->added_ids[i];
        strbuf_printf(o->b, "%s\n    {\"id\": %u, ", i ? "," : "", (unsigned)id);
        put(o, "\"content\": ", o->r->added[i]);
        strbuf_printf(o->b,
                      ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                      "\"special\": %s}",
                      gguf_integer(types, id) == TOKEN_USER ? "false" : "true");
    }
}

static void put_bos(struct output *o)
{
    int64_t bos = o->r->parts.bos;
    if (bos < 0) {
        strbuf_puts(o->b, "null");
        return;
    }
    struct gguf_string name = o->r->tokens[bos];
    put(o, "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": ", name);
    put(o,
        ", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [{\"SpecialToken\": "
        "{\"id\": ",
        name);
    put(o, ", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, {\"SpecialToken\": {\"id\": ", name);
    put(o, ", \"type_id\": 1}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], \"special_tokens\": {", name);
    put(o, ": {\"id\": ", name);
    strbuf_printf(o->b, ", \"ids\": [%u], \"tokens\": [", (unsigned)bos);
    put(o, "", name);
    strbuf_puts(o->b, "]}}}");
}

/* All pairs of tokens that make a token, the highest score first. */
static bool put_score_merges(struct output *o)
{
    const struct bpe_lists *l = &o->r->lists;
    struct strmap ids = {0};
    struct scored_token *order = malloc((l->n + 1) * sizeof *order);
    bool ok = order && strmap_reserve(&ids, l->n) ? true : err_nomem(o->r->e, "the merges", l->n * sizeof *order);
    for (size_t i = 0; i < l->n && ok; i++) {
        bool added;
        order[i] = (struct scored_token){l->scores[i], (uint32_t)i};
        if (!strmap_add(&ids, l->tokens[i].text, l->tokens[i].size, (uint32_t)i, &added))
            ok = err_nomem(o->r->e, "the merges", l->n);
    }
    if (ok)
        qsort(order, l->n, sizeof *order, compare_scored);
    const char *comma = "";
    for (size_t i = 0; i < l->n && ok; i++) {
        struct gguf_string s = l->tokens[order[i].id];
        uint32_t unused;
        for (size_t k = 1; k < s.size; k++) {
            struct gguf_string left = {s.text, k}, right = {s.text + k, s.size - k};
            if (((uint8_t)s.text[k] & 0xC0) == 0x80 || !strmap_find(&ids, left.text, left.size, &unused) ||
                !strmap_find(&ids, right.text, right.size, &unused))
                continue;
            strbuf_printf(o->b, "%s\n      ", comma);
            put(o, "[", left);
            put(o, ", ", right);
            strbuf_puts(o->b, "]");
            comma = ",";
        }
    }
    strmap_free(&ids);
    free(order);
    return ok;
}

static bool put_merges(struct output *o)
{
    const struct bpe_lists *l = &o->r->lists;
    if (l->scores)
        return put_score_merges(o);
    for (size_t i = 0; i < l->n_merges; i++)
        put(o, i ? ",\n      " : "\n      ", l->merges[i]);
    return true;
}

static bool put_tokenizer(struct output *o)
{
    const struct reader *r = o->r;
    bool sentencepiece = r->lists.scores != NULL;
    strbuf_puts(o->b,
                "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    put_added(o);
    strbuf_puts(o->b, "\n  ],\n  \"normalizer\": ");
    strbuf_puts(o->b, r->parts.normalizer ? r->parts.normalizer : "null");
    strbuf_puts(o->b, ",\n  \"pre_tokenizer\": ");
    strbuf_puts(o->b, r->parts.pretokenizer ? r->parts.pretokenizer : "null");
    strbuf_puts(o->b, ",\n  \"post_processor\": ");
    put_bos(o);
    strbuf_puts(o->b, ",\n  \"decoder\": ");
    if (!sentencepiece)
        strbuf_puts(o->b, "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
                          "\"use_regex\": true}");
    else
        strbuf_printf(o->b,
                      "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
                      "\"" MARK "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}%s]}",
                      r->parts.normalizer == prepend_and_replace
                          ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
                          : "");
    strbuf_puts(o->b, ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ");
    if (r->lists.unk >= 0)
        put(o, "", r->tokens[r->lists.unk]);
    else
        strbuf_puts(o->b, "null");
    strbuf_printf(o->b,
                  ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n"
                  "    \"fuse_unk\": %s,\n    \"byte_fallback\": %s,\n    \"ignore_merges\": %s,\n    \"vocab\": {",
                  sentencepiece ? "true" : "false", sentencepiece ? "true" : "false",
                  r->lists.ignore_merges ? "true" : "false");
    const char *comma = "\n      ";
    for (size_t i = 0; i < r->lists.n; i++) {
        if (!r->tokens[i].size)
            continue;
        put(o, comma, r->tokens[i]);
        strbuf_printf(o->b, ": %u", (unsigned)i);
        comma = ",\n      ";
    }
    strbuf_puts(o->b, "\n    },\n    \"merges\": [");
    bool ok = put_merges(o);
    strbuf_puts(o->b, "\n    ]\n  }\n}\n");
    return ok;
}

/* *there: a template that JSON can hold. */
static bool read_template(const struct output *o, const char *key, struct gguf_string *text, bool *there)
{
    size_t at;
    enum gguf_got got = gguf_get_string(o->r->g, key, text, o->r->e);
    *there = got == GGUF_OK && utf8_valid(text->text, text->size, &at);
    return got != GGUF_BAD;
}

/* One alone is a string; named ones (tokenizer.chat_templates) make a list, the other is its "default". */
static bool put_chat_templates(struct output *o)
{
    const struct gguf_kv *names = gguf_find(o->r->g, "tokenizer.chat_templates");
    bool listed = names && names->type == GGUF_ARRAY && names->element == GGUF_STRING, there;
    const uint8_t *next = listed ? names->data : NULL;
    struct gguf_string main, text;
    const char *comma = ",\n  \"chat_template\": [";
    if (!read_template(o, "tokenizer.chat_template", &main, &there))
        return false;
    if (there && !(listed && names->n)) {
        put(o, ",\n  \"chat_template\": ", main);
        return true;
    }
    if (there) {
        strbuf_puts(o->b, comma);
        put(o, "\n    {\"name\": \"default\", \"template\": ", main);
        strbuf_puts(o->b, "}");
        comma = ",";
    }
    bool any = there;
    for (uint64_t i = 0; listed && i < names->n; i++) {
        struct gguf_string name = gguf_next_string(&next);
        char key[128];
        size_t at;
        if (!name.size || name.size > 64 || !utf8_valid(name.text, name.size, &at) || memchr(name.text, 0, name.size))
            continue;
        snprintf(key, sizeof key, "tokenizer.chat_template.%.*s", (int)name.size, name.text);
        if (!read_template(o, key, &text, &there))
            return false;
        if (!there)
            continue;
        strbuf_puts(o->b, comma);
        put(o, "\n    {\"name\": ", name);
        put(o, ", \"template\": ", text);
        strbuf_puts(o->b, "}");
        comma = ",";
        any = true;
    }
    strbuf_puts(o->b, any ? "]" : "");
    return true;
}

static bool put_config(struct output *o)
{
    struct reader r = *o->r;
    static const char *const names[][2] = {
        {"bos_token", "bos_token_id"},
        {"eos_token", "eos_token_id"},
        {"unk_token", "unknown_token_id"},
        {"pad_token", "padding_token_id"},
    };
    strbuf_printf(o->b, "{\n  \"add_bos_token\": %s", r.parts.bos >= 0 ? "true" : "false");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char key[64] = "tokenizer.ggml.";
        int64_t id;
        if (!read_id(&r, strcat(key, names[i][1]), -1, &id))
            return false;
        if (i == 0 && r.parts.bos >= 0)
            id = r.parts.bos;
        if (id < 0 || !r.tokens[id].size)
            continue;
        strbuf_printf(o->b, ",\n  \"%s\": ", names[i][0]);
        put(o, "", r.tokens[id]);
    }
    if (!put_chat_templates(o))
        return false;
    strbuf_puts(o->b, ",\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
    return true;
}

bool tokenizer_json_from_gguf(struct strbuf *tokenizer, struct strbuf *config, const struct gguf *g, const char *path,
                              struct err *e)
{
    struct reader r = {.g = g, .path = path, .parts = {.bos = -1}, .e = e};
    struct output o = {.r = &r, .b = tokenizer};
    bool ok = read_all(&r) && check_lists(&r) && put_tokenizer(&o);
    o.b = config;
    ok = ok && put_config(&o);
    if (ok && (tokenizer->failed || config->failed || o.text.failed))
        ok = err_nomem(e, "tokenizer.json", tokenizer->size);
    strbuf_free(&o.text);
    free_reader(&r);
    return ok;
}
