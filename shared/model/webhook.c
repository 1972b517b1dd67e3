/* Webhooks: events, schedule, verdicts. */
#include "model/webhook.h"

#include <stdio.h>
#include <string.h>

enum { RETRY_AFTER_MAX_SEC = 24 * 3600, WAIT_MAX_MS = 7 * 24 * 3600 * 1000, INVOCATION_BITS = 0x7e };

static const char *const names[WEBHOOK_EVENTS] = {
    NULL,
    "invocation.succeeded",
    "invocation.failed",
    "invocation.timed_out",
    "invocation.canceled",
    "invocation.expired",
    "invocation.error",
    "batch.completed",
    "webhook.test",
};

static const struct {
    const char *name;
    int32_t bits;
} groups[] = {
    {"*", WEBHOOK_FILTER_ALL},
    {"invocation.*", INVOCATION_BITS},
    {"batch.*", 1 << WEBHOOK_BATCH_COMPLETED},
};
enum { GROUPS = sizeof groups / sizeof *groups };

const char *webhook_event_name(int event)
{
    return event > 0 && event < WEBHOOK_EVENTS ? names[event] : NULL;
}

bool webhook_event_is_invocation(int event)
{
    return event >= WEBHOOK_SUCCEEDED && event <= WEBHOOK_ERROR;
}

/* ---- filters ---- */

static int32_t filter_bits(struct str name)
{
    for (int i = 0; i < GROUPS; i++)
        if (str_eq_c(name, groups[i].name))
            return groups[i].bits;
    for (int i = 1; i < WEBHOOK_TEST; i++)
        if (str_eq_c(name, names[i]))
            return 1 << i;
    return 0;
}

static int unknown_event(struct str name, struct err *err)
{
    const char *known[GROUPS + WEBHOOK_EVENTS] = {NULL};
    int n = 0;
    for (int i = 1; i < WEBHOOK_TEST; i++)
        known[n++] = names[i];
    for (int i = 0; i < GROUPS; i++)
        known[n++] = groups[i].name;
    const char *nearest = str_nearest(name, known);
    if (nearest != NULL)
        return err_set(err, ERR_BAD_FIELD, "there is no event \"%.*s\"; did you mean \"%s\"?",
                       (int)(name.n < 60 ? name.n : 60), name.p, nearest);
    return err_set(err, ERR_BAD_FIELD,
                   "there is no event \"%.*s\"; there are invocation.succeeded, failed, timed_out, canceled, "
                   "expired, error, batch.completed, and invocation.*, batch.*, *",
                   (int)(name.n < 60 ? name.n : 60), name.p);
}

int webhook_filter_read(const struct json_value *array, int32_t *bits_out, struct err *err)
{
    *bits_out = 0;
    if (json_type_of(array) != JSON_ARRAY || json_count(array) == 0)
        return err_set(err, ERR_BAD_FIELD, "events must be an array of one or more names of events");
    for (const struct json_value *v = json_first(array); v != NULL; v = json_next(v)) {
        struct str name;
        if (!json_str(v, &name))
            return err_set(err, ERR_BAD_FIELD, "events must hold strings");
        int32_t bits = filter_bits(name);
        if (bits == 0)
            return unknown_event(name, err);
        *bits_out |= bits;
    }
    return 0;
}

void webhook_filter_write(struct json_writer *w, int32_t bits)
{
    jw_array(w);
    for (int i = 0; i < GROUPS; i++) {
        if ((bits & groups[i].bits) != groups[i].bits)
            continue;
        jw_cstr(w, groups[i].name);
        bits &= ~groups[i].bits;
    }
    for (int i = 1; i < WEBHOOK_TEST; i++)
        if ((bits & 1 << i) != 0)
            jw_cstr(w, names[i]);
    jw_array_end(w);
}

/* ---- the schedule ---- */

static bool read_wait(struct str text, int64_t *ms_out)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};
    size_t digits = 0;
    int64_t v;
    while (digits < text.n && text.p[digits] >= '0' && text.p[digits] <= '9')
        digits++;
    if (digits == 0 || digits > 9 || !str_to_i64(str_make(text.p, digits), &v))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (str_eq_c(str_make(text.p + digits, text.n - digits), units[i].name)) {
            *ms_out = v * units[i].ms;
            return *ms_out >= 1 && *ms_out <= WAIT_MAX_MS;
        }
    return false;
}

int webhook_schedule_read(struct str text, struct webhook_schedule *out, struct err *err)
{
    struct str one;
    *out = (struct webhook_schedule){0};
    while (str_split(&text, ',', &one)) {
        int64_t ms = 0;
        if (out->count == WEBHOOK_TRIES_MAX || !read_wait(str_trim(one), &ms))
            return err_set(err, ERR_CONFIG, "must be up to %d waits such as %s, at most 168h each",
                           WEBHOOK_TRIES_MAX, WEBHOOK_SCHEDULE_DEFAULT);
        out->wait_ms[out->count++] = ms;
    }
    return 0;
}

int webhook_schedule_check(const char *text, struct err *err)
{
    struct webhook_schedule s;
    return webhook_schedule_read(str_of(text), &s, err);
}

enum webhook_verdict webhook_judge(const struct webhook_schedule *s, const struct webhook_attempt_end *end,
                                   int64_t *wait_ms_out)
{
    if (end->answered && end->status / 100 == 2)
        return WEBHOOK_DELIVERED;
    if (end->answered && end->status == 410)
        return WEBHOOK_GONE;
    if (end->tries > s->count)
        return WEBHOOK_GAVE_UP;
    int64_t wait = s->wait_ms[end->tries > 0 ? end->tries - 1 : 0];
    wait = wait * 9 / 10 + (int64_t)((uint64_t)(wait / 5) * (end->random >> 8) >> 24);
    int64_t asked = end->retry_after_sec < RETRY_AFTER_MAX_SEC ? end->retry_after_sec : RETRY_AFTER_MAX_SEC;
    if (asked * 1000 > wait)
        wait = asked * 1000;
    *wait_ms_out = wait > 0 ? wait : 1;
    return WEBHOOK_RETRY;
}

const char *webhook_verdict_name(enum webhook_verdict v)
{
    switch (v) {
    case WEBHOOK_DELIVERED:
        return "delivered";
    case WEBHOOK_RETRY:
        return "retrying";
    case WEBHOOK_GAVE_UP:
        return "failed";
    case WEBHOOK_GONE:
        return "gone";
    }
    return "failed";
}

/* ---- ids: "msg_", the event's UUID, "_", the last eight bytes of the endpoint's ---- */

enum { ENDPOINT_CHARS = 16 };

static void endpoint_tail(struct uuid endpoint, char out[ENDPOINT_CHARS + 1])
{
    for (int i = 0; i < ENDPOINT_CHARS / 2; i++)
        snprintf(out + (ptrdiff_t)2 * i, 3, "%02x", endpoint.b[8 + i]);
}

void webhook_id_format(struct uuid event, struct uuid endpoint, char out[WEBHOOK_ID_BYTES])
{
    char id[UUID_TEXT_BYTES], tail[ENDPOINT_CHARS + 1];
    uuid_format(event, id);
    endpoint_tail(endpoint, tail);
    snprintf(out, WEBHOOK_ID_BYTES, "msg_%s_%s", id, tail);
}

bool webhook_id_parse(struct str text, struct uuid endpoint, struct uuid *event_out)
{
    char tail[ENDPOINT_CHARS + 1];
    enum { EVENT_AT = 4, TAIL_AT = EVENT_AT + UUID_TEXT_BYTES };
    if (text.n != TAIL_AT + ENDPOINT_CHARS || !str_starts(text, STR("msg_")) || text.p[TAIL_AT - 1] != '_')
        return false;
    endpoint_tail(endpoint, tail);
    return str_eq_c(str_make(text.p + TAIL_AT, ENDPOINT_CHARS), tail) &&
           uuid_parse(str_make(text.p + EVENT_AT, UUID_TEXT_BYTES - 1), event_out);
}
