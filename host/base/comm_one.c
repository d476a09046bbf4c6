#if !defined(GSQ_MPI)
/* One process: nothing is sent, and all agree. */
#include <string.h>

#include "host/base/comm.h"

bool comm_start(int *argc, char ***argv, struct err *e)
{
    (void)argc, (void)argv;
    return comm_check_launch("this gsq is built for one process", e);
}

void comm_end(void) {}

unsigned comm_rank(void)
{
    return 0;
}

unsigned comm_size(void)
{
    return 1;
}

unsigned comm_local_rank(void)
{
    return 0;
}

unsigned comm_local_size(void)
{
    return 1;
}

bool comm_agree(bool ok, struct err *e)
{
    (void)e;
    return ok;
}

bool comm_broadcast(enum comm_kind kind, void *data, uint64_t bytes, unsigned root, struct err *e)
{
    (void)kind, (void)data, (void)bytes, (void)root, (void)e;
    return true;
}

bool comm_gather(enum comm_kind kind, void *data, uint32_t n, uint32_t unit, uint64_t bytes, struct err *e)
{
    (void)kind, (void)data, (void)n, (void)unit, (void)bytes, (void)e;
    return true;
}

bool comm_scatter(enum comm_kind kind, const void *data, uint32_t n, uint32_t unit, uint64_t bytes, unsigned have,
                  void *mine, struct err *e)
{
    (void)kind, (void)unit, (void)e;
    if (have)
        memcpy(mine, data, (size_t)(n * bytes));
    return true;
}
#endif
