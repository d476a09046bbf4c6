#include "formats/read/chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf.h"
#include "formats/json.h"
#include "host/base/os.h"
#include "host/base/str.h"

#define FILE_MAX (16u << 20)

static char *of_gguf(const struct gguf *g)
{
    struct gguf_string s;
    struct err e = {0};
    if (gguf_get_string(g, "tokenizer.chat_template", &s, &e) != GGUF_OK)
        return NULL;
    char *text = malloc(s.size + 1);
    if (text) {
        memcpy(text, s.text, s.size);
        text[s.size] = 0;
    }
    return text;
}

/* A file beside the weights, with a NUL behind it; NULL: there is none. */
static char *side_text(const char *dir, const char *name, size_t *size)
{
    char path[4096], *text;
    struct err e = {0};
    bool there = os_path_join(path, sizeof path, dir, name, &e) && os_stat(path, NULL) == OS_FILE &&
                 os_read_file(path, FILE_MAX, &text, size, &e);
    return there ? text : NULL;
}

const char *chat_template_default(const cJSON *item)
{
    const char *found = cJSON_IsString(item) ? item->valuestring : NULL;
    for (const cJSON *one = cJSON_IsArray(item) ? item->child : NULL; one; one = one->next) {
        const cJSON *name = json_get(one, "name"), *text = json_get(one, "template");
        if (cJSON_IsString(name) && cJSON_IsString(text) && strcmp(name->valuestring, "default") == 0)
            found = text->valuestring;
    }
    return found;
}

static char *of_config(const char *dir)
{
    size_t size;
    char *text = side_text(dir, "tokenizer_config.json", &size), *found = NULL;
    struct err e = {0};
    cJSON *config = text ? json_parse(text, size, "tokenizer_config.json", &e) : NULL;
    const char *mine = chat_template_default(json_get(config, "chat_template"));
    if (mine)
        found = str_dup(mine);
    cJSON_Delete(config);
    free(text);
    return found;
}

char *chat_template_read(const struct checkpoint *ck)
{
    size_t size;
    const struct gguf *g = checkpoint_gguf(ck);
    if (g)
        return of_gguf(g);
    char *text = side_text(checkpoint_dir(ck), "chat_template.jinja", &size);
    return text ? text : of_config(checkpoint_dir(ck));
}
