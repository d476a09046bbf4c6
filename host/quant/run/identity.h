/* What makes two runs the same run: everything that can change a byte of the result, as names and values. */
#ifndef QUANT_IDENTITY_H
#define QUANT_IDENTITY_H

#include "formats/read/checkpoint_sum.h"
#include "host/model/windows.h"
#include "host/quant/plan.h"
#include "host/quant/store/store.h"

/* The method's revision: raised by hand with every change by which the same command gives other bytes (a constant, an order
 * of sums, a rule of rounding in host/quant or host/model); shaders are seen by the field "kernels". The version is a field too,
 * so that no run goes on with other code in silence. Most versions change no byte of a result: the refusal says how to go on
 * where only that differs. The revision says that bytes do change, and is part of the hash by which a finished output is known;
 * the version is not, because the same command would make the same file again. */
#define METHOD_REVISION 4
/* The same of what only experts that learn from a text have: other results keep their name, and are recognized. */
#define EXPERTS_REVISION 4
/* The same of what Hessians of outputs alone change. */
#define OUTPUTS_REVISION 2

#define IDENTITY_FIELDS 25
struct identity {
    struct store_field fields[IDENTITY_FIELDS];
    char values[IDENTITY_FIELDS][512];
    size_t n;
};
/* Fields: version, the method's revision, model, other files of it, calibration, method, each linear's type, learning options, seed,
 * device, driver, kernels, how many windows are taken at a time. The export format is not among them (but its scale type
 * is), so that one run's blocks can be exported again. model, refined (NULL: none): complete sums. */
bool identity_make(struct identity *id, const struct quantize_options *o, const struct checkpoint_sums *model,
                   const struct checkpoint_sums *refined, struct gpu_cmd *cmd, const struct plan *p,
                   const struct windows *w, struct err *e);
/* Hash of what the output is: the fields, without where and by which build it was computed, and the export's
 * options. */
void identity_result(const struct identity *id, const struct quantize_options *o, const struct plan *p, char hex[33]);
/* The field with the kernel variants: a hash of all that are used, and the names of those that were chosen by measurement. */
#define IDENTITY_KERNELS "kernels"
/* A resumed run keeps the variants that it began with (the value of that field), whatever was measured since. With a variant
 * by name that one is kept. ERR_USER, with nothing changed, where one of them is not there any more or the device cannot run it:
 * the field will differ. */
bool identity_take_up_kernels(struct gpu *g, const char *value, struct err *e);
/* How many windows are taken at a time follows from the free memory and changes the order of sums. A resumed run keeps
 * the numbers it began with (the value of its field "memory") if that many fit now; otherwise the plan stays as it is,
  * and the field will differ. */
void identity_take_up_memory(struct plan *p, const char *value);
/* The values of these fields: IDENTITY_KERNELS, a hash, and after a space the names of what was chosen by measurement; and "memory". */
void identity_kernels(struct gpu *g, char *out, size_t cap);
void identity_memory(const struct plan *p, char *out, size_t cap);

#endif
