/* Kernel variants by measurement: candidates (TUNE in shaders/variants.cmake) are tried at the first use of a device, and what
 * was measured is kept in a file of the user's cache folder, for this device, driver and set of shaders.
 *
 * "trying KERNEL.VARIANT" is in the file before a trial and gone after it: where the driver dies in between, whatever way, the
 * next start finds it there and never tries that variant again. A lock on a file beside it tells a process that died from one
 * that is at work. A folder that cannot be written is no error: then nothing is remembered. */
#ifndef LIB_CHOOSE_H
#define LIB_CHOOSE_H

#include "lib/choice.h"
#include "lib/gsq.h"

enum choose_how {
    CHOOSE_REMEMBERED, /* what is known; nothing is tried */
    CHOOSE_MEASURED,   /* what is not known is tried */
    CHOOSE_AGAIN,      /* all is tried, also what was excluded */
};

/* Makes the device use what is chosen. Nothing happens where nothing is to be chosen: CPU devices, and a variant by name. */
bool lib_choose(gsq_device *d, enum choose_how how, struct err *e);

#endif
