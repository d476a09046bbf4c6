#include "app/progress_term.h"

#include <math.h>
#include <string.h>

#include "app/app.h"
#include "host/base/num.h"
#include "host/base/os.h"

/* How often each kind of output is renewed. */
#define BAR_NS   (100ull * 1000 * 1000)
#define JSON_NS  (500ull * 1000 * 1000)
#define LINES_NS (5000ull * 1000 * 1000)
enum { BAR_MIN_WIDTH = 10, BAR_MAX_WIDTH = 40 };

static double clamp01(double x)
{
    return x > 0 ? x < 1 ? x : 1 : 0;
}

/* ", loss 0.0123, 4:05 left" and the like, whichever is known. */
static void tail_text(char *out, size_t cap, const struct progress_event *ev)
{
    char eta[24];
    size_t n = 0;
    out[0] = 0;
    if (!isnan(ev->loss))
        n += (size_t)snprintf(out, cap, "  loss %.4g", ev->loss);
    if (!isnan(ev->eta_seconds) && n < cap)
        snprintf(out + n, cap - n, "  %s left", format_seconds(ev->eta_seconds, eta, sizeof eta));
}

static void head_text(char *out, size_t cap, const struct progress_event *ev)
{
    int n = snprintf(out, cap, "%s", ev->phase);
    if (ev->detail && n > 0 && (size_t)n < cap)
        snprintf(out + n, cap - (size_t)n, " %s", ev->detail);
    else if (ev->blocks && n > 0 && (size_t)n < cap)
        snprintf(out + n, cap - (size_t)n, " block %u/%u", (unsigned)ev->block, (unsigned)ev->blocks);
}

void progress_bar_text(char *out, size_t cap, const struct progress_event *ev, unsigned columns)
{
    char head[128], tail[80], bar[BAR_MAX_WIDTH + 1];
    head_text(head, sizeof head, ev);
    tail_text(tail, sizeof tail, ev);
    double done = clamp01(ev->done);
    int room = (int)columns - 1 - (int)strlen(head) - (int)strlen(tail) - 9; /* "  [" "] 100%" */
    if (room < BAR_MIN_WIDTH) {
        snprintf(out, cap, "%s %3.0f%%%s", head, 100 * done, tail);
    } else {
        int width = room < BAR_MAX_WIDTH ? room : BAR_MAX_WIDTH, full = (int)(done * width);
        for (int i = 0; i < width; i++)
            bar[i] = i < full ? '=' : i == full ? '>' : ' ';
        bar[width] = 0;
        snprintf(out, cap, "%s  [%s] %3.0f%%%s", head, bar, 100 * done, tail);
    }
    if (strlen(out) + 1 > columns && columns > 0 && columns <= cap)
        out[columns - 1] = 0;
}

static void clear_bar(void *ctx)
{
    struct progress_term *p = ctx;
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        p->drawn = false;
    }
}

static void draw_bar(struct progress_term *p, const struct progress_event *ev)
{
    char text[256];
    unsigned columns = os_terminal_columns();
    progress_bar_text(text, sizeof text, ev, columns < 200 ? columns : 200);
    fprintf(stderr, "\r%s\033[K", text);
    fflush(stderr);
    p->drawn = true;
}

static void write_line(const struct progress_event *ev)
{
    char head[128], tail[80];
    head_text(head, sizeof head, ev);
    tail_text(tail, sizeof tail, ev);
    fprintf(stderr, "%s  %.0f%%%s\n", head, 100 * clamp01(ev->done), tail);
    fflush(stderr);
}

static void write_json(const struct progress_event *ev)
{
    cJSON *o = json_event("progress");
    cJSON_AddStringToObject(o, "phase", ev->phase);
    if (ev->detail)
        cJSON_AddStringToObject(o, "detail", ev->detail);
    if (ev->blocks) {
        cJSON_AddNumberToObject(o, "block", ev->block);
        cJSON_AddNumberToObject(o, "blocks", ev->blocks);
    }
    if (ev->steps) {
        cJSON_AddNumberToObject(o, "step", ev->step);
        cJSON_AddNumberToObject(o, "steps", ev->steps);
    }
    if (!isnan(ev->loss))
        cJSON_AddNumberToObject(o, "loss", ev->loss);
    cJSON_AddNumberToObject(o, "done", clamp01(ev->done));
    if (!isnan(ev->eta_seconds))
        cJSON_AddNumberToObject(o, "eta_seconds", ev->eta_seconds);
    json_emit(o);
}

static bool on_progress(void *ctx, const struct progress_event *ev)
{
    struct progress_term *p = ctx;
    static const uint64_t every[] = {
        [PROGRESS_NONE] = UINT64_MAX,
        [PROGRESS_BAR] = BAR_NS,
        [PROGRESS_LINES] = LINES_NS,
        [PROGRESS_JSON] = JSON_NS,
    };
    uint64_t now = os_now_ns();
    bool new_phase = strncmp(p->last_phase, ev->phase, sizeof p->last_phase - 1) != 0;
    if (new_phase || now - p->last_ns >= every[p->mode]) {
        snprintf(p->last_phase, sizeof p->last_phase, "%s", ev->phase);
        p->last_ns = now;
        switch (p->mode) {
        case PROGRESS_BAR:
            draw_bar(p, ev);
            break;
        case PROGRESS_LINES:
            write_line(ev);
            break;
        case PROGRESS_JSON:
            write_json(ev);
            break;
        case PROGRESS_NONE:
            break;
        }
    }
    return !os_stop_requested();
}

struct progress progress_term_begin(struct progress_term *p, const struct args *a)
{
    *p = (struct progress_term){.start_ns = os_now_ns()};
    if (a->json)
        p->mode = PROGRESS_JSON;
    else if (a->quiet)
        p->mode = PROGRESS_NONE;
    else
        p->mode = os_is_terminal(stderr) ? PROGRESS_BAR : PROGRESS_LINES;
    if (p->mode == PROGRESS_BAR)
        log_set_before(clear_bar, p);
    return (struct progress){.fn = on_progress, .ctx = p};
}

void progress_term_end(struct progress_term *p)
{
    clear_bar(p);
    log_set_before(NULL, NULL);
    p->mode = PROGRESS_NONE;
}
