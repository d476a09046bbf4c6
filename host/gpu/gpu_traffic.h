/* Bytes of device memory and floating-point operations of a dispatch, by its arguments: what it must at least move, each
 * operand once, and not what a cache may have to fetch again. */
#ifndef GPU_TRAFFIC_H
#define GPU_TRAFFIC_H

#include "host/gpu/gpu_cmd.h"

struct gpu_traffic {
    double calls;
    double flop;          /* of products and attention, 2 for a multiply-add; of others some for each element */
    double read, written; /* bytes */
};
/* "gemm" ... "fill", "copy": by the numbers of gpu_cmd_watch. */
const char *gpu_traffic_name(unsigned kind);
/* For gpu_cmd_watch; ctx: struct gpu_traffic [GPU_RECORD_KINDS], which it is added to. */
gpu_watch_fn gpu_traffic_watch;
/* The same of kernels alone, all together, by whose work it is; ctx: struct gpu_traffic [GPU_PARTS]. */
gpu_watch_fn gpu_traffic_watch_parts;

#endif
