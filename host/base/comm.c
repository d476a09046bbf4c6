#include "host/base/comm.h"

#include "host/base/os.h"

struct comm_part comm_part(uint32_t n, unsigned rank)
{
    const uint64_t ranks = comm_size();
    return (struct comm_part){(uint32_t)(n * (uint64_t)rank / ranks), (uint32_t)(n * (rank + UINT64_C(1)) / ranks)};
}

uint64_t comm_memory_available(void)
{
    return os_memory_available() / comm_local_size();
}
