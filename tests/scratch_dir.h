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

#endif
