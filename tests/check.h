/* CMocka, with the headers that it wants in front of it, and calls that have to work or to fail. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/base/err.h"

#define OK(call, e)                                                                                                    \
    do {                                                                                                               \
        if (!(call))                                                                                                   \
            fail_msg("%s: %s", #call, (e).msg);                                                                        \
    } while (0)
/* The call fails with this kind, the message holds `part`, and there is a remedy. */
#define FAILS(call, e, want, part)                                                                                     \
    do {                                                                                                               \
        (e) = (struct err){0};                                                                                         \
        assert_false(call);                                                                                            \
        if ((e).kind != (want) || !strstr((e).msg, part))                                                              \
            fail_msg("%s: kind %d, \"%s\" has no \"%s\"", #call, (int)(e).kind, (e).msg, part);                        \
    } while (0)

#endif
