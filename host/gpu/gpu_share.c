#include "host/gpu/gpu_share.h"

bool gpu_share(enum comm_kind kind, struct gpu_cmd *cmd, struct gpu_view v, unsigned rank, void *room, struct err *e)
{
    const bool mine = rank == comm_rank();
    if ((mine && !gpu_download(cmd, v, room, v.size, e)) || !comm_broadcast(kind, room, v.size, rank, e))
        return false;
    if (!mine)
        gpu_upload(cmd, v, room, v.size);
    return true;
}
