/* formats/write/gguf_export_tokenizer: tokenizer.json as keys of a GGUF; what GGUF has no words for is refused. */
#include "formats/gguf/gguf.h"
#include "tests/family_model.h"

#include "host/base/log.h"

#define DIR_ "tmp_write_gguf_tokenizer"
#define BASE DIR_ "/base"
#define OUT  DIR_ "/out.gguf"
#include "tests/written_gguf.h"

/* A pre_tokenizer. */
#define BYTES(regex) "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": " regex "}"

static struct gguf_string token(const struct gguf *g, const char *key, uint64_t i)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    assert_non_null(kv);
    assert_true(i < kv->n);
    const uint8_t *at = kv->data;
    struct gguf_string s = {0};
    for (uint64_t k = 0; k <= i; k++)
        s = gguf_next_string(&at);
    return s;
}

#define TOKENS "tokenizer.ggml.tokens"
static void assert_token(const struct gguf *g, const char *key, uint64_t i, const char *want)
{
    struct gguf_string s = token(g, key, i);
    assert_int_equal(s.size, strlen(want));
    assert_memory_equal(s.text, want, s.size);
}

static void sentencepiece(void **state)
{
    (void)state;
    struct strbuf b = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .tied = TIED_EMBED});
    /* Merges make 9, 8 and 7. 10 could be put together, 11 not. */
    strbuf_puts(&b, "{\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true}, "
                    "{\"id\": 12, \"content\": \"<mine>\", \"special\": false}], "
                    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", "
                    "\"prepend\": \"\\u2581\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
                    "\"content\": \"\\u2581\"}]}, \"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", "
                    "\"byte_fallback\": true, \"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"<0x0A>\": 2, ");
    strbuf_puts(&b, "\"a\": 3, \"b\": 4, \"c\": 5, \"d\": 6, \"cd\": 7, \"abc\": 8, \"ab\": 9, \"ba\": 10, "
                    "\"xyz\": 11}, \"merges\": [\"a b\", [\"ab\", \"c\"], \"c d\"]}}");
    write_text_file(BASE, "tokenizer.json", b.data);
    strbuf_free(&b);
    write_text_file(BASE, "tokenizer_config.json",
                    "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"<mine>\", \"pad_token\": null, "
                    "\"chat_template\": [{\"name\": \"tool\", \"template\": \"no\"}, {\"name\": \"default\", "
                    "\"template\": \"{{ yes }}\"}]}");
    struct gguf *g = written(GGML_F16);
    static const int types[] = {2, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 5};
    /* "ba" is made of tokens, but by no merge: after those that are, before the others. */
    static const int scores[] = {0, 0, 0, -4, -5, -6, -7, -2, -1, 0, -3, -8, 0, -VOCAB};
    const struct gguf_kv *type = gguf_find(g, "tokenizer.ggml.token_type");
    const struct gguf_kv *score = gguf_find(g, "tokenizer.ggml.scores");
    assert_text(g, "tokenizer.ggml.model", "llama");
    assert_non_null(type);
    assert_non_null(score);
    assert_int_equal(type->n, VOCAB);
    assert_int_equal(score->n, VOCAB);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        assert_int_equal(gguf_integer(type, i), types[i]);
        assert_int_equal(gguf_integer(score, i), scores[i]);
    }
    assert_token(g, TOKENS, 12, "<mine>");
    assert_token(g, TOKENS, 13, "[PAD13]");
    assert_token(g, TOKENS, VOCAB - 1, "[PAD95]");
    assert_int_equal(number(g, "tokenizer.ggml.bos_token_id"), 1);
    assert_int_equal(number(g, "tokenizer.ggml.eos_token_id"), 12);
    assert_int_equal(number(g, "tokenizer.ggml.unknown_token_id"), 0);
    assert_null(gguf_find(g, "tokenizer.ggml.padding_token_id"));
    struct err e = {0};
    bool flag = false;
    assert_int_equal(gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &flag, &e), GGUF_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &flag, &e), GGUF_OK);
    assert_true(flag);
    assert_text(g, "tokenizer.chat_template", "{{ yes }}");
    gguf_close(&g);
}

/* llama.cpp loads no vocabulary that holds a text twice. What the model itself calls so is never read. */
static void equal_tokens(void **state)
{
    (void)state;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .tied = TIED_EMBED});
    write_text_file(BASE, "tokenizer.json",
                    "{\"added_tokens\": [{\"id\": 5, \"content\": \"ab\", \"special\": false}], "
                    "\"pre_tokenizer\": " BYTES("true") ", \"model\": {\"type\": \"BPE\", \"vocab\": "
                                                        "{\"a\": 0, \"b\": 1, \"ab\": 3}, \"merges\": [\"a b\"]}}");
    log_set_level(LOG_ERROR);
    struct gguf *g = written(GGML_F16);
    log_set_level(LOG_INFO);
    const struct gguf_kv *type = gguf_find(g, "tokenizer.ggml.token_type");
    assert_non_null(type);
    assert_token(g, TOKENS, 5, "ab");
    assert_int_equal(gguf_integer(type, 5), 4);
    assert_token(g, TOKENS, 3, "[PAD3]");
    assert_int_equal(gguf_integer(type, 3), 5);
    gguf_close(&g);
}

/* A token of megabytes that no merge makes: looking for its pieces must not take hours. */
static void endless_token(void **state)
{
    (void)state;
    enum { LONG = 4 << 20 };
    char *text = malloc(LONG + 1);
    struct strbuf b = {0};
    assert_non_null(text);
    memset(text, 'a', LONG);
    text[LONG] = 0;
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .tied = TIED_EMBED});
    strbuf_puts(&b, "{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"b\": 0, \"");
    strbuf_puts(&b, text);
    strbuf_puts(&b, "\": 1}, \"merges\": []}}");
    assert_false(b.failed);
    write_text_file(BASE, "tokenizer.json", b.data);
    strbuf_free(&b);
    log_set_level(LOG_ERROR);
    uint64_t began = os_now_ns();
    struct gguf *g = written(GGML_F16);
    if (os_now_ns() - began > 60 * 1000000000ull)
        fail_msg("it took %.0f s", (double)(os_now_ns() - began) * 1e-9);
    log_set_level(LOG_INFO);
    assert_token(g, TOKENS, 1, text);
    free(text);
    gguf_close(&g);
}

/* Byte-level tokenizers with this pre_tokenizer. */
static void byte_level(const char *pre, bool nfc, bool ignore_merges, const char *last_token_id)
{
    struct strbuf b = {0};
    strbuf_printf(
        &b, "{\"added_tokens\": [], \"normalizer\": %s, \"pre_tokenizer\": ", nfc ? "{\"type\": \"NFC\"}" : "null");
    strbuf_puts(&b, pre);
    strbuf_printf(&b, ", \"model\": {\"ignore_merges\": %s, ", ignore_merges ? "true" : "false");
    strbuf_puts(&b, "\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"\\u0120\": 2, \"ab\": ");
    strbuf_puts(&b, last_token_id);
    strbuf_puts(&b, "}, \"merges\": [[\"a\", \"b\"]]}}");
    assert_false(b.failed);
    write_text_file(BASE, "tokenizer.json", b.data);
    strbuf_free(&b);
}

#define SPLIT(numbers)                                                                                                 \
    "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Isolated\", "                  \
    "\"invert\": false, \"pattern\": {\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}"                  \
    "\\\\p{N}]?\\\\p{L}+|" numbers "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"                    \
    "\\\\s+(?!\\\\S)|\\\\s+\"}}, " BYTES("false") "]}"

#define ONE(regex, how) "{\"type\": \"Split\", " how ", \"pattern\": {\"Regex\": \"" regex "\"}}, "
#define CUT             "\"behavior\": \"Isolated\", \"invert\": false"
#define KEEP            "\"behavior\": \"Removed\", \"invert\": true"
#define SEQUENCE(s)     "{\"type\": \"Sequence\", \"pretokenizers\": [" s "]}"
#define EACH_DIGIT      "{\"type\": \"Digits\", \"individual_digits\": true}, "
#define END(more)       "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n" more "]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define CASED(end)                                                                                                     \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{"           \
    "Lo}\\\\p{M}]+" end "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+["              \
    "\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*" end
#define SHORT "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

static void byte_level_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *pre, *name;
        bool nfc, ignore_merges;
    } kinds[] = {
        {BYTES("true"), "gpt-2", false, false},
        {BYTES("true"), "olmo", true, false},
        {SEQUENCE(EACH_DIGIT BYTES("true")), "smollm", false, false},
        {SEQUENCE(EACH_DIGIT BYTES("true")), "command-r", true, false},
        {SPLIT("\\\\p{N}{1,3}"), "llama-bpe", false, true},
        {SPLIT("\\\\p{N}{1,3}"), "dbrx", false, false},
        {SPLIT("\\\\p{N}"), "qwen2", true, false},
        {SPLIT("\\\\p{N}"), "deepseek-r1-qwen", false, false},
        {SPLIT("\\\\p{N}{1,2}"), "default", false, false},
        /* All of the text matches: to keep matches alone is to cut at them. */
        {SEQUENCE(ONE(CASED(SHORT) "|\\\\p{N}{1,3}" END("/"), KEEP) BYTES("false")), "gpt-4o", false, false},
        {SEQUENCE(ONE(CASED(SHORT) "|\\\\p{N}{1,3}" END("/"), CUT) BYTES("false")), "gpt-4o", false, true},
        {SEQUENCE(ONE(CASED("") "|\\\\p{N}" END("/"), CUT) BYTES("false")), "tekken", false, true},
        /* Not all of the text does. */
        {SEQUENCE(ONE("\\\\s?\\\\p{L}+", KEEP) BYTES("false")), "default", false, false},
        /* Line breaks as themselves or as escapes of the expression. */
        {SEQUENCE(ONE("[\\r\\n]", CUT) ONE("\\\\s?\\\\p{L}+", CUT) ONE("\\\\s?\\\\p{P}+", CUT)
                      ONE("[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+", CUT)
                          EACH_DIGIT BYTES("false")),
         "deepseek-coder", false, false},
        {SEQUENCE(ONE("[\\\\r\\\\n]", CUT) ONE("\\\\s?\\\\p{L}+", CUT) ONE("\\\\s?\\\\p{P}+", CUT)
                      ONE("[\\u4e00-\\u9fa5\\u0800-\\u4e00\\uac00-\\ud7ff]+", CUT) EACH_DIGIT BYTES("false")),
         "deepseek-coder", false, false},
        {SEQUENCE("{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}, " BYTES(
             "true") ", {\"type\": \"Digits\", \"individual_digits\": false}, "
                     "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[0-9][0-9][0-9]\"}, " CUT "}"),
         "falcon", false, false},
    };
    struct err e = {0};
    tiny_write(BASE, &(struct tiny_options){.dtype = DTYPE_F16, .tied = TIED_EMBED});
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        byte_level(kinds[i].pre, kinds[i].nfc, kinds[i].ignore_merges, "3");
        struct gguf *g = written(GGML_F16);
        assert_text(g, "tokenizer.ggml.model", "gpt2");
        assert_text(g, "tokenizer.ggml.pre", kinds[i].name);
        assert_token(g, TOKENS, 3, "ab");
        assert_token(g, "tokenizer.ggml.merges", 0, "a b");
        assert_null(gguf_find(g, "tokenizer.ggml.scores"));
        assert_null(gguf_find(g, "tokenizer.ggml.add_space_prefix"));
        gguf_close(&g);
    }
    log_set_level(LOG_INFO);
    byte_level(BYTES("true"), false, false, "96");
    FAILS(write_all(GGML_F16, &e), e, ERR_USER, "has the id 96, but the embedding has only 96 rows");
    /* Merges that "left right" cannot say. */
    static const char *const merges[] = {"[\"a b\", \"c\"]", "[\"c\", \"a b\"]", "[\"\", \"a b\"]", "[\"a b\", \"\"]"};
    for (int i = 0; i < 4; i++) {
        struct strbuf b = {0};
        strbuf_printf(&b, "{\"pre_tokenizer\": %s, \"model\": {\"type\": \"BPE\", \"vocab\": {", BYTES("true"));
        strbuf_printf(&b, "\"a b\": 0, \"c\": 1, \"a bc\": 2, \"ca b\": 3, \"\": 4}, \"merges\": [%s]}}", merges[i]);
        assert_false(b.failed);
        write_text_file(BASE, "tokenizer.json", b.data);
        strbuf_free(&b);
        FAILS(write_all(GGML_F16, &e), e, ERR_USER, "which GGUF cannot express");
    }
    byte_level("{\"type\": \"Metaspace\", \"replacement\": \"\\u2581\"}", false, false, "3");
    FAILS(write_all(GGML_F16, &e), e, ERR_USER, "GGUF has no counterpart");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sentencepiece),
        cmocka_unit_test(byte_level_kinds),
        cmocka_unit_test(equal_tokens),
        cmocka_unit_test(endless_token),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    os_remove_tree(DIR_);
    return rc;
}
