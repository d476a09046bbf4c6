/* The folder DIR_, which the test program defines before it includes this: made for a test or a group, and
 * removed. */
#ifndef TESTS_SCRATCH_DIR_H
#define TESTS_SCRATCH_DIR_H

#include "host/base/os.h"
#include "tests/check.h"

static inline int make_dir(void **state)
{
    (void)state;
    return os_remove_tree(DIR_) && os_mkdirs(DIR_, NULL) ? 0 : -1;
}

static inline int remove_dir(void **state)
{
    (void)state;
    return os_remove_tree(DIR_) ? 0 : -1;
}

static inline bool is_whole_file(void *ctx, const char *name, struct err *e)
{
    (void)ctx;
    return !strstr(name, ".gsq-tmp") || err_set(e, ERR_BUG, "%s was left behind", name);
}

/* Whether every file in DIR_ has its final name. */
static inline bool only_whole_files(void)
{
    return os_list(DIR_, is_whole_file, NULL, NULL);
}

#endif
