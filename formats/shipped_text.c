#include "formats/shipped_text.h"

#include <stdio.h>
#include <string.h>

#include "host/base/os.h"

#ifndef GSQ_DATA_DIR
#define GSQ_DATA_DIR "/usr/local/share/gsq"
#endif

bool shipped_text_meant(const char *name)
{
    return name && strcmp(name, SHIPPED_TEXT) == 0;
}

static bool found(char *buf, size_t cap, const char *folder, const char *below)
{
    int n = snprintf(buf, cap, "%s%s/%s", folder, below, SHIPPED_TEXT_FILE);
    return n > 0 && (size_t)n < cap && os_stat(buf, NULL) == OS_FILE;
}

static bool in_data(char *buf, size_t cap, const char *data, struct err *e)
{
    if (found(buf, cap, data, ""))
        return true;
    err_set(e, ERR_USER, "GSQ_DATA is %s, which has no %s", data, SHIPPED_TEXT_FILE);
    return err_hint(
        e, "unset GSQ_DATA, set it to the folder share/gsq of an installed gsq, or give a text with --calib FILE");
}

bool shipped_text_path(const char **path, char *buf, size_t cap, const char *name, struct err *e)
{
    static const char *const above[] = {"/share/gsq", "/../share/gsq", "/../../share/gsq"};
    static const char *const installed[] = {GSQ_DATA_DIR, "/usr/local/share/gsq", "/usr/share/gsq"};
    char self[4096], dir[4096];
    const char *data = os_getenv("GSQ_DATA");
    *path = name;
    if (!shipped_text_meant(name))
        return true;
    *path = buf;
    if (data && *data)
        return in_data(buf, cap, data, e);
    bool known = os_self_path(self, sizeof self);
    if (known)
        os_path_split(self, dir, sizeof dir);
    for (size_t i = 0; known && i < sizeof above / sizeof *above; i++)
        if (found(buf, cap, dir, above[i]))
            return true;
    for (size_t i = 0; i < sizeof installed / sizeof *installed; i++)
        if (found(buf, cap, installed[i], ""))
            return true;
    err_set(e, ERR_ENV,
            "the calibration text that comes with gsq is missing: no share/gsq/%s beside %s or above it, nor %s/%s",
            SHIPPED_TEXT_FILE, known ? self : "the program", GSQ_DATA_DIR, SHIPPED_TEXT_FILE);
    return err_hint(e, "install all of gsq (its package, or cmake --install), set GSQ_DATA to the folder with that "
                       "file, or give a text "
                       "with --calib FILE");
}
