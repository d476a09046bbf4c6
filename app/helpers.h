/* `--device 0,1`: this process works on the first device, and starts itself again for each further one, to help it (--join). Such a helper
 * shows nothing; what ends it ends all, and so does a stop of any. One that is killed is gone, and the others go on. */
#ifndef APP_HELPERS_H
#define APP_HELPERS_H

#include "app/args.h"

enum { HELPERS_MOST = 15 };
struct helpers;
/* Right after args_parse, for any command: takes the list apart. In a helper the device becomes its own, and it joins; else the first of
 * the list, and *further is the rest of it, or NULL. ERR_USER where one device alone can be used. */
bool helpers_settle(struct args *a, const char **further, struct err *e);
/* When the run has begun. NULL: none. */
bool helpers_start(struct helpers **out, const struct args *a, const char *further, struct err *e);
/* Ends and waits for all. ok: what this process's run came to, with *e: false, with a helper's error, where that has stopped it. */
bool helpers_end(struct helpers **h, bool ok, struct err *e);

#endif
