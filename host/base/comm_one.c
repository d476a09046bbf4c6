#if !defined(GSQ_MPI)
/* One process: nothing is sent, and all agree. */
#include <stdlib.h>
#include <string.h>

#include "host/base/comm.h"

/* Started by the launcher of an MPI, each process would make the whole, under one name. */
bool comm_start(int *argc, char ***argv, struct err *e)
{
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    (void)argc, (void)argv;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *size = getenv(sizes[i]);
        if (!size || atoi(size) < 2)
            continue;
        err_set(e, ERR_USER, "this gsq is built for one process, and was started as %d by MPI", atoi(size));
        return err_hint(e, "start it alone, or build it with -DGSQ_MPI=ON (cmake --preset mpi)");
    }
    return true;
}

void comm_end(void)
{
}

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

struct comm_traffic comm_traffic(void)
{
    return (struct comm_traffic){0};
}
#endif
