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
    bool split = x->part && x->part->role == ROLE_KV_B; /* and turned in part: its rows are none of a file's */
    x->blocks = split ? NULL : w.blocks;
    x->type = x->wanted = w.stored ? gguf_type_named(w.stored) : NULL;
    x->coded = w.quantized;
    x->spec = w.spec;
    return true;
}

static bool read_all(const struct checkpoint *c, const struct model_shape *s, struct matrix *x, struct err *e)
{
    const struct model_config *config = checkpoint_config(c);
    bool tied = config->tie_word_embeddings;
    x->embedding = true;
    x->head = tied;
    snprintf(x->module, sizeof x->module, "%s", checkpoint_embedding_module(c));
    if (!checkpoint_matrix(c, x++, e))
        return false;
    for (uint32_t layer = 0; layer < s->layers; layer++)
        for (uint32_t i = s->first[layer]; i < s->first[layer + 1]; i++, x++) {
            const struct block_matrix *of = &s->matrices[i];
            x->part = of->part;
            x->layer = layer;
            x->expert = of->expert;
            x->place = i - s->first[layer];
            x->number = i;
            x->pieces = of->pieces;
            block_matrix_name(config, of, layer, x->module, sizeof x->module);
            if (!checkpoint_matrix(c, x, e))
                return false;
        }
    if (!tied) {
        x->head = true;
        snprintf(x->module, sizeof x->module, "%s", checkpoint_head_module(c));
        return checkpoint_matrix(c, x, e);
    }
    return true;
}

bool checkpoint_matrices(const struct checkpoint *c, struct matrix **out, size_t *n, struct err *e)
{
    const struct model_config *config = checkpoint_config(c);
    struct model_shape shape;
    *out = NULL;
    bool ok = model_shape_make(&shape, config, e);
    if (ok) {
        *n = 2u - config->tie_word_embeddings + shape.first[shape.layers];
        *out = calloc(*n + 1, sizeof **out);
        ok = (*out || err_nomem(e, "the list of weights", *n * sizeof **out)) && read_all(c, &shape, *out, e);
    }
    model_shape_free(&shape);
    if (ok)
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
