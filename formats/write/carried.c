#include "formats/write/carried.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "formats/side_file.h"
#include "host/base/os.h"
#include "host/base/str.h"

bool export_carries(const char *name)
{
    static const char *const exact[] = {"special_tokens_map.json", "generation_config.json", "vocab.json", "merges.txt",
                                        "tokenizer.model", "tiktoken.model", "added_tokens.json",
                                        /* of what a model reads beside text */
                                        "processor_config.json", "preprocessor_config.json",
                                        "video_preprocessor_config.json"};
    for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++) {
        if (strcmp(name, exact[i]) == 0)
            return true;
    }
    /* Code: what config.json's and tokenizer_config.json's auto_map name. */
    return (strncmp(name, "tokenizer", 9) == 0 && str_ends(name, ".json")) || str_ends(name, ".py") ||
           (strncmp(name, "chat_template.", 14) == 0 && !str_ends(name, ".gsq-tmp")) ||
           (strncmp(name, EXPORT_TEMPLATES "/", strlen(EXPORT_TEMPLATES "/")) == 0 && str_ends(name, ".jinja"));
}

struct listing {
    bool (*fn)(void *ctx, const char *name, struct err *e);
    void *ctx;
};

static bool from_above(void *ctx, const char *name, struct err *e)
{
    const struct listing *l = ctx;
    char path[512];
    int n = snprintf(path, sizeof path, EXPORT_TEMPLATES "/%s", name);
    return n >= (int)sizeof path || !export_carries(path) || l->fn(l->ctx, path, e);
}

bool export_list_templates(const char *dir, bool (*fn)(void *ctx, const char *name, struct err *e), void *ctx,
                           struct err *e)
{
    struct listing l = {fn, ctx};
    char path[4096];
    if (!os_path_join(path, sizeof path, dir, EXPORT_TEMPLATES, e))
        return false;
    return os_stat(path, NULL) != OS_DIR || os_list(path, from_above, &l, e);
}

static bool check_carried(void *ctx, const char *name, struct err *e)
{
    char path[4096];
    bool there, carried = export_carries(name) || strcmp(name, GGUF_CARRIED) == 0;
    return !carried || (os_path_join(path, sizeof path, ctx, name, e) && side_file_there(path, &there, e));
}

bool export_check_carried(const char *dir, struct err *e)
{
    return os_stat(dir, NULL) != OS_DIR || (os_list(dir, check_carried, (void *)(uintptr_t)dir, e) &&
                                            export_list_templates(dir, check_carried, (void *)(uintptr_t)dir, e));
}
