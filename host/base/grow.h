/* Arrays that grow by one item at a time. */
#ifndef BASE_GROW_H
#define BASE_GROW_H

#include <stdlib.h>

#include "host/base/err.h"

/* The array with room for one more than n items of `size` bytes, perhaps moved: its room doubles. NULL when out of memory;
 * the array then stays as it is. what: "token ids", for the message. */
static inline void *grow(void *items, size_t *cap, size_t n, size_t size, const char *what, struct err *e)
{
    if (n < *cap)
        return items;
    size_t more = *cap ? 2 * *cap : 64;
    void *grown = realloc(items, more * size);
    if (grown)
        *cap = more;
    else
        err_nomem(e, what, (unsigned long long)more * size);
    return grown;
}

#endif
