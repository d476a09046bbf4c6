/* gsq convert: a model in another format, never requantized: codes stay codes, or become the values they
 * stand for. */
#ifndef QUANT_CONVERT_H
#define QUANT_CONVERT_H

#include "formats/write/export.h"
#include "host/base/progress.h"

struct convert_options {
    enum export_format format;
    unsigned container; /* 0: as many bits as the codes have */
    bool force;         /* write over an output that gsq did not write */
    const char *type;   /* of a GGUF's weights: "F16" ...; NULL: codes stay codes, the others keep their type */
    const struct gguf_override *overrides; /* of a GGUF's metadata (write_gguf.h) */
    size_t n_overrides;
    uint64_t *size; /* of a GGUF: not NULL, the file is not written, only its bytes are counted */
};

/* `out` is a folder, or a file for EXPORT_GGUF. ERR_USER where the format cannot hold the codes exactly. */
bool convert_run(const char *in, const char *out, const struct convert_options *o, const struct progress *progress,
                 struct err *e);

/* ---- inside convert ---- */

/* One kind of work, whose speed shows as it goes. unit: what done / 1e6 counts, for people; NULL: nothing. */
struct convert_clock {
    struct eta eta;
    struct progress_watch watch;
};
void convert_begin(struct convert_clock *c, const struct progress *p);
bool convert_tell(struct convert_clock *c, uint64_t done, uint64_t total, const char *unit);
/* EXPORT_GGUF (convert_gguf.c). */
bool convert_to_gguf(const struct checkpoint *ck, const char *out, const struct convert_options *o,
                     const struct progress *progress, struct err *e);

#endif
