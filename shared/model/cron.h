/* When a schedule fires: cron's five fields (POSIX crontab, with Vixie cron's names, steps and @words).
 *
 *   minute 0-59   hour 0-23   day of month 1-31   month 1-12 or jan-dec   day of week 0-7 or sun-sat (0 and
 * 7: Sunday)
 *
 * A field is `*`, a number, a range a-b, any of them with a step /n, or a list of these. When both days are
 * restricted a day fits that fits either. @hourly @daily @midnight @weekly @monthly @yearly @annually stand
 * for what they say.
 *
 * Pure: on wall-clock minutes of the schedule's own time zone. What instant such a minute is, is PostgreSQL's
 * to say. */
#ifndef MODEL_CRON_H
#define MODEL_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { CRON_TEXT_MAX = 200 };

struct cron {
    uint64_t minutes; /* a bit each */
    uint32_t hours, days, months, weekdays;
    bool any_day, any_weekday; /* the field began with `*` */
};

/* A minute on the wall. month and day from 1. */
struct cron_minute {
    int year, month, day, hour, minute;
};

/* -1 and ERR_BAD_FIELD, which says which field is wrong and how; also for what never comes (30 February). */
int cron_parse(struct str text, struct cron *out, struct err *err);

/* The first minute later than `after` that fits. False when none comes within twelve years, which cron_parse
 * rules out. */
bool cron_next(const struct cron *c, struct cron_minute after, struct cron_minute *next_out);

/* Whether every hour fits: such a schedule goes by elapsed time while a clock is changed. */
bool cron_every_hour(const struct cron *c);

#endif
