/* A tokenizer whose tokens are bytes, for tests of models that read texts. */
#ifndef TESTS_BYTE_TOKENIZER_H
#define TESTS_BYTE_TOKENIZER_H

#include "tests/tiny_model.h"

enum { BYTE_BOS = 256 };

/* Byte-level BPE without a merge: the id of a byte is the byte; 256 is the BOS. */
static inline void byte_tokenizer_write(const char *dir)
{
    struct strbuf b = {0};
    strbuf_puts(&b, "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 256, \"content\": \"<s>\", \"single_word\": "
                    "false, "
                    "\"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}], \"normalizer\": "
                    "null, "
                    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
                    "\"use_regex\": true}, ");
    strbuf_puts(&b, "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
                    "{\"id\": \"<s>\", "
                    "\"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [], "
                    "\"special_tokens\": "
                    "{\"<s>\": {\"id\": \"<s>\", \"ids\": [256], \"tokens\": [\"<s>\"]}}}, ");
    strbuf_puts(&b, "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"merges\": [], "
                    "\"vocab\": {");
    uint32_t next = 256;
    for (uint32_t i = 0; i < 256; i++) {
        bool plain = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        char name[8] = {0};
        utf8_encode(plain ? i : next++, name);
        strbuf_puts(&b, i ? ", " : "");
        strbuf_json(&b, name);
        strbuf_printf(&b, ": %u", i);
    }
    strbuf_puts(&b, ", \"<s>\": 256}}}");
    assert_false(b.failed);
    write_text_file(dir, "tokenizer.json", b.data);
    strbuf_free(&b);
}

/* DIR/text.txt: n bytes of letters, spaces and two-byte characters. Its n + 1 ids. */
static inline void byte_text_write(const char *dir, uint32_t n, uint32_t *ids)
{
    char *text = calloc(1, n + 1);
    assert_non_null(text);
    uint32_t seed = 3;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t r = tiny_random(&seed) % 30;
        if (r >= 28 && i + 1 < n) {
            text[i++] = (char)0xc3;
            text[i] = (char)0xa4;
        } else {
            text[i] = (char)(r < 26 ? 'a' + r : ' ');
        }
    }
    ids[0] = BYTE_BOS;
    for (uint32_t i = 0; i < n; i++)
        ids[i + 1] = (uint8_t)text[i];
    write_text_file(dir, "text.txt", text);
    free(text);
}

#endif
