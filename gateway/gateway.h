/* The gateway's parts as they see each other. One `gateway` a process; modules receive only what they use
 * where that is little, and this struct where they serve requests. */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "base/id.h"
#include "cursor.h"
#include "env_input.h"
#include "loop/loop.h"
#include "loop/work.h"
#include "metrics.h"
#include "postgres/pg.h"
#include "redis/redis.h"
#include "settings.h"
#include "store/queue.h"
#include "webhook_input.h"

struct gateway {
    const struct settings *settings;
    struct loop *loop;
    struct uuid boot; /* this process's life */
    struct work_pool *pool;
    struct http_server *server;

    /* PostgreSQL: reads share one connection; writers have their own (store/writer.h). All writing ones hold
     * the boot's lock. */
    struct pg *read, *write_small, *write_large, *write_keyed, *files;
    struct pg *lists; /* lists: reading much, they must not hold up what somebody waits for */
    struct pg *load;  /* batches: one COPY at a time, which may take a while */
    struct redis *redis;
    struct queue *queue;

    struct contract *contract;
    struct docs *docs;
    struct auth *auth;
    struct ratelimit *ratelimit;
    struct targets *targets; /* agent slugs resolved */
    struct submitter *submitter;
    struct handoff *handoff; /* committed jobs on their way to Redis */
    struct settler *settler; /* cancels of jobs that nobody runs */
    struct waiters *waiters;
    struct streams *streams; /* live streams */
    struct build_watch *build_watch;
    struct health *health;
    struct webhook_rules webhook_rules;
    struct env_rules env_rules;
    struct cursor_key cursor_key; /* the deployment's */
    struct metrics metrics;
    int uploads;           /* archives on their way (deploy.c) */
    int file_intakes;      /* submissions' files on their way (file_intake.c) */
    int batch_uploads;     /* batches on their way (batch_upload.c) */
    int64_t batch_spooled; /* bytes that they hold in the spool directory */
    int build_followers;   /* callers who follow logs of builds (build_log.c) */
    int batch_streams;     /* callers who are sent results (batch_results.c) */
    bool draining;         /* told to stop: what waits long is let go */
};

#endif
