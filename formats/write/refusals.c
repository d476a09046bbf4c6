#include "formats/write/refusals.h"

#include <stdio.h>
#include <string.h>

void refusals_add(struct refusals *r, const struct block_part *part, const char *why)
{
    if (!r->linears++)
        snprintf(r->first, sizeof r->first, "%s", why);
    if (r->of[part->role])
        return;
    r->of[part->role] = true;
    size_t at = strlen(r->names);
    snprintf(r->names + at, sizeof r->names - at, "%s%s", r->kinds++ ? "|" : "", block_part_short_name(part));
}

bool refusals_none(const struct refusals *r, enum export_format f, struct err *e)
{
    if (!r->linears)
        return true;
    if (r->kinds == 1)
        return err_set(e, ERR_USER, "%s", r->first);
    return err_set(e, ERR_USER, "%s cannot hold %u linears of %u kinds; the first: %s", export_format_name(f),
                   r->linears, r->kinds, r->first);
}
