/* The dispatcher's parts as they see each other. One `dispatcher` a process; each duty is a file with one
 * struct, a
 * `_new`, a `_free`, and a timer of its own. Duties run while this process leads (lead.h); every one of them
 * is idempotent in PostgreSQL, so two leaders are harmless. */
#ifndef DISPATCHER_DISPATCHER_H
#define DISPATCHER_DISPATCHER_H

#include "base/id.h"
#include "loop/loop.h"
#include "postgres/pg.h"
#include "redis/redis.h"
#include "sandbox/provider.h"
#include "settings.h"
#include "store/governor.h"
#include "store/queue.h"
#include "store/settle.h"

struct dispatcher {
    const struct settings *settings;
    struct loop *loop;
    struct uuid boot; /* this process's life: its token for the lead, its mark on what it settles */
    struct uuid deployment;
    struct pg *pg, *settle_pg;
    struct redis *redis;
    struct queue *queue;
    struct governor *governor;
    struct provider *provider;

    struct lead *lead;
    struct watch *watch;
    struct feeder *feeder;
    struct batches *batches;
    struct retries *retries;
    struct deadlines *deadlines;
    struct reclaim *reclaim;
    struct reaper *reaper;
    struct boots *boots;
    struct audit *audit;
    struct schedules *schedules;
    struct housekeeping *housekeeping;
    struct sums *sums;
    struct retire *retire;
    struct verdicts *verdicts;
    struct webhooks *webhooks;
};

enum { DB_MS = 30000 /* the deadline of a duty's query */ };

#endif
