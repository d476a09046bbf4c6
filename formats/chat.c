#include "formats/chat.h"

#include <string.h>

/* What goes around a message of each role; begin NULL: its content goes in front of the next message of the user. */
struct around {
    const char *begin, *end;
};
enum role_of { SYSTEM, USER, ASSISTANT, ROLES };

struct chat_format {
    const char *name, *mark; /* mark: what only such templates have; the first row whose mark is found is the one */
    struct around of[ROLES];
    bool trim; /* contents without white space around them */
};

#define HEADER(role)  "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define HEADER4(role) "<|header_start|>" role "<|header_end|>\n\n"
static const struct chat_format formats[] = {
    {"ChatML",
     "<|im_start|>",
     {{"<|im_start|>system\n", "<|im_end|>\n"},
      {"<|im_start|>user\n", "<|im_end|>\n"},
      {"<|im_start|>assistant\n", "<|im_end|>\n"}},
     false},
    {"Llama 3",
     "<|start_header_id|>",
     {{HEADER("system"), "<|eot_id|>"}, {HEADER("user"), "<|eot_id|>"}, {HEADER("assistant"), "<|eot_id|>"}},
     true},
    {"Llama 4",
     "<|header_start|>",
     {{HEADER4("system"), "<|eot|>"}, {HEADER4("user"), "<|eot|>"}, {HEADER4("assistant"), "<|eot|>"}},
     true},
    {"Gemma",
     "<start_of_turn>",
     {{NULL, NULL}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, {"<start_of_turn>model\n", "<end_of_turn>\n"}},
     true},
    {"GLM-4", "[gMASK]", {{"<|system|>\n", ""}, {"<|user|>\n", ""}, {"<|assistant|>\n", ""}}, false},
    {"Phi-3",
     "<|end|>",
     {{"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"}},
     false},
    {"DeepSeek",
     "<\xEF\xBD\x9CUser\xEF\xBD\x9C>",
     {{"", ""},
      {"<\xEF\xBD\x9CUser\xEF\xBD\x9C>", ""},
      {"<\xEF\xBD\x9C"
       "Assistant\xEF\xBD\x9C>",
       "<\xEF\xBD\x9C"
       "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"}},
     false},
    {"Mistral, with spaces", "[INST] ", {{NULL, NULL}, {"[INST] ", " [/INST]"}, {" ", "</s>"}}, true},
    {"Mistral", "[INST]", {{NULL, NULL}, {"[INST]", "[/INST]"}, {"", "</s>"}}, false},
};

const struct chat_format *chat_format_of(const char *template_text)
{
    for (size_t i = 0; template_text && i < sizeof formats / sizeof *formats; i++)
        if (strstr(template_text, formats[i].mark))
            return &formats[i];
    return NULL;
}

const char *chat_format_name(const struct chat_format *f)
{
    return f->name;
}

static void put(struct strbuf *out, const char *text, bool trim)
{
    size_t n = strlen(text);
    while (trim && n && str_is_space(*text)) {
        text++;
        n--;
    }
    while (trim && n && str_is_space(text[n - 1]))
        n--;
    strbuf_add(out, text, n);
}

/* A string, or the texts of a list of parts; false: there are none. */
static bool add_content(struct strbuf *out, const cJSON *content)
{
    bool any = false;
    if (cJSON_IsString(content)) {
        strbuf_puts(out, content->valuestring);
        return content->valuestring[0] != 0;
    }
    for (const cJSON *part = cJSON_IsArray(content) ? content->child : NULL; part; part = part->next) {
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(part, "text");
        if (!cJSON_IsString(text))
            continue;
        strbuf_puts(out, text->valuestring);
        any = any || text->valuestring[0];
    }
    return any;
}

/* Whoever is neither the system nor the assistant speaks as the user. */
static enum role_of role_of(const char *role)
{
    return strcmp(role, "system") == 0 || strcmp(role, "developer") == 0  ? SYSTEM
           : strcmp(role, "assistant") == 0 || strcmp(role, "model") == 0 ? ASSISTANT
                                                                          : USER;
}

static void add_message(const struct chat_format *f, enum role_of role, const char *content, struct strbuf *before,
                        struct strbuf *out)
{
    const struct around *a = &f->of[role];
    if (!a->begin) {
        put(before, content, f->trim);
        strbuf_puts(before, "\n\n");
        return;
    }
    strbuf_puts(out, a->begin);
    if (role == USER && before->size) {
        strbuf_add(out, before->data, before->size);
        before->size = 0;
    }
    put(out, content, f->trim);
    strbuf_puts(out, a->end);
}

bool chat_render(const struct chat_format *f, const cJSON *messages, struct strbuf *out)
{
    struct strbuf before = {0}, content = {0};
    const size_t began = out->size;
    bool ok = cJSON_IsArray(messages);
    for (const cJSON *m = ok ? messages->child : NULL; ok && m; m = m->next) {
        const cJSON *role = cJSON_GetObjectItemCaseSensitive(m, "role");
        ok = cJSON_IsString(role);
        content.size = 0;
        if (!ok || !add_content(&content, cJSON_GetObjectItemCaseSensitive(m, "content")))
            continue;
        if (f) {
            add_message(f, role_of(role->valuestring), content.data, &before, out);
        } else {
            strbuf_puts(out, out->size > began ? "\n\n" : "");
            strbuf_add(out, content.data, content.size);
        }
    }
    out->failed = out->failed || before.failed || content.failed;
    strbuf_free(&before);
    strbuf_free(&content);
    return ok;
}
