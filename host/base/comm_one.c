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

bool comm_broadcast(void *data, uint64_t bytes, unsigned root, struct err *e)
{
    (void)data, (void)bytes, (void)root, (void)e;
    return true;
}

bool comm_gather(void *data, const uint64_t *starts, struct err *e)
{
    (void)data, (void)starts, (void)e;
    return true;
}

bool comm_gather_each(const void *mine, uint64_t bytes, void *all, struct err *e)
{
    (void)e;
    memcpy(all, mine, (size_t)bytes);
    return true;
}

bool comm_scatter(const void *data, const uint64_t *starts, unsigned have, void *mine, uint64_t bytes, struct err *e)
{
    (void)starts, (void)e;
    if (have)
        memcpy(mine, data, (size_t)bytes);
    return true;
}

struct comm_traffic comm_traffic(void)
{
    return (struct comm_traffic){0};
}
#endif
