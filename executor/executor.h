/* The executor's parts as they see each other. One `executor` a process. */
#ifndef EXECUTOR_EXECUTOR_H
#define EXECUTOR_EXECUTOR_H

#include "base/id.h"
#include "loop/loop.h"
#include "postgres/pg.h"
#include "redis/redis.h"
#include "sandbox/provider.h"
#include "settings.h"
#include "store/governor.h"
#include "store/queue.h"

struct executor {
    const struct settings *settings;
    struct loop *loop;
    struct uuid boot; /* this process's life: its consumer name and the owner of its leases */
    struct uuid deployment;
    char client_name[QUEUE_CLIENT_NAME_BYTES]; /* of its connections to Redis */

    struct pg *read, *write_small, *write_large;
    struct redis *redis;
    struct queue *queue;
    struct governor *governor;
    struct provider *provider;

    struct jobs *jobs;     /* everything this process has claimed */
    struct intake *intake; /* invocations */
    struct intake *build_intake;
    struct lease_keeper *leases;
    struct recorder *recorder; /* outcomes on their way to PostgreSQL */
    struct will *will;         /* usage that must not die with this process */
    struct crash *crash;       /* last words */
    struct mirror *mirror;     /* output to those who watch */
    struct versions *versions; /* agent versions, cached */
    struct secrets *secrets;   /* opened, for a moment */
    struct warm *warm;         /* sandboxes made ahead */
    struct metrics *metrics;
    struct spool_budget *spool;
    struct transfers *transfers; /* files on their way in and out */
};

#endif
