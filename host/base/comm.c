#include "host/base/comm.h"

#include <stdlib.h>

#include "host/base/num.h"
#include "host/base/os.h"

struct comm_part comm_part(uint32_t n, uint32_t unit, unsigned rank)
{
    const uint64_t ranks = comm_size(), units = div_up(n, unit);
    return (struct comm_part){(uint32_t)min_u64(units * rank / ranks * unit, n),
                              (uint32_t)min_u64(units * (rank + UINT64_C(1)) / ranks * unit, n)};
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
