#include "lib/report_html.h"

#include <string.h>

#include "host/base/out_path.h"
#include "host/base/str.h"
#include "lib/report_page.h"

/* By this a page is known as gsq's; report.html has it. */
#define GENERATOR "<meta name=\"generator\" content=\"gsq\""

static bool folder_of(const char *path, char *out, size_t cap, struct err *e)
{
    size_t n = strlen(path);
    while (n && path[n - 1] != '/' && path[n - 1] != '\\')
        n--;
    if (n + 1 > cap || n + 8 > 4096)
        return err_set(e, ERR_USER, "--report: the path is too long: %.200s", path);
    memcpy(out, path, n);
    out[n] = 0;
    while (n > 1 && (out[n - 1] == '/' || out[n - 1] == '\\'))
        out[--n] = 0;
    if (n == 0)
        memcpy(out, ".", 2);
    return true;
}

/* A page of gsq says so in its head. */
static bool is_report(const char *path)
{
    char head[4096];
    FILE *f = os_fopen(path, "rb");
    size_t n = f ? fread(head, 1, sizeof head - 1, f) : 0;
    if (f)
        fclose(f);
    head[n] = 0;
    return strstr(head, GENERATOR) != NULL;
}

bool report_html_check(const char *path, const char *out_dir, bool dry_run, bool force, struct err *e)
{
    char folder[4096];
    struct os_out probe;
    if (os_stat(path, NULL) == OS_DIR) {
        err_set(e, ERR_USER, "--report %s is a folder", path);
        return err_hint(e, "give the name of a file, for example %s/report.html", path);
    }
    if (!folder_of(path, folder, sizeof folder, e))
        return false;
    /* No file of a model is called so. */
    if (out_dir && out_same(folder, out_dir) && !str_ends_nocase(path, ".html") && !str_ends_nocase(path, ".htm")) {
        err_set(e, ERR_USER, "--report %s lies in the folder of the result, which may have a file of that name", path);
        return err_hint(e, "give it a name that ends in .html, for example %s/report.html", folder);
    }
    if (os_stat(folder, NULL) != OS_DIR) {
        if (out_dir && out_same(folder, out_dir))
            return true;
        err_set(e, ERR_USER, "--report %s: there is no folder %s", path, folder);
        return err_hint(e, "create it first, or write the report elsewhere");
    }
    bool ok = out_file_check(path, e) &&
              (force || os_stat(path, NULL) != OS_FILE || is_report(path) || out_foreign(path, e)) &&
              (dry_run || os_out_open(&probe, path, e)); /* what the writer will do */
    if (!ok)
        return err_context(e, "--report");
    if (!dry_run)
        os_out_abort(&probe);
    return true;
}

uint64_t report_html_bytes(uint32_t blocks)
{
    return (64 + 16ull * blocks) << 10; /* measured: 35 KiB, and 10 more a block */
}

bool report_html_lock(struct os_lock *l, const char *path, const char *out_dir, bool *made_dir, struct err *e)
{
    char folder[4096];
    *made_dir = false;
    if (!folder_of(path, folder, sizeof folder, e))
        return false;
    if (out_dir && os_stat(folder, NULL) == OS_ABSENT && out_same(folder, out_dir)) {
        if (!os_mkdirs(out_dir, e))
            return false;
        *made_dir = true;
    }
    return out_lock_file(l, path, e) || err_context(e, "--report");
}

bool report_html_write(const char *path, const struct report_input *in, struct err *e)
{
    struct strbuf b = {0};
    strbuf_add(&b, report_page, report_page_run);
    bool ok = report_json(&b, in, e);
    strbuf_add(&b, report_page + report_page_run, report_page_size - report_page_run);
    ok = ok && (!b.failed || err_nomem(e, "the report", b.size));
    ok = ok && os_write_file(path, b.data, b.size, e);
    strbuf_free(&b);
    return ok;
}
