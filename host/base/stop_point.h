/* Named points of a run's life, where a test stops it.
 *
 * GSQ_STOP_AT=HOW:POINT[:WHICH] names one. HOW is "stop", which asks for the stop that Ctrl-C asks for, or "kill", which
 * ends the process there as kill -9 does. WHICH is the how-manieth passing (default 1), or what the point is of: the name
 * of a file. Without the variable a point costs a look at a flag. The points:
 *
 *     trial      a variant of a kernel is tried, "KERNEL.VARIANT" (lib/choose.h)
 *     check      while the weights are read and checked
 *     manifest   the work folder has its manifest, and no block of this run
 *     outputs    a layer's Hessians of outputs are found, and not written
 *     linear     a linear is quantized
 *     step       a step of a half's training
 *     half       a half is trained
 *     block      a block's file is written, or one of them
 *     scales     a step of the pass over scales
 *     epoch      an epoch of it is written
 *     export     before the result
 *     tensor     bytes of the result are written
 *     rename     a file, of that name, is written and flushed, and does not have its name yet: the last one of a folder is
 *                config.json
 *     finished   the result is there, and the work folder too
 *     remove     a file of the work folder is removed */
#ifndef BASE_STOP_POINT_H
#define BASE_STOP_POINT_H

/* of: may be NULL. Any thread's, once the main one has passed a point. */
void stop_point(const char *point, const char *of);

#endif
