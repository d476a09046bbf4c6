/* Memory limits of containers. Facts: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/os_parts.h"

/* The number in a file; UINT64_MAX: "max", no such file. */
static uint64_t read_number(const char *folder, const char *name)
{
    char path[4096], text[64] = "";
    if (!os_path_join(path, sizeof path, folder, name, NULL))
        return UINT64_MAX;
    FILE *f = os_fopen(path, "r");
    if (!f)
        return UINT64_MAX;
    bool ok = fgets(text, sizeof text, f) != NULL && text[0] >= '0' && text[0] <= '9';
    fclose(f);
    return ok ? strtoull(text, NULL, 10) : UINT64_MAX;
}

/* A "name 123" line of memory.stat; 0 where there is none. */
static uint64_t read_stat(const char *folder, const char *name)
{
    char path[4096], line[128];
    size_t n = strlen(name);
    uint64_t value = 0;
    FILE *f = os_path_join(path, sizeof path, folder, "memory.stat", NULL) ? os_fopen(path, "r") : NULL;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, n) == 0 && line[n] == ' ')
            value = strtoull(line + n + 1, NULL, 10);
    if (f)
        fclose(f);
    return value;
}

struct version {
    const char *mount, *limit, *used, *droppable;
};

/* The group's folder and those above it up to the mount. In a container the path may be one of the host's, which is not
 * there: what is mounted is the container's own group then. */
static void walk(const char *root, const char *path, const struct version *v, uint64_t *limit, uint64_t *used)
{
    char folder[4096];
    int n = snprintf(folder, sizeof folder, "%s%s", root, v->mount);
    if (n < 0 || (size_t)n + strlen(path) + 1 > sizeof folder)
        return;
    size_t base = (size_t)n;
    snprintf(folder + base, sizeof folder - base, "%s", path);
    for (;;) {
        uint64_t most = read_number(folder, v->limit);
        if (most < *limit) {
            uint64_t now = read_number(folder, v->used), files = read_stat(folder, v->droppable);
            *limit = most;
            *used = now == UINT64_MAX ? 0 : now > files ? now - files : 0;
        }
        char *slash = strrchr(folder + base, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

void os_cgroup_memory(const char *self, const char *root, uint64_t *limit, uint64_t *used)
{
    static const struct version v1 = {"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                      "total_inactive_file"};
    static const struct version v2 = {"", "memory.max", "memory.current", "inactive_file"};
    static const struct version hybrid = {"/unified", "memory.max", "memory.current", "inactive_file"};
    char line[4096];
    *limit = UINT64_MAX;
    *used = 0;
    FILE *f = os_fopen(self, "r");
    while (f && fgets(line, sizeof line, f)) {
        /* ID:CONTROLLERS:PATH */
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        names++;
        path[strcspn(path, "\n")] = 0;
        if (!names[0]) {
            walk(root, path, &v2, limit, used);
            walk(root, path, &hybrid, limit, used);
        } else if (strcmp(names, "memory") == 0) {
            walk(root, path, &v1, limit, used);
        }
    }
    if (f)
        fclose(f);
}
