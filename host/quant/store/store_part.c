#include "host/quant/store/store_part.h"

#include <stdio.h>

#include "host/base/num.h"

uint32_t store_part_of(const struct matrix *item)
{
    if (!item->part || !block_part_is_expert(item->part))
        return 0;
    uint64_t weights = (uint64_t)item->rows * item->cols * EXPERT_MATRICES; /* gate, up and down are of one size */
    return 1 + item->expert / (uint32_t)max_u64(1, min_u64(PART_EXPERTS, PART_WEIGHTS / weights));
}

uint32_t store_parts(struct block_items b)
{
    return b.n ? 1 + store_part_of(&b.items[b.n - 1]) : 1;
}

struct block_items store_part(struct block_items b, uint32_t part)
{
    uint32_t first = 0;
    while (first < b.n && store_part_of(&b.items[first]) < part)
        first++;
    struct block_items of = {b.items + first, 0};
    while (first + of.n < b.n && store_part_of(&of.items[of.n]) == part)
        of.n++;
    return of;
}

bool store_part_has_file(struct block_items part)
{
    bool any = !part.n || store_part_of(&part.items[0]) == 0;
    for (uint32_t i = 0; !any && i < part.n; i++)
        any = part.items[i].coded;
    return any;
}

uint32_t store_files(struct block_items b)
{
    uint32_t files = 0;
    for (uint32_t part = 0, n = store_parts(b); part < n; part++)
        files += store_part_has_file(store_part(b, part));
    return files;
}

const char *store_part_name(uint32_t layer, uint32_t part, char out[PART_NAME_CAP])
{
    if (part)
        snprintf(out, PART_NAME_CAP, "block-%04u-part-%04u.safetensors", layer, part);
    else
        snprintf(out, PART_NAME_CAP, "block-%04u.safetensors", layer);
    return out;
}
