/* What makes two runs the same run: everything that can change a byte of the result, as names and values. */
#ifndef QUANT_IDENTITY_H
#define QUANT_IDENTITY_H

#include "host/model/calib.h"
#include "host/quant/plan.h"
#include "host/quant/store.h"

#define IDENTITY_FIELDS 16
struct identity {
    struct store_field fields[IDENTITY_FIELDS];
    char values[IDENTITY_FIELDS][512];
    size_t n;
};
/* Fields: gsq version, model, calibration, method, each linear's type, learning options, seed, device,
 * kernels. The export format is not among them (but its scale type is), so that one run's blocks can be
 * exported again. */
bool identity_make(struct identity *id, const struct quantize_options *o, const struct checkpoint *ck,
                   struct gpu_cmd *cmd, const struct plan *p, const struct windows *w, struct err *e);

#endif
