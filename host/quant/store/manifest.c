#include "host/quant/store/manifest.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/hf/safetensors.h"
#include "host/base/log.h"
#include "host/base/str.h"
#include "host/base/version.h"

#define FORMAT   "gsq work folder 3"
#define SUM_KEY  SAFETENSORS_CHECKSUM
#define NO_SUM   SAFETENSORS_NO_SUM_YET
#define SUM_SIZE (sizeof NO_SUM - 1)
/* How cJSON begins such a text. */
static const char text_begin[] = "{\n\t\"" SUM_KEY "\":\t\"";

struct manifest {
    cJSON *root;
    char *text;
};

const char *const *manifest_place_fields(void)
{
    static const char *const names[] = {MANIFEST_VERSION, "gsq",    "device", "driver",
                                        "kernels",        "memory", "files",  NULL};
    return names;
}

static bool is_place(const char *name)
{
    for (const char *const *p = manifest_place_fields(); *p; p++)
        if (strcmp(*p, name) == 0)
            return true;
    return false;
}

/* Whether a list "a,b" holds a name. */
static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at && *at;) {
        size_t len = strcspn(at, ",");
        if (len == n && memcmp(at, name, n) == 0)
            return true;
        at += len + (at[len] == ',');
    }
    return false;
}

bool manifest_accept_check(const char *list, struct err *e)
{
    for (const char *at = list; at && *at;) {
        size_t len = strcspn(at, ",");
        bool known = false;
        for (const char *const *p = manifest_place_fields(); *p && !known; p++)
            known = strlen(*p) == len && memcmp(*p, at, len) == 0;
        if (!known) {
            struct strbuf names = {0};
            for (const char *const *p = manifest_place_fields(); *p; p++)
                strbuf_printf(&names, "%s%s", names.size ? ", " : "", *p);
            err_set(e, ERR_USER, "--accept %.*s is unknown", (int)len, at);
            err_hint(e, "give one or more of %s, separated by commas", names.data ? names.data : "");
            strbuf_free(&names);
            return false;
        }
        at += len + (at[len] == ',');
    }
    return true;
}

void manifest_free(struct manifest **m)
{
    if (!*m)
        return;
    cJSON_Delete((*m)->root);
    free((*m)->text);
    free(*m);
    *m = NULL;
}

/* Sum of a text whose checksum is the 32 digits at `at`. */
static void sum_text(const char *text, size_t size, size_t at, char hex[33])
{
    struct hash128 h = hash_bytes(text, at, (struct hash128){0});
    h = hash_bytes(NO_SUM, SUM_SIZE, h);
    hash_hex(hash_bytes(text + at + SUM_SIZE, size - at - SUM_SIZE, h), hex);
}

/* Text of the tree, with its checksum. */
static bool render(struct manifest *m, struct err *e)
{
    size_t at = sizeof text_begin - 1;
    cJSON *sum = cJSON_CreateString(NO_SUM);
    if (!sum || !cJSON_ReplaceItemInObjectCaseSensitive(m->root, SUM_KEY, sum))
        return err_nomem(e, "the manifest", 0);
    char *printed = cJSON_Print(m->root);
    char *text = printed ? str_dup(printed) : NULL;
    cJSON_free(printed);
    if (!text)
        return err_nomem(e, "the manifest", 0);
    if (strncmp(text, text_begin, at) != 0) {
        free(text);
        return err_set(e, ERR_BUG, "the manifest does not begin as it should");
    }
    char hex[33];
    sum_text(text, strlen(text), at, hex);
    memcpy(text + at, hex, SUM_SIZE);
    free(m->text);
    m->text = text;
    return true;
}

struct manifest *manifest_make(const struct store_field *fields, size_t n, struct err *e)
{
    struct manifest *m = calloc(1, sizeof *m);
    bool ok = m && (m->root = cJSON_CreateObject());
    ok = ok && cJSON_AddStringToObject(m->root, SUM_KEY, NO_SUM) &&
         cJSON_AddStringToObject(m->root, "format", FORMAT) &&
         cJSON_AddStringToObject(m->root, "version", version_text());
    cJSON *run = ok ? cJSON_AddObjectToObject(m->root, "run") : NULL;
    ok = ok && run;
    for (size_t i = 0; ok && i < n; i++)
        ok = cJSON_AddStringToObject(run, fields[i].name, fields[i].value) != NULL;
    ok = ok && cJSON_AddArrayToObject(m->root, "accepted");
    if (!ok)
        err_nomem(e, "the manifest", 0);
    if (!ok || !render(m, e))
        manifest_free(&m);
    return m;
}

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(json_get(object, name));
    return text ? text : "";
}

static void of_earlier(const char *path, struct err *e)
{
    err_set(e, ERR_USER, "%s: the work folder is of an earlier gsq, whose files are of another format", path);
    err_hint(e, "finish that run with the gsq that began it, or give another --work folder, or delete that one");
}

struct manifest *manifest_parse(const char *text, size_t size, const char *path, struct err *e)
{
    size_t at = sizeof text_begin - 1;
    char hex[33] = "";
    bool summed = size > at + SUM_SIZE && memcmp(text, text_begin, at) == 0;
    if (summed)
        sum_text(text, size, at, hex);
    if (summed && memcmp(hex, text + at, SUM_SIZE) == 0) {
        struct manifest *m = calloc(1, sizeof *m);
        if (!m || !(m->text = str_dup_n(text, size)))
            err_nomem(e, "the manifest", size);
        else if ((m->root = json_parse(text, size, path, e)) && !cJSON_IsObject(json_get(m->root, "run")))
            err_set(e, ERR_ENV, "%s is damaged", path);
        else if (m->root && strcmp(text_of(m->root, "format"), FORMAT) == 0)
            return m;
        else if (m->root)
            of_earlier(path, e);
        manifest_free(&m);
        return NULL;
    }
    /* Whole, but without a checksum: all fields stood in the object itself. */
    cJSON *old = summed ? NULL : json_parse(text, size, path, NULL);
    if (old && cJSON_IsString(json_get(old, "kernels")) && !json_get(old, "format"))
        of_earlier(path, e);
    else
        err_set(e, ERR_ENV, "%s is damaged", path);
    cJSON_Delete(old);
    return NULL;
}

const char *manifest_text(const struct manifest *m)
{
    return m->text;
}

const char *manifest_value(const struct manifest *m, const char *name)
{
    return cJSON_GetStringValue(json_get(json_get(m->root, "run"), name));
}

struct hash128 manifest_run(const struct manifest *m)
{
    struct hash128 h = {0};
    const cJSON *field;
    cJSON_ArrayForEach(field, json_get(m->root, "run"))
    {
        const char *value = cJSON_GetStringValue(field);
        if (is_place(field->string) || !value)
            continue;
        h = hash_bytes(field->string, strlen(field->string) + 1, h);
        h = hash_bytes(value, strlen(value), h);
    }
    return h;
}

/* A field that two runs have in two ways. */
struct difference {
    const char *name, *was, *now; /* NULL: not there */
};

static const char *value_of(const struct store_field *fields, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(fields[i].name, name) == 0)
            return fields[i].value;
    return NULL;
}

/* What the folder has; of one that was begun before the version was a field, what began it. */
static const char *recorded(const struct manifest *m, const char *name)
{
    const char *value = manifest_value(m, name);
    if (!value && strcmp(name, MANIFEST_VERSION) == 0)
        value = cJSON_GetStringValue(json_get(m->root, "version"));
    return value;
}

/* d: room for all fields of both. */
static size_t differences(const struct manifest *m, const struct store_field *fields, size_t n, struct difference *d)
{
    size_t found = 0;
    const cJSON *field;
    for (size_t i = 0; i < n; i++) {
        const char *was = recorded(m, fields[i].name);
        if (!was || strcmp(was, fields[i].value) != 0)
            d[found++] = (struct difference){fields[i].name, was, fields[i].value};
    }
    cJSON_ArrayForEach(field, json_get(m->root, "run"))
    {
        if (!value_of(fields, n, field->string))
            d[found++] = (struct difference){field->string, cJSON_GetStringValue(field), NULL};
    }
    return found;
}

/* Only the code is another, of what is not accepted. names: all that is to be accepted. */
static bool refuse_version(const struct difference *d, const char *names, const char *path, struct err *e)
{
    err_set(e, ERR_USER, "%s: this run was begun by gsq %.150s, but this is gsq %.150s", path,
            d->was ? d->was : "of an unknown version", d->now ? d->now : "of an unknown version");
    return err_hint(e,
                    "finish it with that version, or start again: with another --work folder, or after removing this "
                    "one. --accept %s continues with this version: finished blocks are kept, but the result may differ "
                    "from what either version alone would write",
                    names);
}

/* Refuses d[0..open). The hint names all found, also what is accepted already: a command has one --accept. */
static bool refuse_places(const struct difference *d, size_t open, size_t found, const char *path, struct err *e)
{
    struct strbuf names = {0}, values = {0};
    for (size_t i = 0; i < found; i++)
        strbuf_printf(&names, "%s%s", i ? "," : "", d[i].name);
    for (size_t i = 0; i < open; i++)
        strbuf_printf(&values, "%s%s was %.150s, is %.150s", i ? "; " : "", d[i].name,
                      d[i].was ? d[i].was : "not recorded", d[i].now ? d[i].now : "not recorded");
    const char *list = names.data ? names.data : "";
    if (open == 1 && strcmp(d[0].name, MANIFEST_VERSION) == 0) {
        refuse_version(d, list, path, e);
    } else {
        err_set(e, ERR_USER, "%s: this run was begun under other conditions: %.700s", path,
                values.data ? values.data : "");
        err_hint(e,
                 "--accept %s continues here: finished blocks are kept, but the result will differ from that of an "
                 "uninterrupted run. Or repeat the command where it was begun, or give another --work folder",
                 list);
    }
    strbuf_free(&names);
    strbuf_free(&values);
    return false;
}

/* Notes what was accepted, beside what was accepted before. */
static bool note_all(cJSON *accepted, const struct difference *d, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cJSON *note = cJSON_CreateObject();
        bool ok = note && cJSON_AddStringToObject(note, "field", d[i].name) &&
                  cJSON_AddStringToObject(note, "was", d[i].was ? d[i].was : "") &&
                  cJSON_AddStringToObject(note, "now", d[i].now ? d[i].now : "") &&
                  cJSON_AddStringToObject(note, "version", version_text());
        if (!ok || !cJSON_AddItemToArray(accepted, note)) {
            cJSON_Delete(note);
            return false;
        }
        log_warn("%s was %s and is now %s (accepted): the result %s differ from that of an uninterrupted run",
                 d[i].name, d[i].was ? d[i].was : "not recorded", d[i].now ? d[i].now : "not recorded",
                 strcmp(d[i].name, MANIFEST_VERSION) == 0 ? "may" : "will");
    }
    return true;
}

/* A manifest of this run's fields, with what the old one says of its past. */
static struct manifest *succeed(const struct manifest *old, const struct store_field *fields, size_t n,
                                const struct difference *d, size_t found, struct err *e)
{
    struct manifest *now = manifest_make(fields, n, e);
    if (!now)
        return NULL;
    cJSON *notes = cJSON_Duplicate(json_get(old->root, "accepted"), true),
          *version = cJSON_Duplicate(json_get(old->root, "version"), true);
    bool ok = notes && version && note_all(notes, d, found);
    if (ok) {
        cJSON_ReplaceItemInObjectCaseSensitive(now->root, "accepted", notes);
        cJSON_ReplaceItemInObjectCaseSensitive(now->root, "version", version);
    } else {
        cJSON_Delete(notes);
        cJSON_Delete(version);
        err_nomem(e, "the manifest", 0);
    }
    if (!ok || !render(now, e))
        manifest_free(&now);
    return now;
}

bool manifest_settle(struct manifest **m, const struct store_field *fields, size_t n, const char *accept,
                     const char *path, bool *changed, struct err *e)
{
    size_t most = n + (size_t)cJSON_GetArraySize(json_get((*m)->root, "run")), open = 0;
    struct difference *d = calloc(most ? most : 1, sizeof *d);
    *changed = false;
    if (!d)
        return err_nomem(e, "the manifest", most * sizeof *d);
    size_t found = differences(*m, fields, n, d);
    bool ok = true;
    for (size_t i = 0; ok && i < found; i++) {
        if (is_place(d[i].name))
            continue;
        ok = err_set(e, ERR_USER, "%s belongs to another run: its %s is %.300s, this run's is %.300s", path, d[i].name,
                     d[i].was ? d[i].was : "missing", d[i].now ? d[i].now : "missing");
        err_hint(e, "repeat the earlier command to resume it, or give another --work folder, or delete that one");
    }
    /* Those that are not accepted first. */
    for (size_t i = 0; ok && i < found; i++) {
        if (listed(accept, d[i].name))
            continue;
        struct difference x = d[i];
        d[i] = d[open];
        d[open++] = x;
    }
    ok = ok && (!open || refuse_places(d, open, found, path, e));
    if (ok && found) {
        struct manifest *now = succeed(*m, fields, n, d, found, e);
        ok = *changed = now != NULL;
        if (now) {
            manifest_free(m);
            *m = now;
        }
    }
    free(d);
    return ok;
}
