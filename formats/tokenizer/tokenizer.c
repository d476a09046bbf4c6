/* A tokenizer put together from tokenizer.json: added tokens, normalizer, pre-tokenizer, BPE, and the BOS. */
#include "formats/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "formats/side_file.h"
#include "formats/tokenizer/tokenizer_file.h"
#include "formats/tokenizer/tokenizer_parts.h"
#include "host/base/os.h"

/* ---- added tokens ---- */

static bool bad(struct err *e, const char *path, const char *what)
{
    err_set(e, ERR_USER, "%s: %s", path, what);
    return err_hint(e, "download it again");
}

static bool parse_added(struct tokenizer *t, const cJSON *list, const char *path, struct err *e)
{
    if (!list)
        return true;
    if (!cJSON_IsArray(list))
        return bad(e, path, "\"added_tokens\" is not a list");
    t->added = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *t->added);
    if (!t->added)
        return err_nomem(e, "the added tokens", sizeof *t->added);
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *content = json_get(item, "content");
        uint64_t id;
        if (!cJSON_IsString(content) || !json_u64(json_get(item, "id"), &id) || id >= INT32_MAX)
            return bad(e, path, "an added token lacks its content or a proper id");
        if (!content->valuestring[0])
            continue;
        struct added *a = &t->added[t->n_added];
        a->id = (uint32_t)id;
        a->special = cJSON_IsTrue(json_get(item, "special"));
        a->single_word = cJSON_IsTrue(json_get(item, "single_word"));
        a->lstrip = cJSON_IsTrue(json_get(item, "lstrip"));
        a->rstrip = cJSON_IsTrue(json_get(item, "rstrip"));
        a->normalized = cJSON_IsTrue(json_get(item, "normalized"));
        a->content = str_dup(content->valuestring);
        if (!a->content)
            return err_nomem(e, "an added token", strlen(content->valuestring));
        t->n_added++;
        if (a->id >= t->size)
            t->size = a->id + 1;
    }
    return true;
}

static bool list_added(struct tokenizer *t, const struct tokenizer_parts *parts, struct err *e)
{
    t->added = calloc(parts->n_added + 1, sizeof *t->added);
    if (!t->added)
        return err_nomem(e, "the added tokens", parts->n_added * sizeof *t->added);
    for (size_t i = 0; i < parts->n_added; i++) {
        struct added *a = &t->added[t->n_added];
        a->id = parts->added_ids[i];
        a->content = str_dup_n(parts->added[i].text, parts->added[i].size);
        if (!a->content)
            return err_nomem(e, "an added token", parts->added[i].size);
        t->n_added++;
    }
    return true;
}

static int compare_tokens(const void *a, const void *b)
{
    const struct match_token *x = a, *y = b;
    uint8_t cx = (uint8_t)x->text[0], cy = (uint8_t)y->text[0];
    if (cx != cy)
        return cx < cy ? -1 : 1;
    if (x->len != y->len)
        return x->len > y->len ? -1 : 1;
    return x->added < y->added ? -1 : 1;
}

/* Tokens marked `normalized` are looked for in normalized text, in their own normal form. */
static bool build_matcher(struct tokenizer *t, struct matcher *m, bool normalized, struct match_work *w, struct err *e)
{
    m->tokens = calloc(t->n_added + 1, sizeof *m->tokens);
    if (!m->tokens)
        return err_nomem(e, "the added tokens", t->n_added * sizeof *m->tokens);
    for (size_t i = 0; i < t->n_added; i++) {
        if (t->added[i].normalized != normalized)
            continue;
        struct strbuf text = {0};
        strbuf_puts(&text, t->added[i].content);
        if (text.failed)
            return err_nomem(e, "an added token", text.size);
        if (normalized && !normalize(&t->normalizers, w, &text, AT_FIRST, e)) {
            strbuf_free(&text);
            return false;
        }
        if (text.size == 0) {
            strbuf_free(&text);
            continue;
        }
        m->tokens[m->n++] = (struct match_token){text.data, text.size, (uint32_t)i};
        m->longest = m->longest > text.size ? m->longest : text.size;
    }
    qsort(m->tokens, m->n, sizeof *m->tokens, compare_tokens);
    for (size_t i = 0; i < m->n; i++)
        m->start[(uint8_t)m->tokens[i].text[0] + 1]++;
    for (int i = 0; i < 256; i++)
        m->start[i + 1] += m->start[i];
    return true;
}

static bool build_matchers(struct tokenizer *t, struct err *e)
{
    struct match_work w = {0};
    if (!match_work_create(&w, e))
        return false;
    bool ok = build_matcher(t, &t->raw, false, &w, e) && build_matcher(t, &t->normal, true, &w, e);
    match_work_free(&w);
    return ok;
}

static void matcher_free(struct matcher *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->tokens[i].text);
    free(m->tokens);
}

const struct match_token *match_at(const struct matcher *m, const char *s, size_t n)
{
    uint8_t first = (uint8_t)*s;
    for (uint32_t i = m->start[first]; i < m->start[first + 1]; i++)
        if (m->tokens[i].len <= n && memcmp(m->tokens[i].text, s, m->tokens[i].len) == 0)
            return &m->tokens[i];
    return NULL;
}

/* ---- parsing ---- */

/* TemplateProcessing: the special token that stands in front of the sequence. */
static void read_template(struct tokenizer *t, const cJSON *o)
{
    const cJSON *single = json_get(o, "single");
    const cJSON *special = cJSON_IsArray(single) ? json_get(single->child, "SpecialToken") : NULL;
    const cJSON *name = json_get(special, "id");
    if (!cJSON_IsString(name))
        return;
    const cJSON *ids = json_get(json_get(json_get(o, "special_tokens"), name->valuestring), "ids");
    uint64_t id;
    if (cJSON_IsArray(ids) && json_u64(ids->child, &id) && id < INT32_MAX)
        t->bos = (int64_t)id;
}

static bool parse_post_processor(struct tokenizer *t, const cJSON *o, const char *path, struct err *e)
{
    if (!o)
        return true;
    const cJSON *type = json_get(o, "type"), *item;
    const char *name = cJSON_IsString(type) ? type->valuestring : "(none)";
    if (strcmp(name, "Sequence") == 0) {
        cJSON_ArrayForEach(item, json_get(o, "processors"))
        {
            if (!parse_post_processor(t, item, path, e))
                return false;
        }
        return true;
    }
    if (strcmp(name, "TemplateProcessing") == 0) {
        read_template(t, o);
        return true;
    }
    if (strcmp(name, "ByteLevel") == 0) /* concerns offsets only */
        return true;
    if (strcmp(name, "RobertaProcessing") == 0 || strcmp(name, "BertProcessing") == 0) {
        const cJSON *cls = json_get(o, "cls");
        uint64_t id;
        if (cJSON_IsArray(cls) && cls->child && json_u64(cls->child->next, &id) && id < INT32_MAX)
            t->bos = (int64_t)id;
        return true;
    }
    err_set(e, ERR_USER, "%s: post_processor: %.100s is not known to gsq", path, name);
    return err_hint(e, "gsq cannot reproduce this tokenizer exactly");
}

static bool parse_root(struct tokenizer *t, const cJSON *root, const char *path, struct err *e)
{
    if (!cJSON_IsObject(root))
        return bad(e, path, "does not hold an object");
    if (!normalizers_parse(&t->normalizers, json_get(root, "normalizer"), path, e) ||
        !pretokenizers_parse(&t->pretokenizers, json_get(root, "pre_tokenizer"), path, e) ||
        !bpe_parse(&t->bpe, json_get(root, "model"), path, e))
        return false;
    t->size = bpe_size(t->bpe);
    if (!parse_added(t, json_get(root, "added_tokens"), path, e) ||
        !parse_post_processor(t, json_get(root, "post_processor"), path, e))
        return false;
    if (t->bos >= t->size)
        return bad(e, path, "the post_processor adds a token that does not exist");
    return build_matchers(t, e);
}

/* A list of steps from JSON of our own. */
static bool build_steps(struct step_list *l, const char *json, bool normalizers, const char *path, struct err *e)
{
    if (!json)
        return true;
    cJSON *root = json_parse(json, strlen(json), path, e);
    bool ok = root && (normalizers ? normalizers_parse(l, root, path, e) : pretokenizers_parse(l, root, path, e));
    cJSON_Delete(root);
    return ok;
}

bool tokenizer_build(struct tokenizer **out, const struct tokenizer_parts *parts, const char *path, struct err *e)
{
    struct tokenizer *t = *out = calloc(1, sizeof *t);
    struct bpe *bpe = parts->bpe;
    if (!t) {
        bpe_destroy(&bpe);
        return err_nomem(e, "the tokenizer", sizeof *t);
    }
    t->bpe = bpe;
    t->bos = parts->bos;
    t->size = parts->size;
    bool ok = build_steps(&t->normalizers, parts->normalizer, true, path, e) &&
              build_steps(&t->pretokenizers, parts->pretokenizer, false, path, e) && list_added(t, parts, e) &&
              build_matchers(t, e);
    if (!ok)
        tokenizer_destroy(out);
    return ok;
}

bool tokenizer_parse(struct tokenizer **out, const char *text, size_t size, const char *path, struct err *e)
{
    *out = NULL;
    cJSON *root = json_parse(text, size, path, e);
    if (!root)
        return false;
    struct tokenizer *t = *out = calloc(1, sizeof *t);
    bool ok = t ? true : err_nomem(e, "the tokenizer", sizeof *t);
    if (ok) {
        t->bos = -1;
        ok = parse_root(t, root, path, e);
    }
    cJSON_Delete(root);
    if (!ok)
        tokenizer_destroy(out);
    return ok;
}

void tokenizer_destroy(struct tokenizer **t)
{
    if (!*t)
        return;
    bpe_destroy(&(*t)->bpe);
    steps_free(&(*t)->normalizers);
    steps_free(&(*t)->pretokenizers);
    matcher_free(&(*t)->raw);
    matcher_free(&(*t)->normal);
    for (size_t i = 0; i < (*t)->n_added; i++)
        free((*t)->added[i].content);
    free((*t)->added);
    free(*t);
    *t = NULL;
}

/* ---- the folder ---- */

static bool find_token(const struct tokenizer *t, const char *content, int64_t *id)
{
    uint32_t found;
    for (size_t i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].content, content) == 0) {
            *id = t->added[i].id;
            return true;
        }
    if (!bpe_find(t->bpe, content, &found))
        return false;
    *id = found;
    return true;
}

/* Whether Hugging Face's class puts the bos_token in front where no file says so. A folder without the class
 * gets that of config.json's model_type. */
static bool class_adds_bos(const cJSON *tokenizer_config, const cJSON *model_config)
{
    static const char *const classes[] = {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"};
    static const char *const types[] = {"llama",  "code_llama", "mistral",     "mixtral", "gemma",
                                        "gemma2", "gemma3",     "gemma3_text", "phi3",    "cohere"};
    const cJSON *name = json_get(tokenizer_config, "tokenizer_class");
    const cJSON *type = json_get(model_config, "model_type");
    bool adds = !cJSON_IsString(name) && !cJSON_IsString(type);
    for (size_t i = 0; cJSON_IsString(name) && i < sizeof classes / sizeof classes[0]; i++) {
        size_t n = strlen(classes[i]);
        const char *rest = name->valuestring + n;
        adds |= strncmp(name->valuestring, classes[i], n) == 0 && (!*rest || strcmp(rest, "Fast") == 0);
    }
    for (size_t i = 0; !cJSON_IsString(name) && cJSON_IsString(type) && i < sizeof types / sizeof types[0]; i++)
        adds |= strcmp(type->valuestring, types[i]) == 0;
    return adds;
}

/* add_bos_token of tokenizer_config.json decides; where it is absent, what the post-processor does; where
 * that does nothing, what the class of the tokenizer does. Without that file the bos_token_id of config.json
 * counts, if it is a special token (some models name their end-of-text token there and never add it, but
 * those come with a tokenizer_config.json that says so). */
static bool find_bos(struct tokenizer *t, const char *dir, struct err *e)
{
    char path[TOKENIZER_PATH], model_path[TOKENIZER_PATH];
    cJSON *root, *model = NULL;
    if (!tokenizer_side_json(&root, dir, "tokenizer_config.json", path, e))
        return false;
    const cJSON *add = json_get(root, "add_bos_token"), *bos = json_get(root, "bos_token");
    bool ok = true;
    if (cJSON_IsFalse(add))
        t->bos = -1;
    else if (t->bos < 0)
        ok = tokenizer_side_json(&model, dir, "config.json", model_path, e);
    if (cJSON_IsObject(bos))
        bos = json_get(bos, "content");
    if (root && ok && t->bos < 0 && !cJSON_IsFalse(add) && cJSON_IsString(bos) &&
        (cJSON_IsTrue(add) || class_adds_bos(root, model)) && !find_token(t, bos->valuestring, &t->bos)) {
        ok = err_set(e, ERR_USER, "%s: the bos_token \"%.100s\" is not in the tokenizer", path, bos->valuestring);
        err_hint(e, "the two files do not belong together: download them again");
    }
    bos = json_get(model, "bos_token_id");
    uint64_t id;
    if (!root && ok && json_u64(cJSON_IsArray(bos) ? bos->child : bos, &id))
        for (size_t i = 0; i < t->n_added; i++)
            if (t->added[i].special && t->added[i].id == id)
                t->bos = (int64_t)id;
    cJSON_Delete(root);
    cJSON_Delete(model);
    return ok;
}

static bool load_gguf(struct tokenizer **out, const char *path, struct err *e)
{
    struct gguf *g = NULL;
    bool ok = gguf_open(&g, path, e) && tokenizer_from_gguf(out, g, path, e);
    if (g)
        gguf_close(&g);
    return ok;
}

bool tokenizer_load(struct tokenizer **out, const char *dir, struct err *e)
{
    char path[TOKENIZER_PATH];
    struct strbuf json = {0};
    bool there;
    *out = NULL;
    if (os_stat(dir, NULL) == OS_FILE)
        return load_gguf(out, dir, e);
    bool ok = tokenizer_file_read(&json, dir, path, &there, e);
    if (ok && !there) {
        ok = err_set(e, ERR_USER, "%s has no tokenizer.json", dir);
        err_hint(e, "a tokenizer.model has to be saved as tokenizer.json first (any recent `transformers` does)");
    }
    ok = ok && tokenizer_parse(out, json.data, json.size, path, e) && find_bos(*out, dir, e);
    strbuf_free(&json);
    if (!ok)
        tokenizer_destroy(out);
    return ok;
}

uint32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->size;
}

int64_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

/* ---- encoding ---- */

bool tokenizer_go_on(size_t i, struct err *e)
{
    return i % 1024 != 0 || !os_stop_requested() || err_set(e, ERR_STOPPED, "stopped while a text was tokenized");
}

size_t char_before(const char *s, size_t at, uint32_t *c)
{
    do
        at--;
    while (at > 0 && ((uint8_t)s[at] & 0xC0) == 0x80);
    utf8_decode(s + at, c);
    return at;
}

static bool stands_alone(const char *s, size_t n, size_t begin, size_t end)
{
    uint32_t c;
    if (begin > 0 && (char_before(s, begin, &c), is_word_char(c)))
        return false;
    return end == n || (utf8_decode(s + end, &c), !is_word_char(c));
}

/* Spaces around a token that swallows them. floor: end of the token before. */
static void strip_around(const struct added *a, const char *s, size_t n, size_t floor, size_t *begin, size_t *end)
{
    uint32_t c;
    for (size_t at = *begin; a->lstrip && at > floor;) {
        at = char_before(s, at, &c);
        if (!is_space_char(c))
            break;
        *begin = at > floor ? at : floor;
    }
    while (a->rstrip && *end < n) {
        unsigned len = utf8_decode(s + *end, &c);
        if (!is_space_char(c))
            break;
        *end += len;
    }
}

/* Words of normalized text without added tokens. */
static bool encode_words(struct encoder *x, const char *s, size_t n, unsigned where)
{
    struct pieces *p = &x->pieces;
    if ((where & AT_CUT) && !cut_check(x->t, &x->match, s, n, where, &x->tail, &x->cut_holds, x->e))
        return false;
    p->text.size = 0;
    strbuf_add(&p->text, s, n);
    if (p->text.failed)
        return err_nomem(x->e, "the text to tokenize", n);
    if (!pretokenize(&x->t->pretokenizers, &x->match, p, where, x->e))
        return false;
    for (size_t i = 0; i < p->n; i++)
        if (!tokenizer_go_on(i, x->e) || !bpe_encode(x->t->bpe, &x->bpe, p->text.data + p->list[i].begin,
                                                     p->list[i].end - p->list[i].begin, &x->out, x->e))
            return false;
    return true;
}

typedef bool encode_fn(struct encoder *x, const char *s, size_t n, unsigned where);

/* Added tokens become their ids, what lies between them goes to `between`. */
static bool encode_around(struct encoder *x, const struct matcher *m, const char *s, size_t n, unsigned where,
                          encode_fn *between)
{
    size_t done = 0;
    for (size_t at = 0; at < n && m->n;) {
        const struct match_token *token = match_at(m, s + at, n - at);
        if (!token) {
            at++;
            continue;
        }
        const struct added *a = &x->t->added[token->added];
        size_t begin = at, end = at + token->len;
        at = end;
        if (begin < done || (a->single_word && !stands_alone(s, n, begin, end)))
            continue;
        strip_around(a, s, n, done, &begin, &end);
        if (begin > done && !between(x, s + done, begin - done, done == 0 ? where & ~(unsigned)AT_CUT : 0))
            return false;
        if (!id_list_add(&x->out, a->id, x->e))
            return false;
        done = end;
    }
    return done == n || between(x, s + done, n - done, done == 0 ? where : where & AT_CUT);
}

static bool encode_raw(struct encoder *x, const char *s, size_t n, unsigned where)
{
    struct strbuf text = {0};
    strbuf_add(&text, s, n);
    bool ok = text.failed ? err_nomem(x->e, "the text to tokenize", n) : true;
    ok = ok && normalize(&x->t->normalizers, &x->match, &text, where, x->e) &&
         encode_around(x, &x->t->normal, text.data, text.size, where, encode_words);
    strbuf_free(&text);
    return ok;
}

bool encode_chunk(struct encoder *x, const char *s, size_t n, unsigned where)
{
    x->cut_holds = false;
    return (x->match.data || match_work_create(&x->match, x->e)) &&
           encode_around(x, &x->t->raw, s, n, where, encode_raw);
}

void encoder_free(struct encoder *x)
{
    bpe_work_free(&x->bpe);
    match_work_free(&x->match);
    pieces_free(&x->pieces);
    free(x->out.ids);
    x->out = (struct id_list){0};
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t size, uint32_t **ids, size_t *n,
                      struct err *e)
{
    size_t at;
    *ids = NULL;
    *n = 0;
    if (!utf8_valid(text, size, &at)) {
        err_set(e, ERR_USER, "the text is not UTF-8: byte 0x%02X at offset %zu", (unsigned)(uint8_t)text[at], at);
        return err_hint(e, "convert the text to UTF-8, for example with iconv");
    }
    struct encoder x = {.t = t, .e = e};
    bool ok = (t->bos < 0 || id_list_add(&x.out, (uint32_t)t->bos, e)) && encode_chunk(&x, text, size, AT_FIRST);
    /* Exactly one BOS, also if the text brings its own. */
    if (ok && t->bos >= 0 && x.out.n > 1 && x.out.ids[1] == (uint32_t)t->bos)
        memmove(x.out.ids, x.out.ids + 1, --x.out.n * sizeof *x.out.ids);
    ok = ok && id_list_take(&x.out, ids, n, e);
    encoder_free(&x);
    return ok;
}
