/* A complete Hugging Face folder, as it was planned. */
#ifndef FORMATS_WRITE_HF_H
#define FORMATS_WRITE_HF_H

#include "formats/write/export.h"

struct hf_plan;
/* Writes out_dir (created; an earlier export of gsq is replaced): shards with an index where needed, config.json
 * with quantization_config (quantize_config.json too for gptq), tokenizer and generation files carried over. config.json comes
 * last. Nothing depends on time or addresses. */
bool hf_plan_write(const struct hf_plan *p, const char *out_dir, const struct export_source *source, struct err *e);
bool hf_check_out(const char *out_dir, const struct checkpoint *src, bool force, struct err *e);
/* The run that wrote a complete folder (export_options.run); false: none, or not complete. */
bool export_run(const char *out_dir, char run[33]);

#endif
