/* gsq: quantizes language models to 2-4 bits on any Vulkan device.
 *
 *     struct gsq_error e;
 *     gsq_device *device = NULL;
 *     gsq_model *model = NULL;
 *     struct gsq_quantize_options o;
 *     gsq_quantize_options_init(&o);
 *     o.out = "small.gguf";
 *     o.type = "Q2_K";
 *     o.calib = "default";
 *     if (!gsq_model_open(&model, "Llama-3.1-8B", &e) || !gsq_device_open(&device, NULL, &e) ||
 *         !gsq_quantize(device, model, &o, NULL, NULL, &e))
 *         fprintf(stderr, "%s\n%s\n", e.message, e.hint);
 *     gsq_device_close(&device);
 *     gsq_model_close(&model);
 *
 * Conventions
 * - What can fail returns bool and takes a struct gsq_error last. On false it says what went wrong and what to do about
 *   it; it may be NULL. A function that returns a char * returns NULL on failure; free the text with gsq_free().
 * - Every struct of options or results begins with its size, so that later versions can add fields at its end. An
 *   init function sets the size and the defaults; call it first. A NULL options pointer means the defaults.
 * - Paths and texts are UTF-8. Pointers in options are read during the call only. Results belong to the caller.
 * - Sizes are bytes, times are seconds.
 * - One device is used from one thread at a time. Different devices may be used from different threads, but are opened,
 *   listed and closed one at a time.
 *   The log function and the stop flag belong to the whole process. */
#ifndef GSQ_H
#define GSQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(GSQ_SHARED)
#ifdef GSQ_BUILDING
#define GSQ_API __declspec(dllexport)
#else
#define GSQ_API __declspec(dllimport)
#endif
#elif defined(__GNUC__) || defined(__clang__)
#define GSQ_API __attribute__((visibility("default")))
#else
#define GSQ_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors, log, stop ---- */

enum gsq_error_kind {
    GSQ_ERROR_NONE,
    GSQ_ERROR_USER,        /* a wrong option, a bad input file */
    GSQ_ERROR_ENVIRONMENT, /* disk full, no device, out of memory */
    GSQ_ERROR_BUG,         /* a fault in gsq */
    GSQ_ERROR_STOPPED      /* a callback or gsq_request_stop() asked to stop */
};
struct gsq_error {
    enum gsq_error_kind kind;
    char message[1024]; /* one sentence */
    char hint[512];     /* the remedy, or "" */
};

/* "0.2.0 (5fc8479)". */
GSQ_API const char *gsq_version(void);
/* Frees a text that a function of this header returned. NULL is fine. */
GSQ_API void gsq_free(char *text);

enum gsq_log_level { GSQ_LOG_ERROR, GSQ_LOG_WARNING, GSQ_LOG_INFO, GSQ_LOG_DEBUG };
/* Where warnings and notes go, one line each without a newline. Lines above `level` are dropped. fn NULL: to stderr,
 * which is the default, at GSQ_LOG_WARNING. */
typedef void gsq_log_fn(void *ctx, enum gsq_log_level level, const char *line);
GSQ_API void gsq_set_log(enum gsq_log_level level, gsq_log_fn *fn, void *ctx);

/* Asks whatever runs to stop at its next safe point; it fails with GSQ_ERROR_STOPPED, finished blocks are kept. May
 * be called from a signal handler or another thread. Stays set until gsq_clear_stop(). */
GSQ_API void gsq_request_stop(void);
GSQ_API void gsq_clear_stop(void);

/* CPU threads of the whole process, for texts and exports; 0: all, which is the default. */
GSQ_API void gsq_set_threads(uint32_t threads);

/* ---- names ---- */

/* What texts of options can be. */
enum gsq_name_kind {
    GSQ_NAME_METHOD,
    GSQ_NAME_EFFORT,
    GSQ_NAME_START,    /* of the training together */
    GSQ_NAME_PROTOCOL, /* of gsq_eval */
    GSQ_NAME_BITS,
    GSQ_NAME_FORMAT,         /* of gsq_quantize */
    GSQ_NAME_CONVERT_FORMAT, /* of gsq_convert */
    GSQ_NAME_TYPE,           /* of a whole GGUF, by llama-quantize's names or numbers */
    GSQ_NAME_COPY_TYPE,      /* those of them that round no weight: gsq_quantize then needs no device */
    GSQ_NAME_TENSOR_TYPE,    /* of a rule: bits, or a type of GGUF */
    GSQ_NAME_GGUF_TYPE,      /* of one tensor of a GGUF; bits stand for the type that stores them */
    GSQ_NAME_LLAMA_TYPE,     /* GSQ_NAME_TYPE, or a type that llama-quantize alone writes; they are not listed */
    GSQ_NAME_OUTPUT_HESSIAN  /* auto, on, off */
};
/* Name i of a kind, NULL past the last: for help texts and completions. */
GSQ_API const char *gsq_name_at(enum gsq_name_kind kind, size_t i);
/* The name that a text stands for, as gsq writes it ("q2_k", "10": "Q2_K"). NULL: none, and the error says which there are
 * or what comes nearest; it calls the text a value of `option` ("--type"). */
GSQ_API const char *gsq_name_find(enum gsq_name_kind kind, const char *text, const char *option, struct gsq_error *e);

/* How far an operation is. The callback is called from the thread that runs the operation, at least once a second
 * while the device works. False stops at the next safe point. */
struct gsq_progress {
    size_t size;
    const char *phase;      /* "calibrate", "quantize", "export", "eval" ... */
    const char *detail;     /* "block 3/32 down_proj", or NULL */
    uint32_t block, blocks; /* from 1; 0: not in a block */
    uint32_t step, steps;   /* inside the current linear; 0: none */
    double loss;            /* NAN: none */
    double done;            /* share of the whole operation, 0 to 1 */
    double eta_seconds;     /* NAN: not known yet */
    double elapsed_seconds; /* since the operation began */
    const char *unit;       /* of what is counted of the phase and detail: "windows"; NULL: nothing */
    double count;           /* of those, done so far */
    uint32_t processes;     /* at the run (gsq_quantize_options.join); 0 or 1: this one alone */
};
typedef bool gsq_progress_fn(void *ctx, const struct gsq_progress *p);

/* ---- devices ---- */

typedef struct gsq_device gsq_device;

struct gsq_device_options {
    size_t size;
    const char *device;    /* number or part of a name; NULL: $GSQ_DEVICE, else the best */
    const char *variant;   /* of every kernel that has it ("base"); NULL: the best each */
    const char *cache_dir; /* for compiled pipelines; NULL: the user's cache folder; "": none */
    uint64_t memory_limit; /* bytes of device memory; 0: what is free, less a reserve */
    uint32_t threads;      /* of a CPU device; 0: all */
};
GSQ_API void gsq_device_options_init_sized(struct gsq_device_options *o, size_t size);
#define gsq_device_options_init(o) gsq_device_options_init_sized((o), sizeof *(o))

/* A driver may reset its device, which loses all that lies there. The operation then begins again once, by itself; gsq_quantize
 * behind what is in the work folder, as often as something was finished in between.
 *
 * No loader, no device, none of that name: GSQ_ERROR_ENVIRONMENT or GSQ_ERROR_USER. */
GSQ_API bool gsq_device_open(gsq_device **out, const struct gsq_device_options *o, struct gsq_error *e);
/* Waits for the device. */
GSQ_API void gsq_device_close(gsq_device **device);

struct gsq_device_info {
    size_t size;
    const char *name, *driver; /* good as long as the device is open */
    const char *kind;          /* "discrete GPU", "integrated GPU", "virtual GPU", "CPU", "other" */
    uint32_t index;
    uint64_t memory_bytes, memory_limit;
    uint64_t memory_peak;         /* most that was in use so far */
    uint32_t validation_messages; /* of the Vulkan validation layer, where it is on */
};
/* info->size must be set. */
GSQ_API void gsq_device_get_info(const gsq_device *device, struct gsq_device_info *info);

/* Every device that Vulkan shows, also the unusable, in words; as a JSON array. */
GSQ_API char *gsq_devices_text(struct gsq_error *e);
GSQ_API char *gsq_devices_json(struct gsq_error *e);
/* Chooses kernel variants by measurement, a fraction of a second, unless that was done before for this device and driver: what
 * was measured is kept in the cache folder. gsq_quantize, gsq_eval, gsq_bench and the like do it by themselves. again: as if
 * nothing were known, also with variants that are not used because the driver died while they were tried. Nothing is done on
 * CPU devices and where a variant was asked for by name. */
GSQ_API bool gsq_device_choose(gsq_device *device, bool again, struct gsq_error *e);
/* What was measured, a line for each kernel that has a choice, "" where none has; as a JSON object of kernels. */
GSQ_API char *gsq_choice_text(gsq_device *device, struct gsq_error *e);
GSQ_API char *gsq_choice_json(gsq_device *device, struct gsq_error *e);
/* Which variant each kernel uses on a device and why, as a table; which, as a JSON object. Makes every pipeline. */
GSQ_API char *gsq_kernels_text(gsq_device *device, struct gsq_error *e);
GSQ_API char *gsq_kernels_json(gsq_device *device, struct gsq_error *e);

/* ---- models ---- */

typedef struct gsq_model gsq_model;

/* A Hugging Face folder (config.json, *.safetensors, tokenizer.json) or a GGUF file, unquantized or in any format that
 * gsq writes; or the name of a model that was downloaded into the Hugging Face cache, "org/name" or
 * "org/name@revision". Maps its files and checks their headers; weights are read when they are needed. */
GSQ_API bool gsq_model_open(gsq_model **out, const char *path, struct gsq_error *e);
GSQ_API void gsq_model_close(gsq_model **model);
/* Where gsq_model_open finds a model of that name; a name that is none of the cache's is its own place. */
GSQ_API char *gsq_model_locate(const char *name, struct gsq_error *e);

struct gsq_model_info {
    size_t size;
    const char *architecture, *model_type; /* good as long as the model is open */
    bool supported;                        /* gsq_quantize and gsq_eval know the architecture */
    uint32_t layers, hidden_size, vocab_size;
    uint32_t context; /* positions; 0: not said */
    uint64_t tensors, bytes;
};
/* info->size must be set. */
GSQ_API void gsq_model_get_info(const gsq_model *model, struct gsq_model_info *info);

/* What to say of a model, and of which run it is asked whether it could be. */
struct gsq_inspect_options {
    size_t size;
    const char *bits, *type; /* as in gsq_quantize_options; NULL: "2", and no type of a GGUF */
    uint32_t group;          /* 0: 128, in a GGUF the type's own */
    bool tensors;            /* every tensor is listed */
};
GSQ_API void gsq_inspect_options_init_sized(struct gsq_inspect_options *o, size_t size);
#define gsq_inspect_options_init(o) gsq_inspect_options_init_sized((o), sizeof *(o))
/* What is in a model, which formats take it, what would become of its linears, or why it would be refused; in words, as one
 * JSON object. Of any model that opens, also one that gsq cannot quantize. Needs no device. */
GSQ_API char *gsq_model_text(const gsq_model *model, const struct gsq_inspect_options *o, struct gsq_error *e);
GSQ_API char *gsq_model_json(const gsq_model *model, const struct gsq_inspect_options *o, struct gsq_error *e);

/* ---- quantize ---- */

/* What becomes of the modules whose name a pattern matches; the last rule that matches wins. */
struct gsq_tensor_rule {
    const char *pattern; /* PCRE2, searched in names such as "model.layers.0.mlp.up_proj" */
    const char *type;    /* "3", "3,g64", in a GGUF "Q4_K"; NULL: stays in 16 bits */
    bool llama;          /* the pattern is in any case, and rather of llama.cpp's names: "attn_v" */
};

/* How an option of the caller's was set, for the table in the report page. */
struct gsq_setting {
    const char *section, *name, *value, *help;
    bool set;  /* not the default */
    bool used; /* by the method */
};

/* Texts are those of the command line (`gsq quantize --help` explains each); NULL, and 0 where it says so, leave the
 * default. Numbers of the method start at what the effort stands for. */
struct gsq_quantize_options {
    size_t size;
    const char *out;    /* folder, or a file OUT.gguf. Required */
    const char *work;   /* folder for finished blocks; NULL: OUT.work */
    const char *method; /* "gsq", "gptq", "rtn" */
    const char *bits;   /* "2", "3", "4", "8", "ternary"; NULL: "2" */
    const char *format; /* "gptq", "gptq_v2", "compressed-tensors", "mlx", "humming", "gguf"; NULL: by out's name */
    const char *type;   /* of a GGUF: "Q2_K", "Q4_K_M" ... by llama-quantize's names; instead of bits */
    uint32_t group;     /* weights per scale; 0: 128, in a GGUF the type's own */
    uint32_t container; /* compressed-tensors: bits of the fields; 0: as many as the codes have */
    const struct gsq_tensor_rule *rules;
    size_t n_rules;

    /* Of a GGUF, as llama-quantize has them; they stand above rules. */
    const char *embedding_type;   /* of token_embd.weight, "Q6_K"; NULL: by type and rules */
    const char *head_type;        /* of output.weight, or of a tied embedding */
    bool keep_head;               /* output.weight keeps the type it has in the model */
    bool pure;                    /* one type for every weight, in place of the mixture */
    bool requantize;              /* take a model that is quantized already */
    const char *const *overrides; /* "KEY=TYPE:VALUE": other metadata; TYPE is int, float, bool or str */
    size_t n_overrides;

    const char *
        calib; /* text file; "default": the text that comes with gsq; "self", or NULL without imatrix: the model writes one */
    const char *imatrix;                 /* importance matrix (GGUF), or NULL */
    const char *const *importance_names; /* it counts for weights alone whose name holds one of these ... */
    size_t n_importance_names;           /* 0: for all */
    bool importance_skip;                /* ... or for all others */
    const char *refine;                  /* a GGUF of the model whose codes are learned anew, or NULL */
    uint32_t samples, context;           /* windows, and tokens in each; context 0: the model's, at most 2048 */
    uint32_t holdout;                    /* windows that only judge; 0: an eighth, at most 16 */

    uint64_t seed;
    uint64_t host_limit; /* bytes of host memory for activations before they go to a file; 0: half of what is free */
    bool keep_work;      /* do not remove the work folder at the end */
    bool force;          /* write over an output that gsq did not write */
    const char *accept;  /* what may differ from how the run was begun: "device,driver"; NULL: nothing */

    /* Once the model is written. */
    const char *eval;                   /* text file to compare it on with its source, or NULL */
    uint32_t eval_windows;              /* of it, at most; 0: all */
    const char *report;                 /* page (HTML) with charts of the run, or NULL */
    const struct gsq_setting *settings; /* for its table */
    size_t n_settings;
    const char *command; /* for it: what repeats the run, as it is typed; NULL: left out */

    /* How much work; see gsq_quantize_options_set_effort. */
    const char *effort;    /* which was set, for the report; the numbers count */
    uint32_t steps;        /* of the optimiser, for each linear alone */
    uint32_t epochs;       /* of halves of blocks together; 0: not done */
    uint32_t batch;        /* windows per step there; 0: by the paper's budget */
    uint32_t scale_epochs; /* of all scales end to end; 0: not done */

    /* Constants of the method, for experiments. */
    float damp;                 /* GPTQ: share of the mean diagonal added to the Hessian */
    uint32_t scale_steps;       /* scale search: candidates per sign */
    float scale_power;          /* scale search: power of the absolute error */
    float tau[2], kappa[2];     /* temperature, factor on the logits: at the first and the last step */
    float lr_logits, lr_scales; /* rates of a run of 1280 steps */
    float reach, block_reach;   /* how far a logit may travel, alone and together */
    float lr_end;               /* cosine decay of the rates to this share */
    float beta1, beta2;         /* Lion */
    float decay;                /* of the logits */
    float init_noise, init_gap; /* of the starting logits */
    const char *start;          /* of the training together: "hessian", "gptq", "rtn" */
    float scale_lr;             /* pass over scales: most that a step moves a scale, as a share of its size */
    uint32_t scale_batch;       /* there: windows per step */
    /* Whether a linear alone learns by what its outputs' errors cost the model, too: "auto", where gsq can go back through the model; "on",
     * "off". */
    const char *output_hessian;
    const char *const *more_calib; /* further calibration texts: a window of each in turn; at most 31 */
    size_t n_more_calib;
    /* How large the output is to be: each weight's type is chosen by what its error costs the model, measured on the text. One of these, in
     * place of bits and type, or type "auto:Q3_K_M": as large as that type's file. */
    uint64_t target_bytes; /* of the whole output; 0: not said */
    double
        target_bpw; /* bits per weight, in a GGUF of all weights, in a folder of the linears of the blocks; 0: not said */
    /* The share of what was lost before a linear that it makes good where it starts on its own; below 0: 0.5, of experts 1, with method "gptq" 0. */
    float correction;
    /* Of a plan: for so many processes ("ranks"), 0: for those that were started. */
    uint32_t ranks;
    /* Bytes a second between two ranks; 0: measured or, where they are not there, not known. A run where fewer would be faster is refused;
     * INFINITY: it is not. */
    double link;
    bool join; /* help the process that is at the same run in the same work folder; where there is none, begin it */
    /* Where `samples` is the effort's own number and has fewer tokens: as many windows as have these, in hardly more steps. An effort sets it, too. */
    uint32_t tokens;
};
GSQ_API void gsq_quantize_options_init_sized(struct gsq_quantize_options *o, size_t size);
/* "balanced". */
#define gsq_quantize_options_init(o) gsq_quantize_options_init_sized((o), sizeof *(o))
/* "quick", "fast", "balanced", "best" or "paper": sets samples, tokens, steps, epochs, batch and scale_epochs. False: no such effort. */
GSQ_API bool gsq_quantize_options_set_effort(struct gsq_quantize_options *o, const char *effort);
/* Refuses what needs no device to be refused: options that contradict each other, paths of results that are inputs or
 * somebody else's, a text to compare on that is none. gsq_quantize and gsq_plan_make (`plan`) do it themselves; this is for
 * before a device is opened. model NULL: what the options say by themselves. */
GSQ_API bool gsq_quantize_check(const gsq_model *model, const struct gsq_quantize_options *o, bool plan,
                                struct gsq_error *e);

/* A finished linear. Losses are relative squared errors of its output on the calibration text, NAN: not measured. */
struct gsq_linear {
    size_t size;
    const char *module;
    double loss_rtn; /* with refine: of the file's codes */
    double loss_gptq, loss;
    double seconds;
    uint32_t rows_rolled_back;       /* to their start, which was better */
    bool damp_raised, diagonal_only; /* what its Hessian needed */
    /* Of an expert: how many tokens chose it; whether these were so few that its Hessians lean on those of its layer. -1: it is
     * of none, or no text was read. */
    int64_t tokens;
    bool starved;
};
/* A finished training stage: half a block together, the experts of a block, or all scales. Losses are of rounded weights on held-out windows. */
struct gsq_stage {
    size_t size;
    const char *name; /* "attention", "feed-forward", "scales end to end", "experts" */
    uint32_t block;   /* from 1; 0: the whole model */
    double loss_start, loss;
    uint32_t steps, epochs, best_epoch;
    double seconds;
    const float *losses; /* at the start and after each epoch; good during the call */
    uint32_t n_losses;
    uint32_t retries; /* after divergences */
};
/* Work on a device: dispatches; floating-point operations, 2 for a multiply-add; bytes of device memory, each operand once. */
struct gsq_work {
    double dispatches, flop, bytes_read, bytes_written;
};
/* What one of several processes ("ranks") did of a run, or the only one. */
struct gsq_rank {
    size_t size;
    uint32_t rank, ranks;
    struct gsq_work own;      /* each rank does all of it by itself */
    struct gsq_work units;    /* shared out: windows, chunks, tiles, linears, experts, each made whole by one rank */
    struct gsq_work rows;     /* shared out by rows of linears */
    struct gsq_work each;     /* for these, whole on each rank that has rows: Hessians, GPTQ's factor */
    struct gsq_work exchange; /* made of what others have sent; one rank has none */
    /* Bytes to and from other ranks by what they are, names[0 .. n_kinds - 1]; good during the call. */
    uint32_t n_kinds;
    const char *const *kinds;
    const uint64_t *sent, *received;
    const uint64_t *planned_sent,
        *planned_received; /* as the plan tells them, of the training that there was; NULL: the run went on behind
                                                     * another */
};
typedef struct gsq_plan gsq_plan;
/* Each may be NULL. */
struct gsq_quantize_callbacks {
    size_t size;
    void *ctx;
    void (*planned)(void *ctx, const gsq_plan *plan); /* before any work; the plan is good during the call */
    gsq_progress_fn *progress;
    void (*linear_done)(void *ctx, const struct gsq_linear *linear);
    void (*stage_done)(void *ctx, const struct gsq_stage *stage);
    void (*written)(void *ctx); /* the model is complete; the comparison and the report follow */
    void (*rank_done)(void *ctx, const struct gsq_rank *rank); /* of each rank, before `written` */
};

/* What a run would do. Nothing is written. Checks all that can be refused before the work: options, shapes, types, disk,
 * memory. device may be NULL: the plan then says nothing of device memory
 * and time. callbacks may be NULL. */
GSQ_API bool gsq_plan_make(gsq_plan **out, gsq_device *device, const gsq_model *model,
                           const struct gsq_quantize_options *o, const struct gsq_quantize_callbacks *callbacks,
                           struct gsq_error *e);
GSQ_API void gsq_plan_free(gsq_plan **plan);

struct gsq_plan_info {
    size_t size;
    double bits_per_weight;      /* of the quantized linears, scales included */
    double file_bits_per_weight; /* of a GGUF: embeddings and head included; else 0 */
    uint64_t weights, weights_quantized;
    uint64_t out_bytes, work_bytes, disk_free;
    uint64_t device_bytes, device_limit, host_bytes;
    double predicted_seconds; /* 0: not measured: no device */
};
/* info->size must be set. */
GSQ_API void gsq_plan_get_info(const gsq_plan *plan, struct gsq_plan_info *info);
/* The plan in words, as the command line prints it; as one JSON object. */
GSQ_API char *gsq_plan_text(const gsq_plan *plan);
GSQ_API char *gsq_plan_json(const gsq_plan *plan);

struct gsq_quantize_result {
    size_t size;
    double seconds, bits_per_weight, file_bits_per_weight;
    double mean_loss; /* of the linears; NAN: not measured */
    uint64_t out_bytes, device_peak, host_peak;
    uint32_t blocks, blocks_resumed;
    const char *method, *format, *type;  /* as they were settled; type NULL: not a GGUF. Never freed */
    bool written;                        /* the model is complete; if gsq_quantize failed, what came after it did */
    bool finished_before;                /* it was there already, and nothing was done */
    bool reported;                       /* the report is written */
    double predicted_seconds;            /* what the plan said; 0: nothing */
    double reach;                        /* how far a logit could travel */
    double stage_loss_start, stage_loss; /* means over the halves of blocks; NAN: there were none */
    /* Of eval, as in gsq_eval_result; NAN and 0 where there was none. */
    double perplexity, reference_perplexity, mean_kl, top1;
    double perplexity_error, reference_perplexity_error, mean_kl_error, top1_error;
    uint32_t eval_windows, eval_context;
    double device_busy;     /* of the seconds, those that the device was at work; 0: it has no clock */
    uint32_t device_losses; /* how often the driver reset the device, which was opened again each time */
    bool helped;            /* the run was joined, and another process wrote the model */
    uint32_t made; /* linears that this process quantized; others are of an earlier run, or of another process */
};
/* Quantizes and writes the model, then compares it with its source and writes the report where that is asked for. Each
 * finished block is kept in the work folder: after a failure, a stop or a crash, the same call goes on where it was and ends
 * in the same bytes. Where it has finished before, it does nothing. A type that rounds no weight (GSQ_NAME_COPY_TYPE) makes
 * it a conversion: device may be NULL then. callbacks and result may be NULL; result->size must be set. */
GSQ_API bool gsq_quantize(gsq_device *device, const gsq_model *model, const struct gsq_quantize_options *o,
                          const struct gsq_quantize_callbacks *callbacks, struct gsq_quantize_result *result,
                          struct gsq_error *e);

/* ---- evaluate ---- */

struct gsq_eval_options {
    size_t size;
    const char *text;     /* file. Required */
    uint32_t context;     /* tokens per window; 0: the model's, at most 2048 */
    uint32_t windows;     /* at most; 0: all */
    const char *protocol; /* "gsq", or "llama.cpp": llama-perplexity's number; NULL: "gsq" */
    const char *spill;    /* folder for activations that fit nowhere else; NULL: the system's temporary folder */
    gsq_progress_fn *progress;
    void *ctx;
};
GSQ_API void gsq_eval_options_init_sized(struct gsq_eval_options *o, size_t size);
#define gsq_eval_options_init(o) gsq_eval_options_init_sized((o), sizeof *(o))

/* The value that a share of the positions is below, and between what it lies with 95 % confidence if they are independent. */
struct gsq_quantile {
    double share, value, low, high;
};
enum { GSQ_QUANTILES = 6 };

struct gsq_eval_result {
    size_t size;
    double perplexity, mean_nll; /* exp(mean_nll), nats per token */
    double mean_kl;              /* gsq_compare: KL(reference || model), nats per token */
    double top1;                 /* gsq_compare: share of positions whose most likely token agrees */
    double reference_perplexity; /* gsq_compare */
    uint64_t tokens, scored;     /* of the text, or of the windows asked for; positions that count */
    uint32_t windows, context;
    double seconds;
    /* Standard errors; tokens count as independent, as in llama-perplexity. */
    double perplexity_error, mean_nll_error, mean_kl_error, top1_error, reference_perplexity_error;
    char token_hash[33]; /* of those tokens: XXH3-128 of the ids as little-endian words of 32 bits */
    /* gsq_compare, as llama-perplexity --kl-divergence has them. */
    struct gsq_quantile kl_quantiles[GSQ_QUANTILES]; /* shares .01, .1, .5, .9, .99, .999 of the positions */
    double kl_most;
    double perplexity_ratio,
        perplexity_ratio_error; /* the model's over the reference's; the error from pairs of positions */
    double correlation;         /* of both sides' -ln p of the text's tokens */
    /* How much more probable the text's tokens are to the model: mean, and root of the mean square. */
    double p_change, p_change_error, p_change_rms, p_change_rms_error;
};
/* Perplexity of a model on a text. result->size must be set. */
GSQ_API bool gsq_eval(gsq_device *device, const gsq_model *model, const struct gsq_eval_options *o,
                      struct gsq_eval_result *result, struct gsq_error *e);
/* The same, and how far its predictions are from a reference's with the same vocabulary. */
GSQ_API bool gsq_compare(gsq_device *device, const gsq_model *model, const gsq_model *reference,
                         const struct gsq_eval_options *o, struct gsq_eval_result *result, struct gsq_error *e);

struct gsq_tasks_options {
    size_t size;
    const char *questions; /* file: JSON lines with question, choices and answer. Required */
    uint32_t at_most;      /* questions; 0: all */
    uint32_t context;      /* tokens of a question with one of its choices, at most; 0: the model's, at most 2048 */
    const char *spill;     /* as in gsq_eval_options */
    gsq_progress_fn *progress;
    void *ctx;
};
GSQ_API void gsq_tasks_options_init_sized(struct gsq_tasks_options *o, size_t size);
#define gsq_tasks_options_init(o) gsq_tasks_options_init_sized((o), sizeof *(o))

struct gsq_tasks_result {
    size_t size;
    /* Shares of the questions whose right choice is the most probable one, and the same with -ln p divided by the choice's bytes;
     * standard errors, and the share that guessing gives. */
    double accuracy, accuracy_error, accuracy_by_length, accuracy_by_length_error, chance;
    double mean_nll;         /* of the right choices, nats per token */
    uint32_t questions, cut; /* cut: questions that lost their beginning, being longer than the context */
    uint32_t context;        /* tokens of the longest, as read */
    uint64_t tokens;         /* read, all choices together */
    double seconds;
};
/* Multiple-choice questions: which choice a model finds most probable after each. result->size must be set. */
GSQ_API bool gsq_eval_tasks(gsq_device *device, const gsq_model *model, const struct gsq_tasks_options *o,
                            struct gsq_tasks_result *result, struct gsq_error *e);

/* ---- convert, importance ---- */

struct gsq_convert_options {
    size_t size;
    const char *out;    /* folder, or a file OUT.gguf. Required */
    const char *format; /* as in gsq_quantize_options, or "hf"; NULL: gguf for OUT.gguf */
    const char *type;   /* of a GGUF: "F32", "F16", "BF16", or the type that is to hold the codes; NULL: they stay */
    uint32_t container;
    gsq_progress_fn *progress;
    void *ctx;
    bool force; /* write over an output that gsq did not write */
};
GSQ_API void gsq_convert_options_init_sized(struct gsq_convert_options *o, size_t size);
#define gsq_convert_options_init(o) gsq_convert_options_init_sized((o), sizeof *(o))
/* The model in another format, never requantized: codes stay codes, or become the values they stand for. */
GSQ_API bool gsq_convert(const gsq_model *model, const struct gsq_convert_options *o, struct gsq_error *e);

struct gsq_imatrix_options {
    size_t size;
    const char *out;   /* file. Required */
    const char *calib; /* text file, or "default": the text that comes with gsq. Required */
    uint32_t samples;  /* windows, from the text's start */
    uint32_t context;  /* tokens per window; 0: the model's, at most 2048 */
    const char *spill; /* as in gsq_eval_options */
    gsq_progress_fn *progress;
    void *ctx;
    bool force;                    /* write over an output that gsq did not write */
    const char *const *more_calib; /* as in gsq_quantize_options */
    size_t n_more_calib;
};
GSQ_API void gsq_imatrix_options_init_sized(struct gsq_imatrix_options *o, size_t size);
#define gsq_imatrix_options_init(o) gsq_imatrix_options_init_sized((o), sizeof *(o))
struct gsq_imatrix_result {
    size_t size;
    uint64_t entries, tokens; /* weights in the file; of the text, or of the windows asked for */
    uint32_t windows, context;
    double seconds;
};
/* Writes an importance matrix (GGUF), as llama-imatrix does. result may be NULL; result->size must be set. */
GSQ_API bool gsq_imatrix(gsq_device *device, const gsq_model *model, const struct gsq_imatrix_options *o,
                         struct gsq_imatrix_result *result, struct gsq_error *e);

/* ---- speed ---- */

/* One kernel at one shape. */
struct gsq_bench_row {
    size_t size;
    const char *kernel, *variant, *shape;
    double seconds;              /* of one call */
    double gflops, gbytes_per_s; /* gflops 0: it only moves memory */
    double share_of_limit;       /* of what the device can do, 0 to 1 */
};
struct gsq_bench_result {
    size_t size;
    double copy_gbytes_per_s, fma_gflops; /* the limits, measured */
    uint32_t cases;
    char kernels_without_case[512]; /* "name, name" */
};
struct gsq_bench_options {
    size_t size;
    const char *kernel; /* only those with this text in their name; NULL: all */
    void (*limits)(void *ctx, const struct gsq_bench_result *limits); /* before the first row; may be NULL */
    void (*row)(void *ctx, const struct gsq_bench_row *row);          /* may be NULL */
    void *ctx;
};
GSQ_API void gsq_bench_options_init_sized(struct gsq_bench_options *o, size_t size);
#define gsq_bench_options_init(o) gsq_bench_options_init_sized((o), sizeof *(o))
/* Measures every kernel. result may be NULL; result->size must be set. */
GSQ_API bool gsq_bench(gsq_device *device, const struct gsq_bench_options *o, struct gsq_bench_result *result,
                       struct gsq_error *e);

/* What quantizing computes and moves, counted without doing it: one kernel's part of a piece of work. */
struct gsq_count_row {
    size_t size;
    const char *piece;  /* "Hessian objective, a step": of a layer, an expert, or of the whole model, as it says */
    const char *kernel; /* "gemm_half", "copy", "fill" ... */
    double calls, flop; /* a multiply-add is 2 */
    double bytes_read, written; /* of device memory, each operand once */
    const char
        *layer_kind; /* "attention, feed-forward": layers of one make are counted once. NULL: of the whole model */
    uint32_t first_layer, layers; /* the first of them, from 0, and how many they are */
    double layer_weights,
        layer_expert_weights; /* of the linears of such a layer, without experts; of all of its experts */
    double step_weights;      /* in an optimiser's step: of what it is a step; else 0 */
};
struct gsq_count_options {
    size_t size;
    const char *bits;                                        /* NULL: "2" */
    uint32_t group;                                          /* 0: 128 */
    uint32_t context;                                        /* tokens of a window; 0: the model's, at most 2048 */
    void (*row)(void *ctx, const struct gsq_count_row *row); /* may be NULL */
    void *ctx;
};
struct gsq_count_result {
    size_t size;
    uint32_t layers, context, windows_at_once;
    double block_weights;           /* of the linears of the first block */
    uint32_t experts, experts_used; /* of a layer that has them; 0: the model has none */
};
GSQ_API void gsq_count_options_init_sized(struct gsq_count_options *o, size_t size);
#define gsq_count_options_init(o) gsq_count_options_init_sized((o), sizeof *(o))
/* Takes a second for a model of any size; its weights are not read. The kernels are those of this device or, on a CPU, those
 * that every GPU runs. result may be NULL; result->size must be set. */
GSQ_API bool gsq_count(gsq_device *device, const gsq_model *model, const struct gsq_count_options *o,
                       struct gsq_count_result *result, struct gsq_error *e);

#ifdef __cplusplus
}
#endif
#endif
