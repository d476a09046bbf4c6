#include "host/base/stop_point.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/log.h"
#include "host/base/os.h"

static struct {
    bool looked, wanted, kill;
    char point[32], which[128];
    unsigned long passing; /* 0: which is a name */
    atomic_ulong passed;
} at;

static void look(void)
{
    const char *text = os_getenv("GSQ_STOP_AT");
    char how[8];
    at.looked = true;
    if (!text)
        return;
    int n = sscanf(text, "%7[^:]:%31[^:]:%127s", how, at.point, at.which);
    at.kill = n >= 2 && strcmp(how, "kill") == 0;
    at.wanted = at.kill || (n >= 2 && strcmp(how, "stop") == 0);
    char *end = at.which;
    at.passing = n == 3 ? strtoul(at.which, &end, 10) : 1;
    if (*end)
        at.passing = 0;
}

void stop_point(const char *point, const char *of)
{
    if (!at.looked)
        look();
    if (!at.wanted || strcmp(point, at.point) != 0)
        return;
    if (at.passing ? atomic_fetch_add(&at.passed, 1) + 1 != at.passing : !of || strcmp(of, at.which) != 0)
        return;
    log_warn("GSQ_STOP_AT: %s %s", point, at.which);
    if (at.kill)
        os_kill_self();
    os_request_stop();
}
