#include "app/progress_term.h"

#include <math.h>
#include <string.h>

#include "app/app.h"
#include "host/base/clean.h"
#include "host/base/num.h"
#include "host/base/os.h"

/* How often each kind of output is renewed; lines of a long run less often, each LINES_SHARE of its time. */
#define BAR_NS   (100ull * 1000 * 1000)
#define JSON_NS  (500ull * 1000 * 1000)
#define LINES_NS (5000ull * 1000 * 1000)
enum { LINES_SHARE = 100 };
/* A speed is told from this long on. */
#define SPEED_NS (300ull * 1000 * 1000)
enum { BAR_MIN_WIDTH = 10, BAR_MAX_WIDTH = 40 };

static double clamp01(double x)
{
    return x > 0 ? x < 1 ? x : 1 : 0;
}

/* 100 only when all is done. */
static int percent(double done)
{
    return (int)(100 * clamp01(done));
}

enum { TAIL_LOSS = 1, TAIL_SPEED = 2 };

static void append(char *out, size_t cap, const char *text)
{
    size_t n = strlen(out);
    snprintf(out + n, cap - n, "%s", text);
}

/* "  loss 0.0123  3.1 steps/s  1:20, 4:05 left" and the like, whichever is known and wanted. */
static void tail_text(char *out, size_t cap, const struct gsq_progress *ev, double speed, unsigned parts)
{
    char text[64], eta[24], spent[24];
    out[0] = 0;
    if (!isnan(ev->loss) && (parts & TAIL_LOSS)) {
        snprintf(text, sizeof text, "  loss %.4g", ev->loss);
        append(out, cap, text);
    }
    if (ev->unit && !isnan(speed) && (parts & TAIL_SPEED)) {
        snprintf(text, sizeof text, "  %.3g %s/s", speed, ev->unit);
        append(out, cap, text);
    }
    if (ev->processes > 1) {
        snprintf(text, sizeof text, "  %u processes", (unsigned)ev->processes);
        append(out, cap, text);
    }
    if (!isnan(ev->elapsed_seconds)) {
        snprintf(text, sizeof text, "  %s", format_seconds(ev->elapsed_seconds, spent, sizeof spent));
        append(out, cap, text);
    }
    if (!isnan(ev->eta_seconds)) {
        /* What runs is not over: less than a second counts as one. */
        snprintf(text, sizeof text, "%s%s left", isnan(ev->elapsed_seconds) ? "  " : ", ",
                 format_seconds(fmax(1, ev->eta_seconds), eta, sizeof eta));
        append(out, cap, text);
    }
}

static void head_text(char *out, size_t cap, const struct gsq_progress *ev)
{
    int n = snprintf(out, cap, "%s%s", ev->phase, ev->detail ? " " : "");
    if (ev->detail && n > 0 && (size_t)n < cap)
        clean_text(out + n, cap - (size_t)n, ev->detail, strlen(ev->detail), false);
    else if (ev->blocks && n > 0 && (size_t)n < cap)
        snprintf(out + n, cap - (size_t)n, " block %u/%u", (unsigned)ev->block, (unsigned)ev->blocks);
}

void progress_bar_text(char *out, size_t cap, const struct gsq_progress *ev, double speed, unsigned columns)
{
    static const unsigned parts[] = {TAIL_LOSS | TAIL_SPEED, TAIL_LOSS, 0};
    char head[160], tail[128], bar[BAR_MAX_WIDTH + 1];
    int room = 0;
    head_text(head, sizeof head, ev);
    /* What is told shrinks before the bar does. */
    for (int i = 0; i < 3 && room < BAR_MIN_WIDTH; i++) {
        tail_text(tail, sizeof tail, ev, speed, parts[i]);
        room = (int)columns - 1 - (int)strlen(head) - (int)strlen(tail) - 9; /* "  [" "] 100%" */
    }
    double done = clamp01(ev->done);
    if (room < BAR_MIN_WIDTH) {
        snprintf(out, cap, "%s %3d%%%s", head, percent(done), tail);
    } else {
        int width = room < BAR_MAX_WIDTH ? room : BAR_MAX_WIDTH, full = (int)(done * width);
        for (int i = 0; i < width; i++)
            bar[i] = i < full ? '=' : i == full ? '>' : ' ';
        bar[width] = 0;
        snprintf(out, cap, "%s  [%s] %3d%%%s", head, bar, percent(done), tail);
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

static void draw_bar(struct progress_term *p, const struct gsq_progress *ev)
{
    char text[256];
    unsigned columns = os_terminal_columns();
    progress_bar_text(text, sizeof text, ev, p->speed, columns < 200 ? columns : 200);
    fputs("\r", stderr);
    say_text(stderr, text); /* the end may be half a character */
    fputs("\033[K", stderr);
    fflush(stderr);
    p->drawn = true;
}

static void write_line(const struct progress_term *p, const struct gsq_progress *ev)
{
    char head[160], tail[128];
    head_text(head, sizeof head, ev);
    tail_text(tail, sizeof tail, ev, p->speed, TAIL_LOSS | TAIL_SPEED);
    fprintf(stderr, "%s  %d%%%s\n", head, percent(ev->done), tail);
    fflush(stderr);
}

static void write_json(const struct progress_term *p, const struct gsq_progress *ev)
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
    if (ev->processes > 1)
        cJSON_AddNumberToObject(o, "processes", ev->processes);
    if (ev->unit && !isnan(p->speed)) {
        cJSON_AddNumberToObject(o, "speed", p->speed);
        cJSON_AddStringToObject(o, "speed_unit", ev->unit);
    }
    if (!isnan(ev->elapsed_seconds))
        cJSON_AddNumberToObject(o, "elapsed_seconds", ev->elapsed_seconds);
    if (!isnan(ev->eta_seconds))
        cJSON_AddNumberToObject(o, "eta_seconds", ev->eta_seconds);
    json_emit(o);
}

static void tell(struct progress_term *p, const struct gsq_progress *ev, uint64_t now)
{
    p->last_ns = now;
    switch (p->mode) {
    case PROGRESS_BAR:
        draw_bar(p, ev);
        break;
    case PROGRESS_LINES:
        write_line(p, ev);
        break;
    case PROGRESS_JSON:
        write_json(p, ev);
        break;
    case PROGRESS_NONE:
        break;
    }
}

static uint64_t interval(const struct progress_term *p, uint64_t now)
{
    switch (p->mode) {
    case PROGRESS_BAR:
        return BAR_NS;
    case PROGRESS_LINES:
        return max_u64(LINES_NS, (now - p->start_ns) / LINES_SHARE);
    case PROGRESS_JSON:
        return JSON_NS;
    default:
        return UINT64_MAX;
    }
}

/* The speed of what an event counts, since its phase and detail began. */
static void take_speed(struct progress_term *p, const struct gsq_progress *ev, uint64_t now)
{
    const char *detail = ev->detail ? ev->detail : "";
    bool same =
        strncmp(p->phase, ev->phase, sizeof p->phase - 1) == 0 && strncmp(p->detail, detail, sizeof p->detail - 1) == 0;
    if (!same || ev->count < p->count || !ev->unit) {
        p->count_ns = now;
        p->count_from = ev->count;
        p->speed = NAN;
    } else if (now - p->count_ns > SPEED_NS && ev->count > p->count) {
        p->speed = (ev->count - p->count_from) / ((double)(now - p->count_ns) * 1e-9);
    }
    p->count = ev->count;
    snprintf(p->phase, sizeof p->phase, "%s", ev->phase);
    snprintf(p->detail, sizeof p->detail, "%s", detail);
}

bool progress_term_show(void *ctx, const struct gsq_progress *ev)
{
    struct progress_term *p = ctx;
    uint64_t now = os_now_ns();
    take_speed(p, ev, now);
    bool new_phase = strncmp(p->last_phase, ev->phase, sizeof p->last_phase - 1) != 0;
    if (new_phase || now - p->last_ns >= interval(p, now)) {
        snprintf(p->last_phase, sizeof p->last_phase, "%s", ev->phase);
        tell(p, ev, now);
    }
    return !os_stop_requested();
}

void progress_term_begin(struct progress_term *p, const struct args *a)
{
    *p = (struct progress_term){.start_ns = os_now_ns(), .speed = NAN};
    if (a->quiet)
        p->mode = PROGRESS_NONE;
    else if (a->json)
        p->mode = PROGRESS_JSON;
    else
        p->mode = os_is_terminal(stderr) ? PROGRESS_BAR : PROGRESS_LINES;
    if (p->mode == PROGRESS_BAR)
        log_set_before(clear_bar, p);
}

void progress_term_end(struct progress_term *p)
{
    clear_bar(p);
    log_set_before(NULL, NULL);
    p->mode = PROGRESS_NONE;
}
