/* Quantizes a model to 2 bits with libgsq and measures what it cost.
 *
 *     cc quantize.c $(pkg-config --cflags --libs gsq) -o quantize
 *     ./quantize MODEL OUT CALIBRATION-TEXT EVALUATION-TEXT */
#include <gsq.h>
#include <stdio.h>

static bool on_progress(void *ctx, const struct gsq_progress *p)
{
    (void)ctx;
    fprintf(stderr, "\r%s %3.0f %%  ", p->phase, 100 * p->done);
    return true; /* false would stop here; the same call later goes on */
}

int main(int argc, char **argv)
{
    struct gsq_error e = {.kind = GSQ_ERROR_USER, .message = "usage: quantize MODEL OUT CALIB EVAL"};
    gsq_device *device = NULL;
    gsq_model *model = NULL, *small = NULL;
    struct gsq_quantize_options o;
    struct gsq_quantize_callbacks callbacks = {.size = sizeof callbacks, .progress = on_progress};
    struct gsq_quantize_result done = {.size = sizeof done};
    struct gsq_eval_options text;
    struct gsq_eval_result kl = {.size = sizeof kl};

    gsq_quantize_options_init(&o);
    gsq_quantize_options_set_effort(&o, "fast");
    gsq_eval_options_init(&text);
    o.out = argc == 5 ? argv[2] : NULL;
    o.calib = argc == 5 ? argv[3] : NULL;
    text.text = argc == 5 ? argv[4] : NULL;
    bool ok = argc == 5 && gsq_device_open(&device, NULL, &e) && gsq_model_open(&model, argv[1], &e) &&
              gsq_quantize(device, model, &o, &callbacks, &done, &e) && gsq_model_open(&small, o.out, &e) &&
              gsq_compare(device, small, model, &text, &kl, &e);
    if (ok)
        printf("\n%.3f bits per weight, perplexity %.3f (was %.3f), KL divergence %.4f\n", done.bits_per_weight,
               kl.perplexity, kl.reference_perplexity, kl.mean_kl);
    else
        fprintf(stderr, "\n%s\n%s\n", e.message, e.hint);
    gsq_model_close(&small);
    gsq_model_close(&model);
    gsq_device_close(&device);
    return ok ? 0 : 1;
}
