#include "formats/read/hub_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/os.h"
#include "host/base/str.h"

enum { PATH_BYTES = 4096, NAME_BYTES = 128, REVISION_BYTES = 128 };

struct wanted {
    char name[NAME_BYTES];         /* "org/name" */
    char folder[NAME_BYTES + 16];  /* "models--org--name" */
    char revision[REVISION_BYTES]; /* "main" */
    bool any;                      /* no revision was asked for */
};

/* ---- names ---- */

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
}

/* Letters, digits, "-", "_" and "."; neither begins nor ends with a dot. */
static bool is_part(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_word(s[i]))
            return false;
    return n > 0 && s[0] != '.' && s[n - 1] != '.';
}

/* "name" or "org/name", and "@revision". */
static bool split(const char *model, struct wanted *w)
{
    const char *at = strchr(model, '@'), *slash = strchr(model, '/');
    size_t n = at ? (size_t)(at - model) : strlen(model);
    *w = (struct wanted){.any = !at};
    if (n >= sizeof w->name || (slash && slash > model + n))
        return false;
    size_t org = slash ? (size_t)(slash - model) : 0, rest = slash ? org + 1 : 0;
    if ((slash && !is_part(model, org)) || !is_part(model + rest, n - rest))
        return false;
    snprintf(w->name, sizeof w->name, "%.*s", (int)n, model);
    snprintf(w->folder, sizeof w->folder, "models--%.*s%s%.*s", (int)org, model, slash ? "--" : "", (int)(n - rest),
             model + rest);
    const char *revision = at ? at + 1 : "main";
    snprintf(w->revision, sizeof w->revision, "%s", revision);
    for (const char *c = revision; *c; c++)
        if (!is_word(*c) && *c != '/')
            return false;
    return strlen(revision) < sizeof w->revision && revision[0] && revision[0] != '/' && !strstr(revision, "..");
}

/* ---- caches ---- */

/* Cache i in the order of huggingface_hub; false past the last. out is empty where its variable is not set.
 */
static bool cache_at(int i, char *out, size_t cap)
{
    static const struct {
        const char *variable, *below;
    } places[] = {
        {"HF_HUB_CACHE", ""},
        {"HUGGINGFACE_HUB_CACHE", ""}, /* its older name */
        {"HF_HOME", "/hub"},
        {"XDG_CACHE_HOME", "/huggingface/hub"},
        {"HOME", "/.cache/huggingface/hub"},
        {"USERPROFILE", "/.cache/huggingface/hub"},
    };
    if (i >= (int)(sizeof places / sizeof *places))
        return false;
    const char *value = os_getenv(places[i].variable), *home = "";
    out[0] = 0;
    if (!value || !value[0])
        return true;
    if (value[0] == '~' && (value[1] == '/' || !value[1])) {
        home = os_getenv("HOME");
        home = home ? home : "";
        value++;
    }
    int n = snprintf(out, cap, "%s%s%s", home, value, places[i].below);
    if (n < 0 || (size_t)n >= cap)
        out[0] = 0;
    return true;
}

/* ---- one model in one cache ---- */

struct listing {
    const char *begin, *end; /* names must begin and end so */
    unsigned n;
    char first[256], all[256];
};

static bool list_name(void *ctx, const char *name, struct err *e)
{
    struct listing *l = ctx;
    (void)e;
    if (strncmp(name, l->begin, strlen(l->begin)) != 0 || !str_ends(name, l->end))
        return true;
    if (l->n++ == 0)
        snprintf(l->first, sizeof l->first, "%s", name);
    size_t at = strlen(l->all);
    snprintf(l->all + at, sizeof l->all - at, "%s%s", at ? ", " : "", name);
    return true;
}

static struct listing list(const char *folder, const char *begin, const char *end)
{
    struct listing l = {.begin = begin, .end = end};
    if (os_stat(folder, NULL) == OS_DIR)
        os_list(folder, list_name, &l, NULL);
    return l;
}

/* The commit that refs/REVISION names, or that begins with REVISION. */
static bool find_snapshot(const char *model, const struct wanted *w, char *out, size_t cap)
{
    char path[PATH_BYTES], *text = NULL;
    size_t size;
    snprintf(path, sizeof path, "%s/refs/%s", model, w->revision);
    if (os_stat(path, NULL) == OS_FILE && os_read_file(path, 256, &text, &size, NULL)) {
        size_t n = strcspn(text, " \r\n");
        bool sane = is_part(text, n) && n < 100;
        int length = sane ? snprintf(out, cap, "%s/snapshots/%.*s", model, (int)n, text) : 0;
        free(text);
        if (length > 0 && (size_t)length < cap && os_stat(out, NULL) == OS_DIR)
            return true;
    }
    snprintf(path, sizeof path, "%s/snapshots", model);
    struct listing l = list(path, w->revision, "");
    return strlen(w->revision) >= 7 && l.n == 1 && (size_t)snprintf(out, cap, "%s/%s", path, l.first) < cap;
}

static bool incomplete(const struct wanted *w, const char *model, const char *snapshot, const char *what, struct err *e)
{
    char blobs[PATH_BYTES];
    snprintf(blobs, sizeof blobs, "%s/blobs", model);
    struct listing l = list(blobs, "", ".incomplete");
    err_set(e, ERR_USER, "the download of %s is not complete: %s has no %s%s", w->name, snapshot, what,
            l.n ? ", and files in blobs are still .incomplete" : "");
    return err_hint(e, "hf download %s%s%s finishes it", w->name, w->any ? "" : " --revision ",
                    w->any ? "" : w->revision);
}

/* A snapshot is a model folder, or holds GGUF files. */
static bool check_snapshot(const struct wanted *w, const char *model, char *out, size_t cap, struct err *e)
{
    char path[PATH_BYTES];
    struct listing gguf = list(out, "", ".gguf"), weights = list(out, "", ".safetensors");
    if (!os_path_join(path, sizeof path, out, "config.json", e))
        return false;
    if (os_stat(path, NULL) == OS_FILE && (weights.n || !gguf.n))
        return weights.n || list(out, "pytorch_model", "").n || incomplete(w, model, out, "*.safetensors", e);
    if (gguf.n > 1) {
        err_set(e, ERR_USER, "%s holds %u GGUF files: %s", w->name, gguf.n, gguf.all);
        return err_hint(e, "give one of them by its path, such as %s/%s", out, gguf.first);
    }
    if (gguf.n == 0)
        return incomplete(w, model, out, weights.n ? "config.json" : "config.json and no *.safetensors", e);
    size_t n = strlen(out);
    return (size_t)snprintf(out + n, cap - n, "/%s", gguf.first) < cap - n ||
           err_set(e, ERR_USER, "the path is too long: %.200s", out);
}

static bool other_revisions(const struct wanted *w, const char *model, struct err *e)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/refs", model);
    struct listing refs = list(path, "", "");
    snprintf(path, sizeof path, "%s/snapshots", model);
    struct listing commits = list(path, "", "");
    const char *have = refs.n ? refs.all : commits.all;
    err_set(e, ERR_USER, "%s is in the Hugging Face cache, but not its revision %s%s%s", w->name, w->revision,
            have[0] ? "; there is: " : "", have);
    return err_hint(e, "%s%s%s%shf download %s --revision %s", have[0] ? "give " : "", have[0] ? w->name : "",
                    have[0] ? "@" : "", have[0] ? (refs.n ? refs.first : commits.first) : "", w->name, w->revision);
}

bool hub_locate(const char *model, char *out, size_t cap, struct err *e)
{
    struct wanted w;
    char cache[PATH_BYTES], found[PATH_BYTES + NAME_BYTES + 16], first[PATH_BYTES] = "";
    bool named = os_stat(model, NULL) == OS_ABSENT && split(model, &w);
    for (int i = 0; named && cache_at(i, cache, sizeof cache); i++) {
        if (!cache[0])
            continue;
        if (!first[0])
            snprintf(first, sizeof first, "%s", cache);
        snprintf(found, sizeof found, "%s/%s", cache, w.folder);
        if (os_stat(found, NULL) != OS_DIR)
            continue;
        return find_snapshot(found, &w, out, cap) ? check_snapshot(&w, found, out, cap, e)
                                                  : other_revisions(&w, found, e);
    }
    bool guess = named && strchr(w.name, '/') && !str_ends(w.name, ".gguf");
    if (!guess)
        return (size_t)snprintf(out, cap, "%s", model) < cap ||
               err_set(e, ERR_USER, "the path is too long: %.200s", model);
    err_set(e, ERR_USER, "there is no file or folder %s, nor a model of that name in the Hugging Face cache (%s)",
            model, first[0] ? first : "no cache folder is known");
    const char *folder = strchr(w.name, '/') + 1, *revision = w.any ? "" : w.revision;
    return err_hint(e,
                    "check the spelling, or download it: hf download %s%s%s --local-dir %s (older: huggingface-cli "
                    "download ...)",
                    w.name, w.any ? "" : " --revision ", revision, folder);
}

bool hub_name_of(const char *path, char *out, size_t cap)
{
    const char *end = NULL, *begin = NULL;
    for (const char *at = path; (at = strstr(at, "/snapshots/")); at++)
        end = at;
    for (const char *at = path; end && (at = strstr(at, "models--")) && at < end; at++)
        begin = at + strlen("models--");
    for (const char *at = begin; begin && (at = strstr(at, "--")) && at < end; at++)
        begin = at + 2;
    if (!begin || begin >= end || (size_t)(end - begin) >= cap || memchr(begin, '/', (size_t)(end - begin)))
        return false;
    snprintf(out, cap, "%.*s", (int)(end - begin), begin);
    return true;
}
