/* The factor that GPTQ needs of a Hessian's inverse. */
#ifndef QUANT_CHOLESKY_H
#define QUANT_CHOLESKY_H

#include "host/gpu/gpu_cmd.h"

/* H^-1 = U^T U, U upper. On entry the lower triangle of r[n, n] (row stride n) is that of the flipped Hessian, damping
 * added: r[i, j] = H[n-1-i, n-1-j]. On exit it is R = U^T; what is above is undefined before and after. Scratch: about
 * (512 + 2 * 64) * 4 * n bytes, given back before return; the function waits for the device. *ok is false where a pivot was
 * not positive or not finite (the caller raises the damping and refills r); false is returned for device errors only. */
bool cholesky_inverse_factor(struct gpu_cmd *cmd, struct gpu_arena *scratch, struct gpu_view r, uint32_t n, bool *ok,
                             struct err *e);

#endif
