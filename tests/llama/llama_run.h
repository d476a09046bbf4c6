/* llama_run: llama.cpp's own libraries behind a few verbs, for tests and benchmarks. Every verb prints one
 * line of JSON (or the lines it names) on stdout and fails with a sentence on stderr. */
#ifndef LLAMA_RUN_H
#define LLAMA_RUN_H

#include <gguf.h>
#include <llama.h>

#include "host/base/err.h"

/* One, so that a run repeats bit for bit and does not wait for a core that others use. */
#define THREADS 1

/* A model on the CPU with room for one window of `window` tokens; window 0: its vocabulary only. Attention
 * and its cache are in F32: what a number then tells is the weights. */
struct session {
    struct llama_model *model;
    struct llama_context *ctx;
    const struct llama_vocab *vocab;
    int32_t n_vocab;
    uint32_t window;
    struct llama_batch batch;
};
bool session_open(struct session *s, const char *path, uint32_t window, ggml_backend_sched_eval_callback seen,
                  void *user, struct err *e);
void session_close(struct session *s);
/* Runs a window, its first token replaced by the BOS where the model adds one; positions from `first` on get
 * logits. */
bool session_decode(struct session *s, const llama_token *ids, uint32_t first, struct err *e);

/* A text as the vocabulary's token ids, special ones added where the model adds them. */
struct ids {
    llama_token *id;
    uint32_t n;
};
bool ids_load(struct ids *out, const struct session *s, const char *text, struct err *e);
/* Windows to go through: all that fit, or at most this many. */
bool ids_windows(const struct ids *t, uint32_t window, uint32_t at_most, uint32_t *out, struct err *e);

/* Verbs on files (llama_files.c). */
bool run_types(char **args, int n, struct err *e);
bool run_validate(char **args, int n, struct err *e);
bool run_codes(char **args, int n, struct err *e);
bool run_same(char **args, int n, struct err *e);
bool run_dequant(char **args, int n, struct err *e);
bool run_quantize(char **args, int n, struct err *e);
bool run_imatrix(char **args, int n, struct err *e);

/* A count from the command line. */
bool parse_count(const char *text, uint32_t *out, struct err *e);

#endif
