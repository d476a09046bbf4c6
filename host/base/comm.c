#include "host/base/comm.h"

#include <stdlib.h>

#include "host/base/num.h"
#include "host/base/os.h"

const char *const comm_kind_names[COMM_KINDS] = {
    [COMM_SETTINGS] = "settings", [COMM_SCORES] = "scores",       [COMM_STATES] = "hidden states",
    [COMM_HESSIANS] = "Hessians", [COMM_GRADIENTS] = "gradients", [COMM_WEIGHTS] = "weights",
    [COMM_LOSSES] = "losses",     [COMM_CODES] = "codes",
};

static struct comm_bytes counted;

struct comm_bytes comm_counted(void)
{
    return counted;
}

void comm_count(enum comm_kind kind, uint64_t sent, uint64_t received)
{
    counted.sent[kind] += sent;
    counted.received[kind] += received;
}

struct comm_part comm_part(uint32_t n, uint32_t unit, unsigned rank)
{
    return comm_part_of(n, unit, rank, comm_size());
}

struct comm_part comm_part_of(uint32_t n, uint32_t unit, unsigned rank, unsigned all)
{
    const uint64_t ranks = all, units = div_up(n, unit);
    return (struct comm_part){(uint32_t)min_u64(units * rank / ranks * unit, n),
                              (uint32_t)min_u64(units * (rank + UINT64_C(1)) / ranks * unit, n)};
}

void comm_expect_broadcast(struct comm_expected *x, enum comm_kind kind, uint64_t bytes, unsigned root, uint64_t times)
{
    if (x->ranks == 1)
        return;
    if (x->rank == root)
        x->bytes.sent[kind] += times * bytes * (x->ranks - 1);
    else
        x->bytes.received[kind] += times * bytes;
    x->waits[kind] += times * bytes;
}

void comm_expect_gather(struct comm_expected *x, enum comm_kind kind, uint32_t n, uint32_t unit, uint64_t bytes,
                        uint64_t times)
{
    for (unsigned r = 0; r < x->ranks; r++) {
        const struct comm_part part = comm_part_of(n, unit, r, x->ranks);
        comm_expect_broadcast(x, kind, (part.end - part.first) * bytes, r, times);
    }
}

void comm_expect_scatter(struct comm_expected *x, enum comm_kind kind, uint32_t n, uint32_t unit, uint64_t bytes,
                         unsigned have, uint64_t times)
{
    const struct comm_part own = comm_part_of(n, unit, x->rank, x->ranks);
    uint64_t others = 0, most = 0;
    for (unsigned r = 0; r < x->ranks; r++) {
        const struct comm_part part = comm_part_of(n, unit, r, x->ranks);
        others += r == x->rank ? 0 : (part.end - part.first) * bytes;
        most = max_u64(most, (part.end - part.first) * bytes);
    }
    if (x->rank < have)
        x->bytes.sent[kind] += times * others;
    x->bytes.received[kind] += times * (own.end - own.first) * bytes * (have - (x->rank < have));
    x->waits[kind] += times * most * (x->ranks - 1);
}

uint64_t comm_memory_available(void)
{
    return os_memory_available() / comm_local_size();
}

/* Each of the processes would make the whole, under one name. */
bool comm_check_launch(const char *built, struct err *e)
{
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}; /* of Open MPI; of MPICH and MS-MPI */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *size = os_getenv(sizes[i]);
        const int launched = size ? atoi(size) : 1;
        if (launched <= 1 || (unsigned)launched == comm_size())
            continue;
        err_set(e, ERR_USER, "%s, and was started as %d by %s", built, launched, i ? "MPICH's launcher" : "Open MPI's");
        return err_hint(e, "start it by the mpirun of the MPI that it is built with (cmake --preset mpi), or alone");
    }
    return true;
}
