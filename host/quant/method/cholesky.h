/* The factor that GPTQ needs of a Hessian's inverse. */
#ifndef QUANT_CHOLESKY_H
#define QUANT_CHOLESKY_H

#include "host/gpu/gpu_cmd.h"

/* H^-1 = U^T U, U upper. On entry h[n, n] (row stride n) is the symmetric Hessian with damping already added;
 * on exit r[n, n] holds R = U^T (lower triangular, zeros above). h is overwritten. Scratch: about 2 * 256 * n
 * bytes, given back before return; the function waits for the device. *ok is false where a pivot was not
 * positive or not finite (the caller raises the damping and refills h); false is returned for device errors
 * only. */
bool cholesky_inverse_factor(struct gpu_cmd *cmd, struct gpu_arena *scratch, struct gpu_view h, struct gpu_view r,
                             uint32_t n, bool *ok, struct err *e);

#endif
