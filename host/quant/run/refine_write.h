/* Writes a refined file. */
#ifndef QUANT_REFINE_WRITE_H
#define QUANT_REFINE_WRITE_H

#include "formats/write/export.h"
#include "host/quant/plan.h"

/* The file again at PATH, with the codes of the linears that the plan, of the model `master`, does not keep. */
bool refine_write(const char *path, const struct checkpoint *file, const struct checkpoint *master,
                  const struct plan *p, const struct export_source *source, struct err *e);

#endif
