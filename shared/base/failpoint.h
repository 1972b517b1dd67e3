/* Fail-points: named places where a test may kill, crash, stop or delay a daemon; and the clock hook.
 *
 * Compiled in only with the CMake option SP_FAILPOINTS, which builds with tests have and a Release never;
 * without it FAILPOINT(...) is nothing and no name is left in the program (tests/lint/check_failpoints).
 *
 * A daemon that finds SANDPIPER_FAILPOINTS in its environment maps the file of that name. It holds one slot a
 * row of the table below: what to do there, after how many hits, how often; and how often the place was hit.
 * A test writes into the file at any moment (tests/e2e/failpoints.py has the layout once more). Daemons that
 * share a file share its slots: an action armed once is done by whoever comes first.
 *
 * To add one: a row here, FAILPOINT(name) at its place, and a load that reaches it in
 * tests/chaos/test_failpoints.py, which fails for a row that it does not know. */
#ifndef BASE_FAILPOINT_H
#define BASE_FAILPOINT_H

#include <stdint.h>

#include "base/err.h"

/* X(name, what is so at that moment); the first part of a name is the daemon, but for `commit_`: every daemon
 * commits in groups. */
#define FAILPOINT_TABLE(X)                                                                    \
    X(commit_begin, "rows of a group are collected, its statement is not sent")               \
    X(commit_sent, "a group's statement is sent, its answer has not come")                    \
    X(commit_done, "the group is durable, nobody was told")                                   \
    X(gateway_committed, "a submission is durable, its caller not answered, Redis not told")  \
    X(gateway_answered, "its caller is answered, Redis not told")                             \
    X(gateway_handed, "Redis has it, the boot's lowest unconfirmed id has not moved")         \
    X(gateway_key_begin, "a submission with an idempotency key is about to be sent")          \
    X(gateway_key_done, "it is durable, who owns the key was not read back")                  \
    X(gateway_batch_begin, "a batch is admitted, none of its rows is copied")                 \
    X(gateway_batch_done, "a batch is durable, its caller not answered")                      \
    X(gateway_deploy_done, "a version is durable, its build not queued")                      \
    X(executor_permitted, "permits of the governor are held, nothing was read for them")      \
    X(executor_read, "entries were delivered, none is leased")                                \
    X(executor_leased, "leases are held, no flow has begun")                                  \
    X(executor_create, "a create is about to be sent")                                        \
    X(executor_created, "the sandbox is there, nobody else knows")                            \
    X(executor_warm, "a create ahead is about to be sent")                                    \
    X(executor_warmed, "a sandbox made ahead is there, nobody else knows")                    \
    X(executor_noted, "a warm sandbox is in the executor's will, its program not started")    \
    X(executor_upload, "a large prompt is about to be uploaded")                              \
    X(executor_started, "the program has started, Redis does not know")                       \
    X(executor_spill, "output is about to go to an unlinked file")                            \
    X(executor_ended, "the program has ended, nothing is recorded")                           \
    X(executor_chunk, "one chunk of a large output is durable")                               \
    X(executor_willed, "a slow outcome's usage is in the executor's will, the sandbox lives") \
    X(executor_settling, "an outcome is about to be handed to the group of the next commit")  \
    X(executor_settled, "the outcome is durable, the lease is held, the sandbox lives")       \
    X(executor_retried, "the next attempt is durable, the lease is held, the sandbox lives")  \
    X(executor_destroyed, "the sandbox is gone, its permit not given back")                   \
    X(executor_released, "the lease is given up and the callers told")                        \
    X(executor_cancel, "told to cancel a job that it runs")                                   \
    X(executor_back, "about to hand a job back to its stream")                                \
    X(executor_handed_back, "a job is back on its stream")                                    \
    X(executor_leave, "about to strike itself off the register")                              \
    X(executor_build_upload, "a build's sandbox is there and empty")                          \
    X(executor_build_log, "a piece of a build's log is durable, the executor does not know")  \
    X(executor_build_installed, "the install command has succeeded")                          \
    X(executor_build_snapshot, "the snapshot is made, nobody else knows")                     \
    X(executor_build_done, "the version is ready, the lease is held")                         \
    X(dispatcher_feed, "waiting rows were read, Redis was not told")                          \
    X(dispatcher_fed, "Redis has them, the cursor has not moved")                             \
    X(dispatcher_retry, "due attempts were read, Redis was not told")                         \
    X(dispatcher_retried, "Redis has them")                                                   \
    X(dispatcher_bury, "an executor was found dead, nothing is done about it")                \
    X(dispatcher_bury_attempt, "a lost job's next attempt is durable, its lease stands")      \
    X(dispatcher_bury_requeued, "a lost job is back on its stream")                           \
    X(dispatcher_bury_strike, "all its jobs are back, it stands on the register")             \
    X(dispatcher_buried, "it is struck off, its sandboxes live")                              \
    X(dispatcher_reap, "an orphaned sandbox is found, its usage is not written")              \
    X(dispatcher_reap_kill, "the usage is durable, the sandbox lives")                        \
    X(dispatcher_reaped, "the orphaned sandbox is gone")                                      \
    X(dispatcher_reset, "a loss was found, the old epoch stands")                             \
    X(dispatcher_rebuild, "the new epoch has begun, no tenant is marked")                     \
    X(dispatcher_rebuilt, "tenants are marked, the rebuild does not count as done")           \
    X(dispatcher_boot, "a dead gateway's connections are ended, no tenant is marked")         \
    X(dispatcher_boot_marked, "its tenants are marked, its row stands")                       \
    X(dispatcher_batch, "a batch's step is about to be sent")                                 \
    X(dispatcher_batch_fed, "the batch's cursor has moved, Redis was not told")               \
    X(dispatcher_verdict, "an end of ours is about to be recorded")                           \
    X(dispatcher_verdict_done, "it is durable, nobody was told")                              \
    X(dispatcher_webhook, "due webhooks are taken under a lease")                             \
    X(dispatcher_webhook_sent, "a webhook is sent, its end not recorded")                     \
    X(dispatcher_webhook_done, "webhooks' ends are durable")                                  \
    X(dispatcher_schedule, "a schedule is due, nothing was sent")                             \
    X(dispatcher_schedule_fired, "its invocation is durable, nobody was told")                \
    X(dispatcher_sum, "deltas of usage are about to be folded")                               \
    X(dispatcher_summed, "they are folded")

#ifdef SP_FAILPOINTS

enum failpoint {
#define FAILPOINT_ENUM(name, what) FAILPOINT_##name,
    FAILPOINT_TABLE(FAILPOINT_ENUM)
#undef FAILPOINT_ENUM
        FAILPOINT_COUNT
};

/* Counts the hit and does what is armed there. A slot armed for a job counts that job's hits alone
 * (base/culprit.h). */
#define FAILPOINT(name) failpoint_hit(FAILPOINT_##name)
void failpoint_hit(enum failpoint at);

/* Maps the file that SANDPIPER_FAILPOINTS names, if it does. ERR_CONFIG when it is not of this table. */
int failpoint_open(struct err *err);

/* What tests have moved the wall clock by, microseconds. */
int64_t failpoint_clock_us(void);

#else

#define FAILPOINT(name) ((void)0)

static inline int failpoint_open(struct err *err)
{
    (void)err;
    return 0;
}

static inline int64_t failpoint_clock_us(void)
{
    return 0;
}

#endif
#endif
