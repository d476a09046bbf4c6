/* A complete Hugging Face folder in one of the export formats, from codes and scales. */
#ifndef FORMATS_WRITE_HF_H
#define FORMATS_WRITE_HF_H

#include "formats/write/export.h"

enum export_verdict { EXPORT_OK, EXPORT_WARN, EXPORT_REFUSED };
/* Whether the format can hold such a linear, and in `why` a sentence (a refusal, "; " and the remedy of who quantizes; or a
 * warning that names who will not load it). container: 0, or the bits of the storage container (--container 4, compressed-tensors). */
enum export_verdict export_check(enum export_format f, const struct matrix *x, unsigned container, char *why,
                                 size_t cap);
/* The scale type a run should round to: fp16 for GPTQ; the model's 16-bit dtype elsewhere (F32 models: fp16). */
enum scale_type export_scale_type(enum export_format f, const struct checkpoint *src);

/* The largest number that is stored with a scale, as a multiple of it: MLX stores each group's lowest level too. */
float export_scale_levels(enum export_format f, const struct quant_spec *spec);

/* export.h's plan of a folder. Of the list the coded ones are stored quantized; every other tensor of the source is copied in
 * 16 bits. src may itself be quantized (convert): its codes are then re-packed. */
struct hf_plan;
bool hf_plan_make(struct hf_plan **out, const struct checkpoint *src, const struct matrix *list, size_t n,
                  const struct export_options *o, struct err *e);
uint64_t hf_plan_bytes(const struct hf_plan *p);
/* Everything below out_dir (created; an earlier export of ours is replaced): shards with an index where needed, config.json
 * with quantization_config (quantize_config.json too for gptq), tokenizer and generation files carried over. config.json comes
 * last. Nothing depends on time or addresses. */
bool hf_plan_write(const struct hf_plan *p, const char *out_dir, const struct export_source *source, struct err *e);
void hf_plan_free(struct hf_plan **p);
bool hf_check_out(const char *out_dir, const struct checkpoint *src, bool force, struct err *e);
/* The run that a complete folder is of, by export_options.run; false: none, or not complete. */
bool export_run(const char *out_dir, char run[33]);

#endif
