/* A claimed job: one attempt of an invocation, or one build. Owned by the table of jobs from its claim until
 * its lease was released or lost. */
#ifndef EXECUTOR_JOB_H
#define EXECUTOR_JOB_H

#include "executor.h"
#include "loop/flow.h"
#include "spool.h"
#include "store/settle.h"
#include "versions.h"

/* Where a job stands; written only by job_enter. */
enum job_phase {
    JOB_STARTING,  /* leased; its sandbox is not running the program yet */
    JOB_RUNNING,   /* the program has started */
    JOB_RECORDING, /* its outcome is on the way to PostgreSQL */
    JOB_RELEASING, /* durable; the lease is being released */
    JOB_GONE,      /* about to be freed */
};

/* What Redis knows of its usage (will.h). */
enum job_will {
    WILL_NONE,    /* nothing was sent */
    WILL_ASKED,   /* on its way */
    WILL_UNKNOWN, /* refused, or perhaps forgotten since */
    WILL_KNOWN,
};

struct job {
    struct job *prev, *next; /* of the table */
    struct executor *x;
    enum job_phase phase;
    struct lease lease;
    struct entry entry; /* entry.prompt: see prompt */
    char *prompt;       /* owned; NULL until fetched when it was not inline */
    struct flow flow;

    struct version version; /* a copy of what is needed to run */
    struct sandbox sandbox;
    bool has_sandbox;                /* created and not known destroyed */
    bool holds_permit;               /* of the governor */
    bool create_sent;                /* its permit was used */
    bool warm;                       /* its sandbox was made ahead (warm.h) */
    bool noted;                      /* the will may say that it holds that one */
    struct sandbox_request *request; /* the provider call under way */
    int64_t pid;
    struct files_in *files_in; /* files_in.h; NULL: none came along, or they are there */
    struct collect *collect;   /* collect.h; NULL: its program has not ended, or leaves nothing */
    struct usage_scan *usage_scan;

    wall_t claimed_at, started_at;                            /* of the job; of its program */
    wall_t held_since;                                        /* a warm sandbox */
    mono_t asked_at, began_at, over_at, sandbox_at, ended_at; /* over: its program */
    struct sandbox_exit exit;                                 /* how, then */
    struct spool out, err;
    struct environment *environment;          /* secrets, opened; NULL: none */
    struct redactor *redact_out, *redact_err; /* NULL: nothing is looked for */
    bool out_redacted;                        /* something was taken out of stdout */
    struct tail *tail;                        /* the mirror's; NULL: nobody watches */

    /* How it ended, filled on the way. */
    bool cut_off;  /* its stream broke and was not taken up again yet */
    bool overdue;  /* its limit passed meanwhile */
    bool canceled; /* the caller wants it stopped */
    bool fenced;   /* somebody else owns the invocation now: report usage only */
    bool leaving;  /* this process stops: handed back as soon as may be */
    struct outcome outcome;
    char signal[16], message[240];
    struct buf output_copy, logs_copy; /* inline results, alive until the commit */
    enum job_will will;
    int refusals;          /* of its outcome, by the database */
    struct job *held_next; /* the recorder's: waits for room */
    void *aux;             /* of the flow (builds) */
    void (*free_aux)(struct job *j);
};

struct jobs;
struct jobs *jobs_new(struct executor *x);
void jobs_free(struct jobs **jobs);

/* A job of this kind is running here already (a delivery repeated)? */
struct job *jobs_find(struct jobs *jobs, struct uuid id);
int jobs_count(const struct jobs *jobs, enum entry_kind kind);
struct job *jobs_first(struct jobs *jobs);
/* The governor's permits that jobs, and sandboxes being destroyed, hold. */
int jobs_permits(const struct jobs *jobs);
/* Jobs that were claimed without one, for a sandbox made ahead, and have none yet. */
int jobs_without_permit(const struct jobs *jobs);
/* Sandboxes being destroyed. */
int jobs_destroying(const struct jobs *jobs);
/* This process stops: what has not come to an end is handed back to the queue (an outcome on its way goes on
 * its way). Effects once. */
void jobs_hand_back(struct jobs *jobs);

/* Makes a job from a delivery (copies the prompt). NULL without memory. */
struct job *job_new(struct executor *x, const struct lease *lease, const struct entry *entry);
void job_enter(struct job *j, enum job_phase phase);
void job_free(struct job *j);

/* The caller cancels it; the executor lost it to somebody else. Either stops it; effects once. */
void job_cancel(struct job *j);
void job_fence(struct job *j);

/* Destroys its sandbox in the background, if it has one; gives the permit back when it is gone. */
void job_destroy_sandbox(struct job *j);
/* The same for a sandbox that the attempt never used: it counts as not held. */
void job_disown(struct job *j);
/* The same for one that is nobody's; permit: it holds one. */
void jobs_destroy(struct jobs *jobs, const char *sandbox_id, bool permit);

/* ---- the two kinds' flows ---- */

void run_start(struct job *j);   /* run.c */
void run_stop(struct job *j);    /* canceled, fenced or leaving: end now */
void build_start(struct job *j); /* build.c */
void build_stop(struct job *j);

#endif
