/* Inside the store: store.c (the manifest, blocks), store_scales.c (what is made from all blocks), store_output.c (what is there before
 * a block). */
#ifndef QUANT_STORE_INTERNAL_H
#define QUANT_STORE_INTERNAL_H

#include "host/quant/store/record_text.h"
#include "host/quant/store/store.h"
#include "host/quant/store/store_linear.h"

/* What is known of a part's file in this run. */
struct seen {
    enum {
        UNSEEN,
        WHOLE,
        DAMAGED,
        IN_FIRST, /* the file of part 0 has it too */
        EMPTY     /* it has no file, and needs none */
    } state;
    struct hash128 data; /* of its tensors, without the reports; where WHOLE */
};
struct seen_block {
    struct seen *parts; /* [n] */
    uint32_t n;
};

struct store {
    char dir[3072];
    struct manifest *manifest;
    char run[33];              /* hash of the run, in every file */
    struct safetensors *block; /* the part read last */
    uint32_t layer, part;
    struct seen_block *seen; /* [n_seen], by layer */
    uint32_t n_seen;
    struct safetensors *scales;  /* the last pass over scales, if there was one; its checksum is right */
    bool scales_done;            /* and goes with the blocks, and is done */
    const struct plan *plan;     /* of store_for_scales */
    struct safetensors *outputs; /* Hessians of outputs, of this layer */
    uint32_t outputs_layer;
};

/* What names of files with Hessians of outputs begin with. */
#define STORE_OUTPUT "outputs-"
/* Tokens that the model wrote. */
#define STORE_SAMPLED "sampled.safetensors"

/* A file of the work folder. */
bool store_path(const struct store *s, const char *name, char *out, size_t cap, struct err *e);
/* A file whose checksum is right. run: of which it must be; NULL: any. data: hash of its tensors; may be
 * NULL. */
bool store_open_whole(struct safetensors **out, const char *path, const char *run, struct hash128 *data, struct err *e);
/* What every file begins with: checksum and run. */
enum { STORE_OWN_FACTS = 2 };
void store_own_facts(const struct store *s, const char *(*metadata)[2]);
/* Hash of all blocks' codes and scales, in hex; false where one is not whole. */
bool store_hash_blocks(struct store *s, const struct plan *p, char hex[33], struct err *e);
/* Opens scales.safetensors, if it is there and whole. */
void store_open_scales(struct store *s);
/* A part of what is kept of an item's scales (scales_task.h). */
bool store_read_scales_part(struct store *s, const struct matrix *item, enum scales_part part, float *out,
                            struct err *e);

#endif
