/* Webhooks: events and their filters, the schedule of retries, and what an attempt's end means. Pure: no I/O,
 * no clock. The specification is Standard Webhooks (standardwebhooks.com). */
#ifndef MODEL_WEBHOOK_H
#define MODEL_WEBHOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "json/json.h"
#include "json/writer.h"

/* The numbers are those of outbox.event in PostgreSQL; the first six are those of results.status. A filter is
 * a set of bits, 1 << event. */
enum webhook_event {
    WEBHOOK_SUCCEEDED = 1,
    WEBHOOK_FAILED = 2,
    WEBHOOK_TIMED_OUT = 3,
    WEBHOOK_CANCELED = 4,
    WEBHOOK_EXPIRED = 5,
    WEBHOOK_ERROR = 6,
    WEBHOOK_BATCH_COMPLETED = 7,
    WEBHOOK_TEST = 8, /* goes to its endpoint whatever the filter says */
    WEBHOOK_EVENTS = 9,
};

/* "invocation.succeeded" …; NULL for a number that is none. */
const char *webhook_event_name(int event);
/* Whether the event is an invocation's end. */
bool webhook_event_is_invocation(int event);

/* An array of names and "invocation.*", "batch.*", "*" into bits. -1 and *err: which one is unknown, and the
 * nearest known. An empty array is refused. */
int webhook_filter_read(const struct json_value *array, int32_t *bits_out, struct err *err);
/* The bits as an array, "group.*" where a whole group is in. */
void webhook_filter_write(struct json_writer *w, int32_t bits);
enum { WEBHOOK_FILTER_ALL = 0xfe };

/* ---- the schedule ---- */

enum { WEBHOOK_TRIES_MAX = 20 };

/* The waits after the first, second, … attempt; one more attempt than waits is made. */
struct webhook_schedule {
    int64_t wait_ms[WEBHOOK_TRIES_MAX];
    int count;
};

/* The specification's: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h after one another. */
#define WEBHOOK_SCHEDULE_DEFAULT "5s,5m,30m,2h,5h,10h,14h,20h,24h"
/* "5s,5m,2h": units ms, s, m, h; 1 ms to 7 days each. -1 and ERR_CONFIG otherwise. */
int webhook_schedule_read(struct str text, struct webhook_schedule *out, struct err *err);
int webhook_schedule_check(const char *text, struct err *err); /* for configuration tables */

/* What an attempt came to. */
struct webhook_attempt_end {
    int tries;               /* attempts made, this one included */
    int status;              /* 0: no answer */
    bool answered;           /* a whole answer came (or as much of it as is read) */
    int64_t retry_after_sec; /* -1: not said */
    uint32_t random;         /* for jitter */
};

enum webhook_verdict {
    WEBHOOK_DELIVERED = 1, /* 2xx, nothing else */
    WEBHOOK_RETRY = 2,
    WEBHOOK_GAVE_UP = 3, /* the attempts are spent */
    WEBHOOK_GONE = 4,    /* 410: the receiver wants no more */
};

/* For WEBHOOK_RETRY *wait_ms_out is the schedule's wait with jitter (90 to 110 %), or what Retry-After asked
 * for when that is longer, up to a day. */
enum webhook_verdict webhook_judge(const struct webhook_schedule *s, const struct webhook_attempt_end *end,
                                   int64_t *wait_ms_out);
const char *webhook_verdict_name(enum webhook_verdict v); /* "delivered", "retrying", "failed", "gone" */

/* ---- ids ---- */

enum { WEBHOOK_ID_BYTES = 64 };

/* The webhook-id of an event at an endpoint: the same for every attempt, and for every redelivery. endpoint
 * is the event's own id for the hook that came with a submission. */
void webhook_id_format(struct uuid event, struct uuid endpoint, char out[WEBHOOK_ID_BYTES]);
/* The event's id out of a webhook-id of that endpoint. */
bool webhook_id_parse(struct str text, struct uuid endpoint, struct uuid *event_out);

#endif
