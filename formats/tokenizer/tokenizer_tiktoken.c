/* Kimi's tokenizer as the text of a tokenizer.json: tiktoken.model has "base64 rank" for every token, tokenizer_config.json
 * names the special ones, which follow. */
#include "formats/tokenizer/tokenizer_file.h"

#include <stdlib.h>
#include <string.h>

#include "formats/side_file.h"
#include "formats/tokenizer/tokenizer_parts.h"
#include "formats/tokenizer/tokenizer_pre.h"

/* Largest files that are read, in bytes. */
#define FILE_MAX   (256u << 20)
#define CONFIG_MAX (64u << 20)
enum { SPECIAL = 256, TOKENS_MAX = 1 << 22 }; /* ids behind the ranks that are special, named or not */

struct ranks {
    const char *path;
    struct strbuf bytes; /* of all tokens, one behind the other */
    size_t *begin;       /* [n + 1] into it */
    size_t n;
    struct strmap of; /* token -> rank */
    struct err *e;
};

static bool bad(const struct ranks *r, size_t line, const char *what)
{
    err_set(r->e, ERR_USER, "%s: line %zu %s", r->path, line, what);
    return err_hint(r->e, "download it again");
}

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Appends the bytes of n characters of base64 (RFC 4648, padded). */
static bool add_base64(struct strbuf *out, const char *s, size_t n)
{
    if (n == 0 || n % 4 != 0)
        return false;
    size_t pad = s[n - 1] != '=' ? 0 : s[n - 2] != '=' ? 1 : 2;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t bits = 0;
        size_t keep = i + 4 == n ? 3 - pad : 3;
        for (size_t k = 0; k < 4; k++) {
            int v = k > keep ? 0 : base64_value(s[i + k]);
            if (v < 0)
                return false;
            bits = bits << 6 | (uint32_t)v;
        }
        char bytes[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        strbuf_add(out, bytes, keep);
    }
    return true;
}

static struct gguf_string token(const struct ranks *r, size_t i)
{
    return (struct gguf_string){r->bytes.data + r->begin[i], r->begin[i + 1] - r->begin[i]};
}

/* Lines stand in the order of their ranks: what is in the files, and what makes a rank an id. */
static bool read_line(struct ranks *r, const char *line, size_t n)
{
    size_t at = 0, begin = r->bytes.size;
    uint64_t rank = 0;
    while (at < n && line[at] != ' ')
        at++;
    size_t digits = at + 1;
    for (size_t i = digits; i < n && rank < TOKENS_MAX && line[i] >= '0' && line[i] <= '9'; i++, digits++)
        rank = rank * 10 + (uint64_t)(line[i] - '0');
    if (digits != n || at + 1 >= n)
        return bad(r, r->n + 1, "is not a token in base64, a space and its rank");
    if (rank != r->n)
        return bad(r, r->n + 1, "has another rank than its place");
    if (!add_base64(&r->bytes, line, at))
        return bad(r, r->n + 1, "holds a token that is not base64");
    if (r->bytes.size - begin > TOKEN_BYTES_MAX)
        return bad(r, r->n + 1, "holds a token that is too long");
    r->begin[++r->n] = r->bytes.size;
    return true;
}

static bool read_ranks(struct ranks *r, const char *text, size_t size)
{
    size_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    if (lines > TOKENS_MAX)
        return bad(r, TOKENS_MAX, "is one too many");
    r->begin = calloc(lines + 1, sizeof *r->begin);
    if (!r->begin || !strmap_reserve(&r->of, lines))
        return err_nomem(r->e, "the tokenizer", lines * sizeof *r->begin);
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at, whole = n;
        n -= n && text[at + n - 1] == '\r';
        if (!n && at + whole + 1 < size)
            return bad(r, r->n + 1, "is empty");
        if (n && !read_line(r, text + at, n))
            return false;
        at += whole + 1;
    }
    if (r->bytes.failed)
        return err_nomem(r->e, "the tokenizer", r->bytes.size);
    for (size_t i = 0; i < r->n; i++) {
        bool added;
        struct gguf_string t = token(r, i);
        if (!strmap_add(&r->of, t.text, t.size, (uint32_t)i, &added))
            return err_nomem(r->e, "the tokenizer", r->n);
        if (!added)
            return bad(r, i + 1, "holds a token that another line has");
    }
    return r->n > 0 || bad(r, 1, "is empty");
}

/* The two tokens that make token i: its bytes merged by lower ranks alone, the lowest first. Size 0: they do not become
 * two, so that no word becomes this token but one that is all of it. */
static size_t left_part(const struct ranks *r, size_t i, size_t *cuts)
{
    struct gguf_string t = token(r, i);
    size_t n = t.size; /* parts; part k is [cuts[k], cuts[k + 1]) */
    for (size_t k = 0; k <= n; k++)
        cuts[k] = k;
    while (n > 2) {
        uint32_t best = (uint32_t)i, rank;
        size_t at = n;
        for (size_t k = 0; k + 1 < n; k++)
            if (strmap_find(&r->of, t.text + cuts[k], cuts[k + 2] - cuts[k], &rank) && rank < best) {
                best = rank;
                at = k;
            }
        if (at == n)
            return 0;
        memmove(cuts + at + 1, cuts + at + 2, (n - at - 1) * sizeof *cuts);
        n--;
    }
    return n == 2 ? cuts[1] : 0;
}

static void put_bytes(struct strbuf *out, struct strbuf *text, const char *s, size_t n)
{
    text->size = 0;
    byte_level_add(text, s, n);
    if (!text->failed)
        strbuf_json(out, text->data);
}

static bool put_model(struct strbuf *out, const struct ranks *r)
{
    struct strbuf text = {0};
    size_t *cuts = malloc((TOKEN_BYTES_MAX + 1) * sizeof *cuts);
    if (!cuts)
        return err_nomem(r->e, "the tokenizer", TOKEN_BYTES_MAX * sizeof *cuts);
    strbuf_puts(out, "{\"type\": \"BPE\", \"ignore_merges\": true, \"vocab\": {");
    for (size_t i = 0; i < r->n; i++) {
        struct gguf_string t = token(r, i);
        strbuf_puts(out, i ? ",\n" : "\n");
        put_bytes(out, &text, t.text, t.size);
        strbuf_printf(out, ": %zu", i);
    }
    strbuf_puts(out, "}, \"merges\": [");
    const char *comma = "\n[";
    for (size_t i = 0; i < r->n; i++) {
        struct gguf_string t = token(r, i);
        size_t left = left_part(r, i, cuts);
        if (!left)
            continue;
        strbuf_puts(out, comma);
        put_bytes(out, &text, t.text, left);
        strbuf_puts(out, ", ");
        put_bytes(out, &text, t.text + left, t.size - left);
        strbuf_puts(out, "]");
        comma = ",\n[";
    }
    strbuf_puts(out, "]}");
    bool ok = !text.failed || err_nomem(r->e, "the tokenizer", text.size);
    strbuf_free(&text);
    free(cuts);
    return ok;
}

/* The SPECIAL ids behind the ranks: those that added_tokens_decoder does not name are <|reserved_token_ID|>. */
static bool put_added(struct strbuf *out, const struct ranks *r, const cJSON *named)
{
    for (size_t id = r->n; id < r->n + SPECIAL; id++) {
        struct strbuf key = {0}, reserved = {0};
        strbuf_printf(&key, "%zu", id);
        strbuf_printf(&reserved, "<|reserved_token_%zu|>", id);
        bool ok = !key.failed && !reserved.failed;
        const cJSON *content = ok ? json_get(json_get(named, key.data), "content") : NULL;
        if (ok) {
            strbuf_printf(out, "%s{\"id\": %zu, \"content\": ", id > r->n ? ",\n" : "\n", id);
            strbuf_json(out, cJSON_IsString(content) ? content->valuestring : reserved.data);
            strbuf_puts(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                             "\"special\": true}");
        }
        strbuf_free(&key);
        strbuf_free(&reserved);
        if (!ok)
            return err_nomem(r->e, "the special tokens", SPECIAL);
    }
    return true;
}

static bool put_all(struct strbuf *out, const struct ranks *r, const cJSON *config)
{
    const struct tokenizer_pre *pre = tokenizer_pre_named("kimi-k2", 7);
    strbuf_puts(out, "{\"added_tokens\": [");
    if (!put_added(out, r, json_get(config, "added_tokens_decoder")))
        return false;
    strbuf_puts(out, "],\n\"normalizer\": null, \"pre_tokenizer\": ");
    strbuf_puts(out, pre->pretokenizer);
    strbuf_puts(out, ",\n\"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\"},\n\"model\": ");
    if (!put_model(out, r))
        return false;
    strbuf_puts(out, "}\n");
    return !out->failed || err_nomem(r->e, "the tokenizer", out->size);
}

static bool from_tiktoken(struct strbuf *out, const char *path, const cJSON *config, struct err *e)
{
    struct ranks r = {.path = path, .e = e};
    const cJSON *name = json_get(config, "tokenizer_class");
    char *text = NULL;
    size_t size;
    if (!cJSON_IsString(name) || strcmp(name->valuestring, "TikTokenTokenizer") != 0) {
        err_set(e, ERR_USER,
                "%s does not say how a text is cut into words; of such files without a tokenizer.json gsq knows "
                "Kimi's (tokenizer_class TikTokenTokenizer)",
                path);
        return err_hint(e, "save the tokenizer as tokenizer.json, as `transformers` does");
    }
    bool ok = os_read_file(path, FILE_MAX, &text, &size, e) && read_ranks(&r, text, size) && put_all(out, &r, config);
    free(text);
    free(r.begin);
    strbuf_free(&r.bytes);
    strmap_free(&r.of);
    return ok;
}

/* ---- files of a folder ---- */

static bool find(const char *dir, const char *name, char *path, bool *there, struct err *e)
{
    return os_path_join(path, TOKENIZER_PATH, dir, name, e) && side_file_there(path, there, e);
}

bool tokenizer_side_json(cJSON **root, const char *dir, const char *name, char *path, struct err *e)
{
    char *text;
    size_t size;
    bool there;
    *root = NULL;
    if (!find(dir, name, path, &there, e))
        return false;
    if (!there)
        return true;
    if (!os_read_file(path, CONFIG_MAX, &text, &size, e))
        return false;
    *root = json_parse(text, size, path, e);
    free(text);
    return *root != NULL;
}

static bool read_tiktoken(struct strbuf *json, const char *dir, const char *path, struct err *e)
{
    char config_path[TOKENIZER_PATH];
    cJSON *config;
    bool ok = tokenizer_side_json(&config, dir, "tokenizer_config.json", config_path, e) &&
              from_tiktoken(json, path, config, e);
    cJSON_Delete(config);
    return ok;
}

bool tokenizer_file_read(struct strbuf *json, const char *dir, char *path, bool *there, struct err *e)
{
    char *text, tiktoken[TOKENIZER_PATH];
    size_t size;
    if (!find(dir, "tokenizer.json", path, there, e))
        return false;
    if (*there) {
        if (!os_read_file(path, FILE_MAX, &text, &size, e))
            return false;
        *json = (struct strbuf){.data = text, .size = size, .cap = size + 1};
        return true;
    }
    if (!find(dir, "tiktoken.model", tiktoken, there, e))
        return false;
    return !*there ||
           (os_path_join(path, TOKENIZER_PATH, dir, "tiktoken.model", e) && read_tiktoken(json, dir, path, e));
}
