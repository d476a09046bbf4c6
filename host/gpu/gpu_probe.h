/* The devices that there are, before one is opened. */
#ifndef GPU_PROBE_H
#define GPU_PROBE_H

#include "host/gpu/gpu_device_internal.h"

/* g->instance, and with `validate` what hears its messages. */
bool gpu_instance_create(struct gpu *g, bool validate, struct err *e);
/* All devices, in the loader's order. Free *out. */
bool gpu_probe_all(struct gpu *g, struct gpu_probe **out, uint32_t *n, struct err *e);
/* The best usable device whose number is `want` or whose name contains it; want NULL or "": any. Of several processes that this machine
 * shares (comm.h) each takes its own, by its number among them: of a list of numbers "0,1" that one; where none is named, of the best kind
 * of device in the order of the PCI bus, and of the loader where that is not told. There may be more processes than devices. */
const struct gpu_probe *gpu_probe_choose(const struct gpu_probe *p, uint32_t n, const char *want, unsigned process,
                                         unsigned processes, struct err *e);
/* Chains the structs of p->features; they lie in *p, which may have moved. */
void gpu_probe_features(struct gpu_probe *p);

#endif
