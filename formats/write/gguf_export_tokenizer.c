/* tokenizer.json as tokenizer.ggml.*: tokens with types, merges or scores, special tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/write/gguf_export.h"
#include "formats/json.h"
#include "formats/read/chat_template.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/tokenizer_file.h"
#include "formats/side_file.h"
#include "formats/tokenizer/tokenizer_pre.h"
#include "host/base/log.h"
#include "host/base/os.h"
#include "host/base/str.h"

#define CONFIG_MAX (64u << 20)

/* As in the file. */
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };

struct vocab {
    struct gguf_string *tokens; /* [n] */
    int32_t *types;
    float *scores;
    char (*pads)[24]; /* texts of unused tokens, [n] */
    uint32_t n;
    struct strmap ids; /* text -> id; what was added counts before the model's own */
    uint32_t twins;    /* tokens whose text another one has already */
};

struct tokenizer_files {
    struct key_list *out;
    const char *dir;
    char path[TOKENIZER_PATH];
    cJSON *tokenizer, *tokenizer_config, *model_config;
    bool sentencepiece; /* "llama", else "gpt2" */
    struct vocab v;
    int64_t bos; /* what a text begins with, -1: nothing */
    struct err *e;
};

static const char *text_of(const cJSON *item)
{
    if (cJSON_IsObject(item))
        item = json_get(item, "content");
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

/* Whether a normalizer or pre-tokenizer of this type is in the tree; NULL: none. */
static const cJSON *find_step(const cJSON *o, const char *type)
{
    const char *name = text_of(json_get(o, "type"));
    if (name && strcmp(name, type) == 0)
        return o;
    static const char *const lists[] = {"normalizers", "pretokenizers", "decoders"};
    for (int i = 0; i < 3; i++) {
        const cJSON *list = json_get(o, lists[i]), *found;
        for (const cJSON *item = cJSON_IsArray(list) ? list->child : NULL; item; item = item->next)
            if ((found = find_step(item, type)))
                return found;
    }
    return NULL;
}

/* ---- tokens ---- */

static bool bad(const struct tokenizer_files *f, const char *what)
{
    err_set(f->e, ERR_USER, "%s: %s", f->path, what);
    return err_hint(f->e, "download it again");
}

static bool set_token(struct tokenizer_files *f, const char *text, const cJSON *item, int32_t type)
{
    uint64_t id;
    if (!json_u64(item, &id) || id > INT32_MAX)
        return bad(f, "a token has no proper id");
    if (id >= f->v.n) {
        err_set(f->e, ERR_USER, "%s: the token \"%.100s\" has the id %llu, but the embedding has only %u rows", f->path,
                text, (unsigned long long)id, (unsigned)f->v.n);
        return err_hint(f->e, "tokenizer.json and the weights do not belong together");
    }
    bool added;
    if (!strmap_add(&f->v.ids, text, strlen(text), (uint32_t)id, &added))
        return err_nomem(f->e, "the vocabulary", f->v.n);
    if (f->v.types[id]) /* added tokens come first, and may stand in the vocabulary too */
        return true;
    if (!added) { /* under another id: never read, and llama.cpp wants texts that differ */
        f->v.twins++;
        return true;
    }
    f->v.tokens[id] = (struct gguf_string){text, strlen(text)};
    f->v.types[id] = type;
    return true;
}

/* "<0x41>" */
static bool is_byte(const char *s)
{
    return strlen(s) == 6 && strncmp(s, "<0x", 3) == 0 && s[5] == '>' && strspn(s + 3, "0123456789ABCDEF") == 2;
}

static bool read_tokens(struct tokenizer_files *f)
{
    const cJSON *model = json_get(f->tokenizer, "model"), *vocab = json_get(model, "vocab");
    const cJSON *added = json_get(f->tokenizer, "added_tokens"), *item;
    const char *unk = text_of(json_get(model, "unk_token"));
    if (!cJSON_IsObject(vocab))
        return bad(f, "\"vocab\" is missing");
    if (!strmap_reserve(&f->v.ids, f->v.n))
        return err_nomem(f->e, "the vocabulary", f->v.n * sizeof(struct strmap_slot));
    cJSON_ArrayForEach(item, added)
    {
        const char *text = text_of(json_get(item, "content"));
        bool special = cJSON_IsTrue(json_get(item, "special"));
        if (text && text[0] && !set_token(f, text, json_get(item, "id"), special ? TOKEN_CONTROL : TOKEN_USER))
            return false;
    }
    cJSON_ArrayForEach(item, vocab)
    {
        bool byte = f->sentencepiece && is_byte(item->string);
        if (!set_token(f, item->string, item, byte ? TOKEN_BYTE : TOKEN_NORMAL))
            return false;
    }
    uint32_t id;
    if (unk && f->sentencepiece && strmap_find(&f->v.ids, unk, strlen(unk), &id))
        f->v.types[id] = TOKEN_UNKNOWN;
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < f->v.n; i++) {
        bytes += f->v.types[i] == TOKEN_BYTE;
        if (f->v.types[i])
            continue;
        int n = snprintf(f->v.pads[i], sizeof f->v.pads[i], "[PAD%u]", (unsigned)i);
        f->v.tokens[i] = (struct gguf_string){f->v.pads[i], (size_t)n};
        f->v.types[i] = TOKEN_UNUSED;
    }
    if (f->v.twins && !f->out->quiet)
        log_warn("%s: %u tokens have the same text as another token; the GGUF names them [PAD...]", f->path,
                 (unsigned)f->v.twins);
    if (f->sentencepiece && bytes < 256 && !f->out->quiet)
        log_warn("%s: the vocabulary has %u of 256 tokens for single bytes: llama.cpp stops at characters "
                 "that need the others",
                 f->path, (unsigned)bytes);
    return true;
}

/* ---- merges ---- */

/* "left right", or ["left", "right"] (checked when the tokenizer was loaded). Both become pieces of `joined`,
 * "left right"; *n_left is the length of the left one. */
static bool merge_text(const cJSON *item, struct strbuf *joined, size_t *n_left)
{
    joined->size = 0;
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        if (!space)
            return false;
        *n_left = (size_t)(space - item->valuestring);
        strbuf_puts(joined, item->valuestring);
        return true;
    }
    const char *left = text_of(cJSON_IsArray(item) ? item->child : NULL);
    const char *right = left ? text_of(item->child->next) : NULL;
    if (!left || !right)
        return false;
    *n_left = strlen(left);
    strbuf_puts(joined, left);
    strbuf_puts(joined, " ");
    strbuf_puts(joined, right);
    return true;
}

/* "left right" must say where right begins. */
static bool expressible(const struct strbuf *joined, size_t n_left)
{
    const char *right = joined->data + n_left + 1;
    size_t n_right = joined->size - n_left - 1;
    return n_left && n_right && !memchr(joined->data, ' ', n_left) && !memchr(right, ' ', n_right);
}

static bool put_merges(struct tokenizer_files *f)
{
    const cJSON *merges = json_get(json_get(f->tokenizer, "model"), "merges"), *item;
    size_t n = cJSON_IsArray(merges) ? (size_t)cJSON_GetArraySize(merges) : 0, i = 0, at = 0, n_left;
    struct strbuf all = {0}, one = {0};
    struct gguf_string *list = calloc(n + 1, sizeof *list);
    bool ok = list ? true : err_nomem(f->e, "the merges", n * sizeof *list);
    for (item = ok && n ? merges->child : NULL; ok && item; item = item->next) {
        ok = merge_text(item, &one, &n_left) ? true : bad(f, "a merge is not a pair of tokens");
        if (one.failed)
            break;
        if (ok && !expressible(&one, n_left))
            ok = bad(f, "a merge has an empty token or one with a space, which GGUF cannot express");
        strbuf_add(&all, one.data, one.size);
        list[i++].size = one.size;
    }
    if (ok && (all.failed || one.failed))
        ok = err_nomem(f->e, "the merges", all.size);
    for (i = 0; ok && i < n; at += list[i++].size)
        list[i].text = all.data + at;
    if (ok)
        key_strings(f->out, "tokenizer.ggml.merges", list, n);
    strbuf_free(&all);
    strbuf_free(&one);
    free(list);
    return ok;
}

/* Whether two tokens of the vocabulary make this one. */
static bool splits(const struct vocab *v, struct gguf_string s)
{
    uint32_t id;
    for (size_t i = 1; i < s.size && s.size <= TOKEN_BYTES_MAX; i++)
        if (((uint8_t)s.text[i] & 0xC0) != 0x80 && strmap_find(&v->ids, s.text, i, &id) &&
            strmap_find(&v->ids, s.text + i, s.size - i, &id))
            return true;
    return false;
}

/* Merges in llama.cpp go by the score of the token that they make, in tokenizer.json by their own rank:
 * scores are 0, -1, -2 ... in the order in which merges first make a token. Tokens that no merge makes come
 * after them: first those that llama.cpp could still put together, then the others. */
static bool find_scores(struct tokenizer_files *f)
{
    struct vocab *v = &f->v;
    const cJSON *merges = json_get(json_get(f->tokenizer, "model"), "merges"), *item;
    struct strbuf one = {0};
    bool *done = calloc((size_t)v->n + 1, sizeof *done);
    uint32_t next = 0, id, last = UINT32_MAX, scattered = 0, unmerged = 0;
    size_t n_left;
    bool ok = done ? true : err_nomem(f->e, "the scores", v->n);
    for (item = ok && cJSON_IsArray(merges) ? merges->child : NULL; item; item = item->next) {
        if (!merge_text(item, &one, &n_left) || one.failed) {
            ok = one.failed ? err_nomem(f->e, "the scores", one.size) : bad(f, "a merge is not a pair of tokens");
            break;
        }
        memmove(one.data + n_left, one.data + n_left + 1, one.size - n_left - 1);
        if (!strmap_find(&v->ids, one.data, one.size - 1, &id))
            continue;
        if (!done[id])
            v->scores[id] = -(float)next++;
        else
            scattered += id != last;
        done[id] = true;
        last = id;
    }
    for (int pass = 0; ok && pass < 2; pass++)
        for (id = 0; id < v->n; id++) {
            if (done[id] || v->types[id] != TOKEN_NORMAL || (pass == 0 && !splits(v, v->tokens[id])))
                continue;
            v->scores[id] = -(float)next++;
            done[id] = true;
            unmerged += pass == 0;
        }
    for (id = 0; ok && id < v->n; id++)
        if (v->types[id] == TOKEN_UNUSED)
            v->scores[id] = -(float)v->n;
    if (ok && (scattered || unmerged) && !f->out->quiet)
        log_warn("%s: %u merges are out of order and %u tokens have none: llama.cpp, which merges by tokens, may split "
                 "some words differently",
                 f->path, (unsigned)scattered, (unsigned)unmerged);
    free(done);
    strbuf_free(&one);
    return ok;
}

/* ---- special tokens ---- */

/* The id of "bos" ...: tokenizer_config.json says its text, config.json its number. -1: none. */
static int64_t special_id(const struct tokenizer_files *f, const char *name)
{
    char key[32];
    uint64_t number;
    uint32_t id;
    snprintf(key, sizeof key, "%s_token", name);
    const char *text = text_of(json_get(f->tokenizer_config, key));
    if (text && strmap_find(&f->v.ids, text, strlen(text), &id))
        return id;
    snprintf(key, sizeof key, "%s_token_id", name);
    const cJSON *item = json_get(f->model_config, key);
    if (json_u64(cJSON_IsArray(item) ? item->child : item, &number) && number < f->v.n)
        return (int64_t)number;
    return -1;
}

static void put_special(struct tokenizer_files *f)
{
    static const char *const names[][2] = {{"bos", "tokenizer.ggml.bos_token_id"},
                                           {"eos", "tokenizer.ggml.eos_token_id"},
                                           {"unk", "tokenizer.ggml.unknown_token_id"},
                                           {"pad", "tokenizer.ggml.padding_token_id"}};
    for (int i = 0; i < 4; i++) {
        int64_t id = i == 0 && f->bos >= 0 ? f->bos : special_id(f, names[i][0]);
        const char *unk = i == 2 && id < 0 ? text_of(json_get(json_get(f->tokenizer, "model"), "unk_token")) : NULL;
        uint32_t found;
        if (unk && strmap_find(&f->v.ids, unk, strlen(unk), &found))
            id = found;
        if (id >= 0)
            key_u32(f->out, names[i][1], (uint32_t)id);
    }
    key_bool(f->out, "tokenizer.ggml.add_bos_token", f->bos >= 0);
    if (!f->sentencepiece)
        return;
    const cJSON *meta = find_step(json_get(f->tokenizer, "pre_tokenizer"), "Metaspace");
    const char *scheme = text_of(json_get(meta, "prepend_scheme"));
    bool space =
        find_step(json_get(f->tokenizer, "normalizer"), "Prepend") ||
        (meta && !cJSON_IsFalse(json_get(meta, "add_prefix_space")) && (!scheme || strcmp(scheme, "never") != 0));
    key_bool(f->out, "tokenizer.ggml.add_space_prefix", space);
}

/* ---- chat templates ---- */

enum { TEMPLATES_MAX = 64, TEMPLATE_NAME = 64 };
struct templates {
    struct tokenizer_files *f;
    char files[TEMPLATES_MAX][TEMPLATE_NAME]; /* of additional_chat_templates */
    char names[TEMPLATES_MAX][TEMPLATE_NAME]; /* written */
    size_t n_files, n;
};

/* As tokenizer.chat_template.NAME, where what is no letter or digit becomes _. */
static void put_named_template(struct templates *t, const char *name, const char *text)
{
    size_t len = strlen(name);
    if (!len || len >= TEMPLATE_NAME || t->n == TEMPLATES_MAX) {
        if (!t->f->out->quiet)
            log_warn("%s: the chat template \"%.60s\" is left out of the GGUF: %s", t->f->dir, name,
                     t->n == TEMPLATES_MAX ? "there are too many" : "its name is empty or too long");
        return;
    }
    char *plain = t->names[t->n], key[TEMPLATE_NAME + 32];
    for (size_t i = 0; i <= len; i++) {
        bool fine = (name[i] >= '0' && name[i] <= '9') || (name[i] >= 'a' && name[i] <= 'z') ||
                    (name[i] >= 'A' && name[i] <= 'Z') || !name[i];
        plain[i] = fine ? name[i] : '_';
    }
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->names[i], plain) == 0)
            return;
    t->n++;
    snprintf(key, sizeof key, "tokenizer.chat_template.%s", plain);
    key_string(t->f->out, key, text);
}

static bool note_template(void *ctx, const char *name, struct err *e)
{
    struct templates *t = ctx;
    size_t len = strlen(name);
    (void)e;
    if (len > 6 && len < TEMPLATE_NAME && strcmp(name + len - 6, ".jinja") == 0 && t->n_files < TEMPLATES_MAX)
        memcpy(t->files[t->n_files++], name, len + 1);
    return true;
}

/* DIR/chat_template.jinja and DIR/additional_chat_templates/NAME.jinja. *found: the first is there. */
static bool put_template_files(struct templates *t, bool *found)
{
    struct tokenizer_files *f = t->f;
    char path[4096], dir[4096], *text;
    size_t size;
    *found = side_file(f->dir, "chat_template.jinja", !f->out->quiet, path, NULL);
    if (!*found)
        return true;
    if (!os_read_file(path, CONFIG_MAX, &text, &size, f->e))
        return false;
    key_string(f->out, "tokenizer.chat_template", text);
    free(text);
    if (!os_path_join(dir, sizeof dir, f->dir, "additional_chat_templates", f->e))
        return false;
    if (os_stat(dir, NULL) != OS_DIR)
        return true;
    if (!os_list(dir, note_template, t, f->e))
        return false;
    for (size_t i = 0; i < t->n_files; i++) {
        char name[TEMPLATE_NAME + 32];
        snprintf(name, sizeof name, "additional_chat_templates/%s", t->files[i]);
        if (!side_file(f->dir, name, !f->out->quiet, path, NULL))
            continue;
        if (!os_read_file(path, CONFIG_MAX, &text, &size, f->e))
            return false;
        t->files[i][strlen(t->files[i]) - 6] = 0;
        put_named_template(t, t->files[i], text);
        free(text);
    }
    return true;
}

/* The files, or else what tokenizer_config.json has: a string, or a list where one is named "default". */
static bool put_chat_templates(struct tokenizer_files *f)
{
    struct templates t = {.f = f};
    bool found;
    if (!put_template_files(&t, &found))
        return false;
    const cJSON *item = found ? NULL : json_get(f->tokenizer_config, "chat_template"), *one;
    const char *main = chat_template_default(item);
    for (one = cJSON_IsArray(item) ? item->child : NULL; one; one = one->next) {
        const char *name = text_of(json_get(one, "name")), *text = text_of(json_get(one, "template"));
        if (name && text && strcmp(name, "default") != 0)
            put_named_template(&t, name, text);
    }
    if (main)
        key_string(f->out, "tokenizer.chat_template", main);
    struct gguf_string names[TEMPLATES_MAX];
    for (size_t i = 0; i < t.n; i++)
        names[i] = (struct gguf_string){t.names[i], strlen(t.names[i])};
    if (t.n)
        key_strings(f->out, "tokenizer.chat_templates", names, t.n);
    return true;
}

/* ---- all of it ---- */

static bool find_kind(struct tokenizer_files *f)
{
    const cJSON *model = json_get(f->tokenizer, "model");
    f->sentencepiece = cJSON_IsTrue(json_get(model, "byte_fallback"));
    if (f->sentencepiece || find_step(json_get(f->tokenizer, "pre_tokenizer"), "ByteLevel"))
        return true;
    err_set(f->e, ERR_USER,
            "%s: GGUF has no counterpart for a tokenizer that is neither byte-level nor has byte fallback", f->path);
    return err_hint(f->e, "gsq writes the tokenizers of Llama, Mistral and Qwen models");
}

static bool put_tokens(struct tokenizer_files *f)
{
    struct vocab *v = &f->v;
    size_t n = v->n;
    v->tokens = calloc(n + 1, sizeof *v->tokens);
    v->types = calloc(n + 1, sizeof *v->types);
    v->scores = calloc(n + 1, sizeof *v->scores);
    v->pads = calloc(n + 1, sizeof *v->pads);
    if (!v->tokens || !v->types || !v->scores || !v->pads)
        return err_nomem(f->e, "the vocabulary", n * 48);
    if (!find_kind(f) || !read_tokens(f) || (f->sentencepiece && !find_scores(f)))
        return false;
    key_string(f->out, "tokenizer.ggml.model", f->sentencepiece ? "llama" : "gpt2");
    if (!f->sentencepiece) {
        const struct tokenizer_pre *pre;
        char name[TOKENIZER_PRE_NAME] = "default";
        if (!tokenizer_pre_of(&pre, f->tokenizer, f->path, f->e))
            return false;
        if (pre)
            tokenizer_pre_name(pre, name);
        const char *lost = tokenizer_lost_step(json_get(f->tokenizer, "normalizer"));
        if (lost && !f->out->quiet)
            log_warn(
                "%s: its normalizer %.60s has no counterpart in GGUF: llama.cpp will tokenize some texts differently",
                f->path, lost);
        if (!pre && !f->out->quiet)
            log_warn("%s: GGUF has no name for its pre_tokenizer: llama.cpp will split some words differently "
                     "(tokenizer.ggml.pre is \"default\")",
                     f->path);
        key_string(f->out, "tokenizer.ggml.pre", name);
    }
    key_strings(f->out, "tokenizer.ggml.tokens", v->tokens, n);
    if (f->sentencepiece)
        key_array(f->out, "tokenizer.ggml.scores", GGUF_F32, v->scores, n);
    key_array(f->out, "tokenizer.ggml.token_type", GGUF_I32, v->types, n);
    return f->sentencepiece || put_merges(f);
}

/* The tokenizer as gsq itself reads it: it must be one that gsq can follow, and says what a text begins with.
 */
static bool find_bos(struct tokenizer_files *f)
{
    struct tokenizer *t;
    if (!tokenizer_load(&t, f->dir, f->e))
        return false;
    f->bos = tokenizer_bos(t);
    tokenizer_destroy(&t);
    return true;
}

static bool read_tokenizer(struct tokenizer_files *f, bool *there)
{
    struct strbuf json = {0};
    bool ok = tokenizer_file_read(&json, f->dir, f->path, there, f->e);
    if (ok && *there)
        ok = (f->tokenizer = json_parse(json.data, json.size, f->path, f->e)) != NULL;
    strbuf_free(&json);
    return ok;
}

bool gguf_export_tokenizer(struct key_list *k, const char *dir, uint32_t rows, struct err *e)
{
    struct tokenizer_files f = {.out = k, .dir = dir, .e = e};
    f.v.n = rows;
    bool there;
    if (!read_tokenizer(&f, &there))
        return false;
    if (!there) {
        if (!k->quiet)
            log_warn("%s has no tokenizer.json: the GGUF will have no vocabulary, and take token ids only", dir);
        key_string(k, "tokenizer.ggml.model", "no_vocab");
        return true;
    }
    char path[TOKENIZER_PATH];
    bool ok = find_bos(&f) && tokenizer_side_json(&f.tokenizer_config, dir, "tokenizer_config.json", path, e) &&
              tokenizer_side_json(&f.model_config, dir, "config.json", path, e) && put_tokens(&f);
    if (ok) {
        put_special(&f);
        ok = put_chat_templates(&f);
    }
    strmap_free(&f.v.ids);
    free(f.v.tokens);
    free(f.v.types);
    free(f.v.scores);
    free(f.v.pads);
    cJSON_Delete(f.tokenizer);
    cJSON_Delete(f.tokenizer_config);
    cJSON_Delete(f.model_config);
    return ok;
}
