/* Schedules: invocations that come again and again. Times on the wall are model/cron.h's; what instants they
 * are is PostgreSQL's to say, which knows the time zones. */
#ifndef STORE_SCHEDULES_H
#define STORE_SCHEDULES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "model/cron.h"
#include "model/invocation.h"
#include "postgres/pg.h"

enum { SCHEDULES_MAX = 1000 /* of a tenant */, TIME_ZONE_MAX = 64 };

/* Views are valid during the callback, or as long as their owner says. */
struct schedule {
    struct uuid id, api_key;
    int32_t tenant;
    struct str name, cron, time_zone, agent;
    bool enabled;
    int32_t version; /* 0: the serving one */
    enum inv_priority priority;
    int32_t timeout_ms; /* 0: the agent's */
    int64_t queue_timeout_ms;
    int16_t max_attempts, retry_on; /* 0: the agent's */
    struct str prompt, metadata;
    wall_t next_at, last_at, created_at; /* 0: none */
    struct uuid last_invocation;         /* zero: none */
    struct str last_error;
};

/* What the clock on the wall shows in a time zone. ERR_PG_DATA: there is no such zone. */
typedef void schedule_clock_fn(void *arg, struct cron_minute now, const struct err *err);
int schedule_clock(struct pg *pg, struct str time_zone, int64_t deadline_ms, schedule_clock_fn *fn, void *arg,
                   struct err *err);

enum schedule_put { SCHEDULE_MADE, SCHEDULE_NAME_TAKEN, SCHEDULE_TOO_MANY };
/* Makes one that fires first at that minute. every_hour: as cron_every_hour has it. next_at: as it was
 * planned. */
typedef void schedule_put_fn(void *arg, enum schedule_put what, wall_t next_at, const struct err *err);
int schedule_put(struct pg *pg, const struct schedule *s, struct cron_minute next, bool every_hour,
                 int64_t deadline_ms, schedule_put_fn *fn, void *arg, struct err *err);

/* By name: one (name not empty), or up to limit after a name. */
typedef void schedules_fn(void *arg, const struct schedule *list, size_t n, const struct err *err);
int schedules_get(struct pg *pg, int32_t tenant, struct str name, struct str after, int limit,
                  int64_t deadline_ms, schedules_fn *fn, void *arg, struct err *err);

/* found: there was one of that name. Both may be repeated. */
typedef void schedule_change_fn(void *arg, bool found, const struct err *err);
int schedule_delete(struct pg *pg, int32_t tenant, struct str name, int64_t deadline_ms,
                    schedule_change_fn *fn, void *arg, struct err *err);
int schedule_enable(struct pg *pg, int32_t tenant, struct str name, bool enabled, int64_t deadline_ms,
                    schedule_change_fn *fn, void *arg, struct err *err);

/* ---- the dispatchers' ---- */

struct schedule_due {
    struct uuid id;
    int32_t tenant;
    struct str cron;
    bool planned; /* false: only to be planned */
    wall_t next_at;
    struct cron_minute now; /* on its wall */
};
typedef void schedules_due_fn(void *arg, const struct schedule_due *list, size_t n, const struct err *err);
int schedules_due(struct pg *pg, int limit, int64_t deadline_ms, schedules_due_fn *fn, void *arg);

/* Moves it on to `next` unless another has; one that was planned makes its invocation of that id in the same
 * statement. made: it did. Of an unknown outcome: it may have. */
typedef void schedule_fire_fn(void *arg, bool made, const struct err *err);
int schedule_fire(struct pg *pg, const struct schedule_due *due, struct uuid invocation,
                  struct cron_minute next, bool every_hour, int64_t deadline_ms, schedule_fire_fn *fn,
                  void *arg);

#endif
