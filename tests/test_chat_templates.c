/* Chat templates of a folder in a GGUF, and back. */
#include "formats/write/gguf_export.h"
#include "formats/json.h"
#include "formats/tokenizer/tokenizer.h"
#include "host/base/str.h"

#define DIR_ "tmp_chat_templates"
#include "tests/scratch_dir.h"

#define FILE_ DIR_ "/model.gguf"

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[256];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    OK(os_write_file(path, text, strlen(text), &e), e);
}

/* The tokenizer of DIR_ as a GGUF, read again. The caller closes it. */
static struct gguf *written(void)
{
    struct key_list k = {.keys = gguf_keys_create(), .quiet = true};
    struct gguf_writer *w;
    struct gguf *g;
    struct err e = {0};
    assert_non_null(k.keys);
    OK(gguf_export_tokenizer(&k, DIR_, 4, &e), e);
    OK(gguf_writer_open(&w, FILE_, k.keys, NULL, 0, &e), e);
    OK(gguf_writer_close(&w, &e), e);
    gguf_keys_destroy(&k.keys);
    OK(gguf_open(&g, FILE_, &e), e);
    return g;
}

static void expect_text(const struct gguf *g, const char *key, const char *want)
{
    struct gguf_string s;
    struct err e = {0};
    if (!want) {
        assert_null(gguf_find(g, key));
        return;
    }
    assert_int_equal(gguf_get_string(g, key, &s, &e), GGUF_OK);
    assert_int_equal(s.size, strlen(want));
    assert_memory_equal(s.text, want, s.size);
}

static void expect_names(const struct gguf *g, const char *const *names, size_t n)
{
    const struct gguf_kv *list = gguf_find(g, "tokenizer.chat_templates");
    if (!n) {
        assert_null(list);
        return;
    }
    assert_non_null(list);
    assert_int_equal(list->n, n);
    const uint8_t *at = list->data;
    for (size_t i = 0; i < n; i++) {
        struct gguf_string s = gguf_next_string(&at);
        assert_int_equal(s.size, strlen(names[i]));
        assert_memory_equal(s.text, names[i], s.size);
    }
}

/* tokenizer_config.json that comes of a GGUF. The caller deletes it. */
static cJSON *config_of(const struct gguf *g)
{
    struct strbuf json = {0}, config = {0};
    struct err e = {0};
    OK(tokenizer_json_from_gguf(&json, &config, g, FILE_, &e), e);
    cJSON *root = json_parse(config.data, config.size, FILE_, &e);
    assert_non_null(root);
    strbuf_free(&json);
    strbuf_free(&config);
    return root;
}

static void write_tokenizer(const char *config)
{
    write_text(DIR_, "tokenizer.json",
               "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"model\": {\"type\": "
               "\"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}}");
    write_text(DIR_, "tokenizer_config.json", config);
}

static void test_string(void **state)
{
    (void)state;
    write_tokenizer("{\"chat_template\": \"{{ one }}\"}");
    struct gguf *g = written();
    expect_text(g, "tokenizer.chat_template", "{{ one }}");
    expect_names(g, NULL, 0);
    cJSON *root = config_of(g);
    assert_string_equal(json_get(root, "chat_template")->valuestring, "{{ one }}");
    cJSON_Delete(root);
    gguf_close(&g);
    write_tokenizer("{}");
    g = written();
    expect_text(g, "tokenizer.chat_template", NULL);
    root = config_of(g);
    assert_null(json_get(root, "chat_template"));
    cJSON_Delete(root);
    gguf_close(&g);
}

static void expect_list(const struct gguf *g, const char *const (*want)[2], int n)
{
    cJSON *root = config_of(g);
    const cJSON *list = json_get(root, "chat_template");
    assert_true(cJSON_IsArray(list));
    assert_int_equal(cJSON_GetArraySize(list), n);
    for (int i = 0; i < n; i++) {
        const cJSON *one = cJSON_GetArrayItem(list, i);
        assert_string_equal(json_get(one, "name")->valuestring, want[i][0]);
        assert_string_equal(json_get(one, "template")->valuestring, want[i][1]);
    }
    cJSON_Delete(root);
}

/* Names may hold letters and digits; of two that become the same, the first counts. */
static void test_named(void **state)
{
    (void)state;
    write_tokenizer("{\"chat_template\": [{\"name\": \"tool use\", \"template\": \"{{ tool }}\"}, "
                    "{\"name\": \"default\", \"template\": \"{{ one }}\"}, {\"name\": \"rag\", \"template\": "
                    "\"{{ rag }}\"}, {\"name\": \"tool_use\", \"template\": \"{{ again }}\"}, {\"name\": \"\", "
                    "\"template\": \"{{ none }}\"}, {\"name\": \"half\"}, 7]}");
    static const char *const names[] = {"tool_use", "rag"};
    static const char *const all[][2] = {{"default", "{{ one }}"}, {"tool_use", "{{ tool }}"}, {"rag", "{{ rag }}"}};
    struct gguf *g = written();
    expect_text(g, "tokenizer.chat_template", "{{ one }}");
    expect_text(g, "tokenizer.chat_template.tool_use", "{{ tool }}");
    expect_text(g, "tokenizer.chat_template.rag", "{{ rag }}");
    expect_names(g, names, 2);
    expect_list(g, all, 3);
    gguf_close(&g);
    /* Without a default. */
    write_tokenizer("{\"chat_template\": [{\"name\": \"rag\", \"template\": \"{{ rag }}\"}]}");
    g = written();
    expect_text(g, "tokenizer.chat_template", NULL);
    expect_list(g, all + 2, 1);
    gguf_close(&g);
}

/* Files count before what tokenizer_config.json has. */
static void test_files(void **state)
{
    (void)state;
    struct err e = {0};
    write_tokenizer("{\"chat_template\": [{\"name\": \"rag\", \"template\": \"{{ rag }}\"}]}");
    write_text(DIR_, "chat_template.jinja", "{{ file }}");
    OK(os_mkdirs(DIR_ "/additional_chat_templates", &e), e);
    write_text(DIR_ "/additional_chat_templates", "think.jinja", "{{ think }}");
    write_text(DIR_ "/additional_chat_templates", "brief.jinja", "{{ brief }}");
    write_text(DIR_ "/additional_chat_templates", "notes.txt", "no template");
    static const char *const names[] = {"brief", "think"};
    struct gguf *g = written();
    expect_text(g, "tokenizer.chat_template", "{{ file }}");
    expect_text(g, "tokenizer.chat_template.think", "{{ think }}");
    expect_text(g, "tokenizer.chat_template.brief", "{{ brief }}");
    expect_text(g, "tokenizer.chat_template.rag", NULL);
    expect_names(g, names, 2);
    gguf_close(&g);
    assert_true(os_remove_tree(DIR_ "/additional_chat_templates"));
    assert_true(os_remove(DIR_ "/chat_template.jinja"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_string),
        cmocka_unit_test(test_named),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests_name("chat_templates", tests, make_dir, remove_dir);
}
