/* What one rank has on its device, to the devices of all (comm.h). */
#ifndef GPU_SHARE_H
#define GPU_SHARE_H

#include "host/base/comm.h"
#include "host/gpu/gpu_cmd.h"

/* v of that rank becomes v of all, by way of room (v.size bytes of host memory). All come with views of one size. */
bool gpu_share(enum comm_kind kind, struct gpu_cmd *cmd, struct gpu_view v, unsigned rank, void *room, struct err *e);

#endif
