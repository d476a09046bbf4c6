/* A process that this program starts: itself again. */
#ifndef BASE_OS_CHILD_H
#define BASE_OS_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

/* Zero-initialise. */
struct os_child {
    intptr_t process, in, out;
};
/* This program with the command line that it was started with (argv) and this environment. Its standard input is a pipe that ends when
 * os_child_end is called or this process ends, however that comes; its standard output is read by os_child_read; messages go nowhere. */
bool os_child_start(struct os_child *c, char **argv, struct err *e);
/* Waits for bytes of its output; 0: there are no more. */
size_t os_child_read(struct os_child *c, char *to, size_t cap);
/* Its standard input ends. */
void os_child_end(struct os_child *c);
/* Waits for its end: what it exits with, or 128 and the number of the signal that killed it. */
int os_child_wait(struct os_child *c);
/* In such a process: when standard input ends, os_request_stop. */
bool os_child_obey(struct err *e);

#endif
