/* formats/text_file.h: plain, packed and JSON-lines texts; what is refused, and what is said then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "formats/chat.h"
#include "formats/text_file.h"
#include "host/base/os.h"
#include "host/base/str.h"
#include "tests/export_checks.h"

#define DIR_ "tmp_text_file"

/* ---- files ---- */

static void put(const char *name, const void *data, size_t size)
{
    struct err e = {0};
    char path[256];
    snprintf(path, sizeof path, DIR_ "/%s", name);
    OK(os_mkdirs(DIR_, &e), e);
    OK(os_write_file(path, data, size, &e), e);
}

/* Appends data packed by gzip. */
static void add_gzip(struct strbuf *out, const char *data, size_t size)
{
    z_stream z = {0};
    char buf[4096];
    int rc;
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)size;
    do {
        z.next_out = (Bytef *)buf;
        z.avail_out = sizeof buf;
        rc = deflate(&z, Z_FINISH);
        strbuf_add(out, buf, sizeof buf - z.avail_out);
    } while (rc == Z_OK);
    assert_int_equal(rc, Z_STREAM_END);
    deflateEnd(&z);
}

static void add_zstd(struct strbuf *out, const char *data, size_t size)
{
    size_t cap = ZSTD_compressBound(size);
    char *buf = malloc(cap);
    assert_non_null(buf);
    size_t n = ZSTD_compress(buf, cap, data, size, 3);
    assert_false(ZSTD_isError(n));
    strbuf_add(out, buf, n);
    free(buf);
}

/* The whole text, in reads of at most `step`. */
static bool read_all(const char *name, size_t step, struct strbuf *out, struct err *e)
{
    struct text_file *f;
    char path[256], buf[70000];
    size_t got = 1;
    double share = 0;
    snprintf(path, sizeof path, DIR_ "/%s", name);
    *e = (struct err){0};
    out->size = 0;
    strbuf_add(out, "", 0);
    if (!text_file_open(&f, path, e)) {
        assert_null(f);
        return false;
    }
    bool ok = true;
    while (ok && got) {
        ok = text_file_read(f, buf, step, &got, e);
        if (ok) {
            assert_true(got <= step && text_file_share(f) >= share && text_file_share(f) <= 1);
            share = text_file_share(f);
            strbuf_add(out, buf, got);
        }
    }
    assert_true(!ok || share == 1);
    text_file_close(&f);
    return ok;
}

static void expect(const char *name, const char *want, size_t size)
{
    static const size_t steps[] = {1, 777, 70000};
    struct strbuf text = {0};
    struct err e;
    for (int i = size > 100000; i < 3; i++) {
        OK(read_all(name, steps[i], &text, &e), e);
        assert_int_equal(text.size, size);
        assert_memory_equal(text.data, want, size);
    }
    strbuf_free(&text);
}

static void refuse(const char *name, const char *says, const char *hint)
{
    struct strbuf text = {0};
    struct err e;
    if (read_all(name, 1000, &text, &e))
        fail_msg("%s was read: %zu bytes", name, text.size);
    strbuf_free(&text);
    if (e.kind != ERR_USER || !strstr(e.msg, says) || !strstr(e.msg, name) || !strstr(e.hint, hint))
        fail_msg("%s: expected \"%s\" (%s), got \"%s\" (%s)", name, says, hint, e.msg, e.hint);
}

static void long_text(struct strbuf *out)
{
    for (unsigned i = 0; out->size < 300000; i++)
        strbuf_printf(out, "line %u: caf\xC3\xA9 %x\n", i, i * 2654435761u);
}

/* ---- what is read ---- */

static void plain_and_packed(void **state)
{
    (void)state;
    struct strbuf text = {0}, packed = {0};
    long_text(&text);
    put("a.txt", text.data, text.size);
    expect("a.txt", text.data, text.size);
    put("empty.txt", "", 0);
    expect("empty.txt", "", 0);
    put("BZh and PAR1.txt", "PAR1, BZh and GGUF are three words", 34);
    expect("BZh and PAR1.txt", "PAR1, BZh and GGUF are three words", 34);
    /* Whatever they are called; several members and frames are one text. */
    size_t half = text.size / 2;
    add_gzip(&packed, text.data, half);
    add_gzip(&packed, text.data + half, text.size - half);
    put("a.txt.gz", packed.data, packed.size);
    expect("a.txt.gz", text.data, text.size);
    put("gzip", packed.data, packed.size);
    expect("gzip", text.data, text.size);
    packed.size = 0;
    add_zstd(&packed, text.data, half);
    add_zstd(&packed, text.data + half, text.size - half);
    put("a.zst", packed.data, packed.size);
    expect("a.zst", text.data, text.size);
    strbuf_free(&text);
    strbuf_free(&packed);
}

static void json_lines(void **state)
{
    (void)state;
    static const char lines[] = "{\"text\": \"one\\n\\u00e9\"}\r\n\n  \n{\"id\": 7, \"text\": \"two\", \"x\": [1]}\n"
                                "{\"text\": \"\"}\n{\"text\":\"three\"}";
    static const char want[] = "one\n\xC3\xA9\n\ntwo\n\n\n\nthree";
    struct strbuf packed = {0};
    put("a.jsonl", lines, sizeof lines - 1);
    expect("a.jsonl", want, sizeof want - 1);
    put("b.NDJSON", lines, sizeof lines - 1);
    expect("b.NDJSON", want, sizeof want - 1);
    add_gzip(&packed, lines, sizeof lines - 1);
    put("a.jsonl.GZ", packed.data, packed.size);
    expect("a.jsonl.GZ", want, sizeof want - 1);
    packed.size = 0;
    add_zstd(&packed, lines, sizeof lines - 1);
    put("a.jsonl.zst", packed.data, packed.size);
    expect("a.jsonl.zst", want, sizeof want - 1);
    /* Under another name they are a text like any. */
    put("a.txt", lines, sizeof lines - 1);
    expect("a.txt", lines, sizeof lines - 1);
    /* Long lines, many lines. */
    struct strbuf many = {0}, all = {0};
    for (int i = 0; i < 300; i++) {
        size_t n = i % 100 == 0 ? 50000 : 50;
        char *word = malloc(n + 1);
        assert_non_null(word);
        memset(word, 'a' + i % 26, n);
        word[n] = 0;
        strbuf_puts(&many, "{\"text\":");
        strbuf_json(&many, word);
        strbuf_puts(&many, "}\n");
        strbuf_puts(&all, i ? "\n\n" : "");
        strbuf_add(&all, word, n);
        free(word);
    }
    put("many.jsonl", many.data, many.size);
    expect("many.jsonl", all.data, all.size);
    strbuf_free(&many);
    strbuf_free(&all);
    strbuf_free(&packed);
}

/* ---- conversations ---- */

static void expect_chat(const char *template_text, const char *messages, const char *want)
{
    struct strbuf out = {0};
    cJSON *o = cJSON_Parse(messages);
    assert_non_null(o);
    assert_true(chat_render(chat_format_of(template_text), o, &out));
    assert_string_equal(out.data, want);
    strbuf_free(&out);
    cJSON_Delete(o);
}

/* What the templates of these models make of it, without the BOS and what they add of their own. */
static void conversations(void **state)
{
    (void)state;
    static const char four[] = "[{\"role\": \"system\", \"content\": \"Be brief.\"},"
                               "{\"role\": \"user\", \"content\": \" Hi\\n\"},"
                               "{\"role\": \"assistant\", \"content\": \"Hello.\"},"
                               "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Bye\"},"
                               "{\"type\": \"image\"}, {\"type\": \"text\", \"text\": \"!\"}]},"
                               "{\"role\": \"assistant\", \"content\": null}]";
    assert_null(chat_format_of(NULL));
    assert_null(chat_format_of("{{ messages[0]['content'] }}"));
    expect_chat("{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}", four,
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n"
                "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye!<|im_end|>\n");
    expect_chat("'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'", four,
                "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nBye!<|eot_id|>");
    expect_chat("'<start_of_turn>' + role", four,
                "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
                "<start_of_turn>user\nBye!<end_of_turn>\n");
    expect_chat("{{'<|user|>\n' + message['content'] + '<|end|>\n'}}", four,
                "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi\n<|end|>\n<|assistant|>\nHello.<|end|>\n"
                "<|user|>\nBye!<|end|>\n");
    expect_chat("{{ '[INST] ' + message['content'] + ' [/INST]' }}", four,
                "[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] Bye! [/INST]");
    expect_chat("{{- \"[INST]\" + message[\"content\"] + \"[/INST]\" }}", four,
                "[INST]Be brief.\n\n Hi\n[/INST]Hello.</s>[INST]Bye![/INST]");
    expect_chat(NULL, four, "Be brief.\n\n Hi\n\n\nHello.\n\nBye!");
}

static void conversation_lines(void **state)
{
    (void)state;
    static const char lines[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n{\"text\": \"b\"}\n"
                                "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n"
                                "{\"messages\": [{\"role\": \"user\", \"content\": \"c\"}], \"text\": null}\n";
    put("chat.jsonl", lines, sizeof lines - 1);
    expect("chat.jsonl", "a\n\nb\n\na\n\nc", 10);
    /* With a format; what came before is left out. */
    struct text_seen *seen = text_seen_create();
    assert_non_null(seen);
    for (int i = 0; i < 2; i++) {
        struct text_file *f;
        struct err e = {0};
        struct strbuf all = {0};
        char buf[64];
        size_t got = 1;
        OK(text_file_open(&f, DIR_ "/chat.jsonl", &e), e);
        text_file_set_chat(f, chat_format_of("<|im_start|>"));
        text_file_skip_repeats(f, seen);
        strbuf_puts(&all, "");
        while (got) {
            OK(text_file_read(f, buf, sizeof buf, &got, &e), e);
            strbuf_add(&all, buf, got);
        }
        assert_string_equal(all.data, i ? "" : "<|im_start|>user\na<|im_end|>\n\n\nb<|im_start|>user\nc<|im_end|>\n");
        assert_int_equal(text_file_repeats(f), i ? 4 : 1);
        assert_int_equal(text_file_chats(f), 3);
        strbuf_free(&all);
        text_file_close(&f);
    }
    text_seen_destroy(&seen);
}

/* ---- what is not ---- */

static void refused_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *name, *bytes;
        size_t size;
        const char *says, *hint;
    } kinds[] = {
        {"a.parquet", "PAR1\x15\0\x15\x10\x15\x14", 10, "Parquet", "JSON lines"},
        {"a.zip", "PK\3\4\x14\0\0\0", 8, "ZIP", "unpack"},
        {"a.docx", "PK\3\4\x14\0\6\0", 8, "ZIP", "unpack"},
        {"a.bz2", "BZh91AY&SY\x3a\x5b", 12, "bzip2", "bzip2 -d"},
        {"a.xz", "\xFD\x37zXZ\0\0\4", 8, "xz", "xz -d"},
        {"a.7z", "7z\xBC\xAF\x27\x1C\0\4", 8, "7-Zip", "unpack"},
        {"a.pdf", "%PDF-1.7\n%\xE2\xE3", 11, "PDF", "pdftotext"},
        {"utf16.txt", "\xFF\xFEh\0i\0", 6, "UTF-16", "iconv -f UTF-16"},
        {"utf16be.txt", "\xFE\xFF\0h\0i", 6, "UTF-16", "iconv -f UTF-16"},
        {"utf32.txt", "\xFF\xFE\0\0h\0\0\0", 8, "UTF-32", "iconv -f UTF-32"},
        {"a.arrow", "ARROW1\0\0\xFF\xFF", 10, "Arrow", "JSON lines"},
        {"model.gguf", "GGUF\3\0\0\0", 8, "GGUF", "not a model"},
        {"lfs.txt", "version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer", "git lfs pull"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        put(kinds[i].name, kinds[i].bytes, kinds[i].size);
        refuse(kinds[i].name, kinds[i].says, kinds[i].hint);
    }
    char tar[600] = "name";
    struct strbuf packed = {0};
    memcpy(tar + 257, "ustar", 5);
    put("a.tar", tar, sizeof tar);
    refuse("a.tar", "tar archive", "unpack");
    add_gzip(&packed, tar, sizeof tar);
    put("a.tar.gz", packed.data, packed.size);
    refuse("a.tar.gz", "compressed, and holds a tar archive", "unpack");
    strbuf_free(&packed);
    refuse("none.txt", "cannot open", "spelling");
    struct err e = {0};
    struct text_file *f;
    FAILS(text_file_open(&f, DIR_, &e), e, ERR_USER, "is not a regular file");
}

static void damaged_packing(void **state)
{
    (void)state;
    struct strbuf text = {0}, packed = {0};
    long_text(&text);
    for (int i = 0; i < 2; i++) {
        packed.size = 0;
        (i ? add_zstd : add_gzip)(&packed, text.data, text.size);
        const char *name = i ? "cut.zst" : "cut.gz";
        put(name, packed.data, packed.size - 5);
        refuse(name, "damaged or cut off", "again");
        put(name, packed.data, packed.size / 2);
        refuse(name, "damaged or cut off", "again");
    }
    packed.size = 0;
    add_gzip(&packed, text.data, text.size);
    packed.data[packed.size - 7] ^= 1; /* its checksum */
    put("flip.gz", packed.data, packed.size);
    refuse("flip.gz", "damaged or cut off", "again");
    strbuf_free(&text);
    strbuf_free(&packed);
}

static void bad_lines(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *says, *hint;
    } bad[] = {
        {"{\"text\": \"a\"}\n{\"content\": \"b\", \"id\": 1}\n", "line 2: there is no field \"text\"", "content, id"},
        {"{\"text\": 3}\n", "line 1: the field \"text\" is a number", "text"},
        {"{\"text\": 3, \"messages\": []}\n", "line 1: the field \"text\" is a number", "text"},
        {"{\"messages\": \"a\"}\n", "line 1: the field \"messages\" is no conversation", "role"},
        {"{\"messages\": [{\"content\": \"a\"}]}\n", "line 1: the field \"messages\" is no conversation", "role"},
        {"[1]\n", "line 1 is an array", "{\"text\""},
        {"{\"text\": \"a\"}\n\n{\"text\": \"b\"\n", "line 3 of the text", ""},
        {"{\"text\": \"\xC3(\"}\n", "line 1 of the text", ""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put("bad.jsonl", bad[i].lines, strlen(bad[i].lines));
        refuse("bad.jsonl", bad[i].says, bad[i].hint);
    }
}

/* JSON that is not lines of it. */
static void json_documents(void **state)
{
    (void)state;
    static const char array[] = "\xEF\xBB\xBF \n[{\"text\": \"a\"}]",
                      object[] = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
    struct strbuf packed = {0};
    put("a.json", array, sizeof array - 1);
    refuse("a.json", "a.json is JSON, not text", ".jsonl");
    put("a.JSON", object, sizeof object - 1);
    refuse("a.JSON", "a.JSON is JSON", "jq -c '.[]'");
    add_gzip(&packed, object, sizeof object - 1);
    put("a.json.gz", packed.data, packed.size);
    refuse("a.json.gz", "a.json.gz is JSON", ".txt");
    strbuf_free(&packed);
    /* A text of that name, and JSON that is to be read as it is. */
    put("b.json", "words", 5);
    expect("b.json", "words", 5);
    put("b.txt", object, sizeof object - 1);
    expect("b.txt", object, sizeof object - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_packed), cmocka_unit_test(json_lines),         cmocka_unit_test(refused_kinds),
        cmocka_unit_test(damaged_packing),  cmocka_unit_test(bad_lines),          cmocka_unit_test(json_documents),
        cmocka_unit_test(conversations),    cmocka_unit_test(conversation_lines),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    os_remove_tree(DIR_);
    return rc;
}
