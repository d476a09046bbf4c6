/* What a refined file cannot say of itself, being another's but for its codes: that gsq wrote it, and in which run. Kept in
 * the user's cache folder, under a hash of the file's bytes. */
#ifndef QUANT_REFINE_RECORD_H
#define QUANT_REFINE_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "host/base/num.h"

/* Nothing happens where there is no such folder: the file is then a stranger's. */
void refine_record(uint64_t size, struct hash128 bytes, const char run[33]);
/* The run that refined the file at PATH; false: none that is known. Reads the file where one of its size is. */
bool refine_recorded(const char *path, char run[33]);

#endif
