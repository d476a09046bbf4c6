/* The 2-D weights of a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/read/matrix.h"
#include "formats/read/checkpoint_in.h"

const char *matrix_kind(const struct matrix *x)
{
    const char *dot = strrchr(x->module, '.');
    return dot ? dot + 1 : x->module;
}

bool checkpoint_matrix(const struct checkpoint *c, struct matrix *x, struct err *e)
{
    struct weight_info w;
    if (!checkpoint_weight(c, x->module, &w, e))
        return false;
    x->bytes = w.bytes;
    x->rows = w.rows;
    x->cols = w.cols;
    x->stored = w.stored;
    x->type = x->wanted = w.stored ? gguf_type_named(w.stored) : NULL;
    x->coded = w.quantized;
    x->spec = w.spec;
    return true;
}

static bool read_all(const struct checkpoint *c, struct matrix *x, struct err *e)
{
    const struct model_config *config = checkpoint_config(c);
    struct block_matrix of;
    uint32_t number = 0;
    bool tied = config->tie_word_embeddings;
    x->embedding = true;
    x->head = tied;
    snprintf(x->module, sizeof x->module, "%s", checkpoint_embedding_module(c));
    if (!checkpoint_matrix(c, x++, e))
        return false;
    for (uint32_t layer = 0; layer < config->num_layers; layer++)
        for (uint32_t place = 0; block_matrix(config, layer, place, &of); place++, x++) {
            x->part = of.part;
            x->layer = layer;
            x->place = place;
            x->number = number++;
            block_part_name(config, x->part, layer, x->module, sizeof x->module);
            if (!checkpoint_matrix(c, x, e))
                return false;
        }
    if (tied)
        return true;
    x->head = true;
    snprintf(x->module, sizeof x->module, "%s", checkpoint_head_module(c));
    return checkpoint_matrix(c, x, e);
}

bool checkpoint_matrices(const struct checkpoint *c, struct matrix **out, size_t *n, struct err *e)
{
    const struct model_config *config = checkpoint_config(c);
    *n = 2 - config->tie_word_embeddings;
    for (uint32_t layer = 0; layer < config->num_layers; layer++)
        *n += block_matrices(config, layer);
    *out = calloc(*n + 1, sizeof **out);
    if (!*out)
        return err_nomem(e, "the list of weights", *n * sizeof **out);
    if (read_all(c, *out, e))
        return true;
    free(*out);
    *out = NULL;
    *n = 0;
    return false;
}

struct block_items block_items_of(const struct matrix *items, size_t n, uint32_t layer)
{
    size_t first = 0, end = n;
    while (first < end) { /* the first item that is not of an earlier layer */
        size_t half = first + (end - first) / 2;
        if (items[half].layer < layer)
            first = half + 1;
        else
            end = half;
    }
    while (end < n && items[end].layer == layer)
        end++;
    return (struct block_items){items + first, (uint32_t)(end - first)};
}
