/* Texts that are tokenized bit by bit, cut wherever that is allowed: the ids of the whole, for tokenizers of
 * every kind, with small chunks, on any number of threads; and no more read than is wanted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/tokenizer/tokenizer.h"
#include "host/base/num.h"
#include "host/base/os.h"
#include "host/base/pool.h"
#include "host/base/str.h"

/* ---- a made-up vocabulary ---- */

static uint32_t seed;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(seed >> 8) * n >> 24);
}

enum { TOKENS = 900, TOKEN_CAP = 32 };
struct words {
    char text[TOKENS][TOKEN_CAP];
    size_t n;
    struct strbuf merges;
};

static size_t find_word(const struct words *w, const char *text)
{
    size_t i = 0;
    while (i < w->n && strcmp(w->text[i], text) != 0)
        i++;
    return i;
}

static void add_word(struct words *w, const char *text)
{
    if (find_word(w, text) < w->n)
        return;
    assert_true(w->n < TOKENS);
    snprintf(w->text[w->n++], TOKEN_CAP, "%s", text);
}

/* A character of the texts below, or a word put together before. */
static const char *any_word(const struct words *w, size_t first)
{
    static const char *const letters[] = {
        "a",        "b",           "c", "d", "e", "A",        "B",        "0",        "1",        "2",
        ".",        ",",           "-", "'", "(", "\xC4\xA0", "\xC4\x8A", "\xC3\x83", "\xC2\xA9", "\xE2\x96\x81",
        "\xC3\xA9", "\xE4\xB8\xAD"};
    size_t n = sizeof letters / sizeof *letters, i = random_below((uint32_t)(2 * n));
    if (i >= n)
        return w->n > first ? w->text[first + random_below((uint32_t)(w->n - first))] : "";
    return find_word(w, letters[i]) < w->n ? letters[i] : "";
}

static void add_merges(struct words *w, size_t n)
{
    size_t first = w->n;
    for (size_t i = 0; i < 100 * n && w->n < first + n; i++) {
        const char *a = any_word(w, first), *b = any_word(w, first);
        char joined[2 * TOKEN_CAP];
        size_t before = w->n;
        snprintf(joined, sizeof joined, "%s%s", a, b);
        if (!a[0] || !b[0] || strlen(joined) > 12)
            continue;
        add_word(w, joined);
        if (w->n == before)
            continue;
        strbuf_puts(&w->merges, w->merges.size ? ",[" : "[");
        strbuf_json(&w->merges, a);
        strbuf_puts(&w->merges, ",");
        strbuf_json(&w->merges, b);
        strbuf_puts(&w->merges, "]");
    }
}

/* flags: more of "model", such as "\"ignore_merges\":true,". */
static void put_model(struct strbuf *out, struct words *w, const char *flags)
{
    strbuf_printf(out, "{\"type\":\"BPE\",%s\"vocab\":{", flags);
    for (size_t i = 0; i < w->n; i++) {
        if (i)
            strbuf_puts(out, ",");
        strbuf_json(out, w->text[i]);
        strbuf_printf(out, ":%zu", i);
    }
    strbuf_puts(out, "},\"merges\":[");
    strbuf_add(out, w->merges.data ? w->merges.data : "", w->merges.size);
    strbuf_puts(out, "]}");
    strbuf_free(&w->merges);
}

/* Byte-level: every byte as its printable character. */
static void byte_words(struct words *w)
{
    for (uint32_t b = 0, next = 256; b < 256; b++) {
        bool shown = (b >= 33 && b < 127) || (b > 160 && b != 173);
        char text[8] = {0};
        utf8_encode(shown ? b : next++, text);
        add_word(w, text);
    }
}

/* SentencePiece: characters, and bytes for the others if `bytes`. */
static void letter_words(struct words *w, bool bytes)
{
    static const char *const letters[] = {
        "\xE2\x96\x81", "a", "b", "c", "d", "e", "A", "B", "0", "1", "2", ".", ",", "-", "'", "\xC3\xA9",
        "\xE4\xB8\xAD", "(", ")"};
    add_word(w, "<unk>");
    for (unsigned b = 0; bytes && b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        add_word(w, name);
    }
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        add_word(w, letters[i]);
}

/* ---- made-up texts ---- */

static const char *const bits[] = {"a",
                                   "b",
                                   "c",
                                   "ab",
                                   "e",
                                   "abc",
                                   "dead",
                                   "A",
                                   "Bad",
                                   "don't",
                                   "I'll",
                                   "0",
                                   "12",
                                   "2024",
                                   ".",
                                   ", ",
                                   "-",
                                   "\n",
                                   "\n\n",
                                   " \n",
                                   "\r\n",
                                   "  ",
                                   "    ",
                                   "\t",
                                   " ",
                                   " ",
                                   " ",
                                   " ",
                                   "(",
                                   ")",
                                   "\xC3\xA9",
                                   "e\xCC\x81",
                                   "\xE4\xB8\xAD\xE6\x96\x87",
                                   "\xE3\x80\x82",
                                   "<s>",
                                   "<x>",
                                   "[TOK]",
                                   "\xF0\x9F\x98\x80",
                                   "\xE1\x84\x80\xE1\x85\xA1",
                                   "\xE2\x96\x81",
                                   "\xC2\xA0",
                                   "!!",
                                   "...",
                                   "=",
                                   "#",
                                   "\xCC\x81"};

static void make_text(struct strbuf *out, size_t size, uint32_t kinds)
{
    while (out->size < size)
        strbuf_puts(out, bits[random_below(kinds)]);
}

/* ---- a text as a source ---- */

struct from_memory {
    const char *text;
    size_t size, at, step; /* step: bytes at once, at most */
    uint64_t bytes, ids, stop_at;
};

static bool read_some(void *ctx, char *buf, size_t cap, size_t *got, struct err *e)
{
    struct from_memory *f = ctx;
    (void)e;
    *got = (size_t)min_u64(min_u64(cap, f->step), f->size - f->at);
    memcpy(buf, f->text + f->at, *got);
    f->at += *got;
    return true;
}

static bool see(void *ctx, uint64_t bytes, uint64_t ids)
{
    struct from_memory *f = ctx;
    assert_true(bytes >= f->bytes && bytes <= f->at && ids >= f->ids);
    f->bytes = bytes;
    f->ids = ids;
    return ids < f->stop_at;
}

static bool encode(const struct tokenizer *t, struct from_memory *f, size_t chunk, uint64_t at_most, uint32_t **ids,
                   size_t *n, struct err *e)
{
    *f = (struct from_memory){.text = f->text, .size = f->size, .step = f->step, .stop_at = f->stop_at};
    return tokenizer_encode_text(
        t, &(struct text_source){.read = read_some, .progress = see, .ctx = f, .chunk = chunk, .at_most = at_most}, ids,
        n, e);
}

static void compare(const struct tokenizer *t, const char *what, const char *text, size_t size, size_t chunk,
                    size_t step)
{
    struct from_memory f = {.text = text, .size = size, .step = step, .stop_at = UINT64_MAX};
    uint32_t *whole, *parts;
    size_t n, m;
    struct err e = {0};
    if (!tokenizer_encode(t, text, size, &whole, &n, &e) || !encode(t, &f, chunk, 0, &parts, &m, &e))
        fail_msg("%s: %s", what, e.msg);
    size_t i = 0;
    while (i < n && i < m && whole[i] == parts[i])
        i++;
    if (i < n || i < m)
        fail_msg("%s, chunks of %zu: %zu ids, not %zu; they part at %zu of\n%.*s", what, chunk, m, n, i,
                 (int)(size < 4000 ? size : 4000), text);
    assert_int_equal(f.bytes, size);
    free(parts);
    size_t some = n / 2;
    if (some) {
        if (!encode(t, &f, chunk, some, &parts, &m, &e))
            fail_msg("%s: %s", what, e.msg);
        assert_int_equal(m, some);
        assert_memory_equal(parts, whole, some * sizeof *parts);
        free(parts);
    }
    free(whole);
}

/* ---- tokenizers of every kind ---- */

#define NONE "null"
#define GPT2 "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define SPLIT(regex, how)                                                                                              \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"" how "\",\"invert\":false}"
#define CHAR_SPLIT(text, how)                                                                                          \
    "{\"type\":\"Split\",\"pattern\":{\"String\":\"" text "\"},\"behavior\":\"" how "\",\"invert\":false}"
#define PLAIN_BYTES    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define SEQUENCE(...)  "{\"type\":\"Sequence\",\"pretokenizers\":[" __VA_ARGS__ "]}"
#define NORMALIZE(...) "{\"type\":\"Sequence\",\"normalizers\":[" __VA_ARGS__ "]}"
#define LLAMA3                                                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "                             \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPACES "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}"
#define METASPACE(how, split)                                                                                          \
    "{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"" how "\",\"split\":" split "}"
#define ADDED(id, text, more) "{\"id\":" id ",\"content\":\"" text "\"," more "}"
#define PLAIN_TOKENS          "[" ADDED("1000", "<s>", "\"special\":true") "," ADDED("1001", "[TOK]", "\"special\":false") "]"
#define ODD_TOKENS                                                                                                     \
    "[" ADDED("1000", "<s>", "\"lstrip\":true") "," ADDED("1001", "[TOK]", "\"rstrip\":true") "," ADDED(               \
        "1002", "abc",                                                                                                 \
        "\"single_word\":true") "," ADDED("1003", "<x>",                                                               \
                                          "\"normalized\":true") "," ADDED("1004", "dead",                             \
                                                                           "\"normalized\":true,\"lstrip\":"           \
                                                                           "true,\"rstrip\":true") "]"

static const struct {
    const char *name, *added, *normalizer, *pre, *flags;
    enum { BYTE_WORDS, LETTERS, LETTERS_AND_BYTES } words;
    bool cuts; /* a long text is cut */
} kinds[] = {
    {"gpt-2", PLAIN_TOKENS, NONE, GPT2, "", BYTE_WORDS, true},
    {"gpt-2, odd tokens", ODD_TOKENS, NONE, GPT2, "", BYTE_WORDS, true},
    {"gpt-2, a space in front", "[]", NONE, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "", BYTE_WORDS, true},
    {"llama 3", PLAIN_TOKENS, NONE, SEQUENCE(SPLIT(LLAMA3, "Isolated") "," PLAIN_BYTES), "\"ignore_merges\":true,",
     BYTE_WORDS, true},
    {"qwen", PLAIN_TOKENS, "{\"type\":\"NFC\"}", SEQUENCE(SPLIT(LLAMA3, "Isolated") "," PLAIN_BYTES), "", BYTE_WORDS,
     true},
    {"qwen, odd tokens", ODD_TOKENS, "{\"type\":\"NFC\"}", SEQUENCE(SPLIT(LLAMA3, "Isolated") "," PLAIN_BYTES), "",
     BYTE_WORDS, true},
    {"nfkd, lower case, no accents", ODD_TOKENS,
     NORMALIZE("{\"type\":\"NFKD\"},{\"type\":\"Lowercase\"},{\"type\":\"StripAccents\"}"), GPT2, "", BYTE_WORDS, true},
    {"starcoder", PLAIN_TOKENS, NONE, SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true}," GPT2), "",
     BYTE_WORDS, true},
    {"runs of digits", PLAIN_TOKENS, NONE, SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":false}," GPT2), "",
     BYTE_WORDS, true},
    {"deepseek", PLAIN_TOKENS, NONE,
     SEQUENCE(SPLIT("[\\\\r\\\\n]", "Isolated") "," SPLIT("\\\\s?\\\\p{L}+", "Isolated") "," SPLIT(
         "\\\\s?\\\\p{P}+",
         "Isolated") "," SPLIT("\\\\s+$", "Isolated") ","
                                                      "{\"type\":\"Digits\",\"individual_digits\":true}," PLAIN_BYTES),
     "", BYTE_WORDS, true},
    {"removed", "[]", NONE, SEQUENCE(SPLIT("\\\\s+", "Removed") "," PLAIN_BYTES), "", BYTE_WORDS, true},
    {"with the previous", "[]", NONE, SEQUENCE(SPLIT("\\\\s+", "MergedWithPrevious") "," PLAIN_BYTES), "", BYTE_WORDS,
     true},
    {"with the next", "[]", NONE, SEQUENCE(SPLIT("\\\\s", "MergedWithNext") "," PLAIN_BYTES), "", BYTE_WORDS, true},
    {"contiguous", "[]", NONE, SEQUENCE(SPLIT("[a-c]", "Contiguous") "," PLAIN_BYTES), "", BYTE_WORDS, true},
    {"empty matches", "[]", NONE, SEQUENCE(SPLIT("(?=a)|\\\\s*", "Isolated") "," PLAIN_BYTES), "", BYTE_WORDS, true},
    {"looks behind", "[]", NONE, SEQUENCE(SPLIT("(?<=a)\\\\s|\\\\p{L}+", "Isolated") "," PLAIN_BYTES), "", BYTE_WORDS,
     false},
    {"beginnings of lines", "[]", NONE, SEQUENCE(SPLIT("^a|\\\\p{L}+", "Isolated") "," PLAIN_BYTES), "", BYTE_WORDS,
     false},
    {"far ahead", "[]", NONE, SEQUENCE(SPLIT("a(?=[^.]*\\\\.\\\\.\\\\.)|\\\\p{L}+|\\\\s+", "Isolated") "," PLAIN_BYTES),
     "", BYTE_WORDS, true},
    {"llama 2", PLAIN_TOKENS, NORMALIZE("{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"}," SPACES), NONE,
     "\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"<unk>\",", LETTERS_AND_BYTES, true},
    {"llama 2, odd tokens", ODD_TOKENS, NORMALIZE("{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"}," SPACES), NONE,
     "\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"<unk>\",", LETTERS_AND_BYTES, true},
    {"gemma", PLAIN_TOKENS, SPACES, CHAR_SPLIT(" ", "MergedWithPrevious"),
     "\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"<unk>\",", LETTERS_AND_BYTES, true},
    {"metaspace, first", ODD_TOKENS, NONE, METASPACE("first", "false"), "\"byte_fallback\":true,", LETTERS_AND_BYTES,
     true},
    {"metaspace, always, cut", PLAIN_TOKENS, NONE, METASPACE("always", "true"), "\"byte_fallback\":true,",
     LETTERS_AND_BYTES, true},
    {"unknown, one for a run", "[]", SPACES, NONE, "\"fuse_unk\":true,\"unk_token\":\"<unk>\",", LETTERS, true},
    {"unknown, one each", "[]", SPACES, NONE, "\"fuse_unk\":false,\"unk_token\":\"<unk>\",", LETTERS, true},
    {"unknown, dropped", "[]", SPACES, NONE, "", LETTERS, true},
    {"whole words that are tokens", "[]", SPACES, NONE, "\"ignore_merges\":true,\"unk_token\":\"<unk>\",", LETTERS,
     false},
    {"stripped", "[]", NORMALIZE("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}"), GPT2, "", BYTE_WORDS,
     false},
    {"longer replacements", "[]", NORMALIZE("{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},\"content\":\"x\"}"),
     GPT2, "", BYTE_WORDS, false},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static struct tokenizer *make(size_t k)
{
    static struct words w;
    struct strbuf json = {0};
    struct tokenizer *t;
    struct err e = {0};
    w = (struct words){.n = 0};
    seed = (uint32_t)k + 1;
    if (kinds[k].words == BYTE_WORDS)
        byte_words(&w);
    else
        letter_words(&w, kinds[k].words == LETTERS_AND_BYTES);
    add_merges(&w, 400);
    strbuf_puts(&json, "{\"version\":\"1.0\",\"added_tokens\":");
    strbuf_add(&json, kinds[k].added, strlen(kinds[k].added));
    strbuf_puts(&json, ",\"normalizer\":");
    strbuf_add(&json, kinds[k].normalizer, strlen(kinds[k].normalizer));
    strbuf_puts(&json, ",\"pre_tokenizer\":");
    strbuf_add(&json, kinds[k].pre, strlen(kinds[k].pre));
    strbuf_puts(&json, ",\"post_processor\":null,\"model\":");
    put_model(&json, &w, kinds[k].flags);
    strbuf_puts(&json, "}");
    assert_false(json.failed);
    if (!tokenizer_parse(&t, json.data, json.size, kinds[k].name, &e))
        fail_msg("%s: %s", kinds[k].name, e.msg);
    strbuf_free(&json);
    return t;
}

static void ids_of_the_whole(void **state)
{
    (void)state;
    static const size_t chunks[] = {1, 40, 300};
    for (size_t k = 0; k < KINDS; k++) {
        struct tokenizer *t = make(k);
        for (uint32_t round = 0; round < 12; round++) {
            struct strbuf text = {0};
            seed = round * 977 + 13;
            /* Of plain bits, then of all; short and long. */
            make_text(&text, round % 3 == 2 ? 9000 : 1500, round % 2 ? sizeof bits / sizeof *bits : 30);
            pool_set_threads(1 + round % 3);
            for (int i = 0; i < 3; i++)
                compare(t, kinds[k].name, text.data, text.size, chunks[i], round % 4 ? SIZE_MAX : 1 + round);
            strbuf_free(&text);
        }
        tokenizer_destroy(&t);
    }
    pool_set_threads(0);
}

/* Long plain texts are cut, not kept whole: little of one is read for a few ids. */
static void no_more_than_wanted(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        struct tokenizer *t = make(k);
        struct strbuf text = {0};
        seed = 5;
        make_text(&text, 400000, 30);
        struct from_memory f = {.text = text.data, .size = text.size, .step = 1000, .stop_at = UINT64_MAX};
        uint32_t *ids;
        size_t n;
        struct err e = {0};
        if (!encode(t, &f, 500, 100, &ids, &n, &e))
            fail_msg("%s: %s", kinds[k].name, e.msg);
        assert_int_equal(n, 100);
        if (kinds[k].cuts ? f.at > 100000 : f.at < text.size)
            fail_msg("%s: %zu bytes of %zu were read", kinds[k].name, f.at, text.size);
        free(ids);
        strbuf_free(&text);
        tokenizer_destroy(&t);
    }
}

static void odd_texts(void **state)
{
    (void)state;
    struct tokenizer *t = make(0);
    uint32_t *ids;
    size_t n;
    struct err e = {0};
    compare(t, "empty", "", 0, 1, 1);
    compare(t, "a letter", "a", 1, 1, 1);
    compare(t, "an accent", "\xC3\xA9", 2, 1, 1);
    /* The offset is that in the whole text; a character may come in two parts. */
    struct strbuf text = {0};
    make_text(&text, 50000, 30);
    size_t good = text.size;
    strbuf_puts(&text, "\xC3(");
    struct from_memory f = {.text = text.data, .size = text.size, .step = 7, .stop_at = UINT64_MAX};
    char says[32];
    snprintf(says, sizeof says, "0xC3 at offset %zu", good);
    assert_false(encode(t, &f, 100, 0, &ids, &n, &e));
    assert_int_equal(e.kind, ERR_USER);
    assert_non_null(strstr(e.msg, says));
    f.size = good + 1; /* it ends within one */
    assert_false(encode(t, &f, 100, 0, &ids, &n, &e));
    assert_non_null(strstr(e.msg, says));
    /* A stop. */
    f.size = good;
    f.stop_at = 500;
    assert_false(encode(t, &f, 100, 0, &ids, &n, &e));
    assert_int_equal(e.kind, ERR_STOPPED);
    assert_true(f.ids >= 500 && f.ids < 10000);
    strbuf_free(&text);
    tokenizer_destroy(&t);
}

/* ---- real ones ---- */

struct texts {
    char path[4096];
    struct strbuf all;
};

static bool add_file(void *ctx, const char *name, struct err *e)
{
    struct texts *x = ctx;
    char path[4096], *text;
    size_t size, bad;
    if (!os_path_join(path, sizeof path, x->path, name, e) || !os_read_file(path, 1u << 20, &text, &size, e))
        return false;
    if (utf8_valid(text, size, &bad))
        strbuf_add(&x->all, text, size);
    free(text);
    return true;
}

static void real_tokenizers(void **state)
{
    (void)state;
    static const char *const models[] = {"models/stories260K", "models/TinyStories-656K", "models/oak-2.9M"};
    const char *source = os_getenv("GSQ_SOURCE");
    struct texts x = {0};
    struct err e = {0};
    snprintf(x.path, sizeof x.path, "%s/../shared/text/nasty", source ? source : ".");
    if (os_stat(x.path, NULL) != OS_DIR) {
        print_message("skipped: ../shared is absent\n");
        skip();
    }
    assert_true(os_list(x.path, add_file, &x, &e));
    for (int i = 0; i < 3; i++) {
        char path[4096];
        struct tokenizer *t;
        snprintf(path, sizeof path, "%s/../shared/%s", source ? source : ".", models[i]);
        if (!tokenizer_load(&t, path, &e))
            fail_msg("%s", e.msg);
        for (unsigned threads = 1; threads <= 5; threads += 2) {
            pool_set_threads(threads);
            compare(t, models[i], x.all.data, x.all.size, 50 * threads, SIZE_MAX);
        }
        tokenizer_destroy(&t);
    }
    pool_set_threads(0);
    strbuf_free(&x.all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_the_whole),
        cmocka_unit_test(no_more_than_wanted),
        cmocka_unit_test(odd_texts),
        cmocka_unit_test(real_tokenizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
