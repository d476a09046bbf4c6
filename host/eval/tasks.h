/* Multiple-choice questions by log-likelihood: what HellaSwag, ARC, PIQA and their like measure. */
#ifndef EVAL_TASKS_H
#define EVAL_TASKS_H

#include "host/eval/eval.h"

struct tasks_options {
    const char *path; /* formats/question_file.h */
    uint32_t at_most; /* questions; 0: all */
    uint32_t ctx;     /* tokens of a question with one of its choices, at most */
    uint64_t at_once; /* tokens of a pass through the model; 0: by default */
    const char *spill_dir;
    struct progress progress;
};
struct tasks_result {
    uint32_t questions;
    /* Shares of questions whose right choice is the most probable one; by_length: with -ln p divided by the choice's bytes, as
     * acc_norm of EleutherAI's harness. Standard errors of questions that are independent. */
    double accuracy, accuracy_error, by_length, by_length_error;
    double chance;   /* of guessing */
    double mean_nll; /* of the right choices' tokens */
    uint32_t cut;    /* questions that lost their beginning, since they are longer than ctx */
    uint32_t ctx;    /* tokens of the longest, as read */
    uint64_t tokens; /* read */
    double seconds;
};
/* p(choice | question) is the product over the tokens by which "question choice" goes on from "question" (a space between the two
 * unless one is there), after the tokenizer's BOS. Of equally probable choices the first counts. Errors as questions_load and
 * eval_perplexity; ERR_USER too where a choice alone is longer than ctx. */
bool tasks_run(struct gpu_cmd *cmd, const struct checkpoint *ck, const struct tasks_options *o,
               struct tasks_result *out, struct err *e);

#endif
