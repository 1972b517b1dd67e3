/* store/queue: the scripts, each state of a job's life on Redis; against a private real server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/governor.h"
#include "store/queue.h"
#include "store/queue_will.h"

enum { WINDOW = 4, TENANT = 7 };

static struct loop *loop;
static char dir[32] = "/tmp/sp-queue-XXXXXX";
static char url[80];
static pid_t server;
static struct redis *redis;
static struct queue *q;
static struct uuid boot_a, boot_b;

/* One answer of any kind; the loop stops with it. */
static struct {
    int8_t verdicts[64];
    size_t n;
    struct err err;
    struct queue_backlog backlog[8];
    struct queue_delivery got[32];
    enum queue_cancel cancel;
    bool lead, missing;
    char epoch[40];
    struct uuid cancels[8];
    struct queue_live live[8];
    int64_t value;
    int granted;
    int64_t wait_ms;
    struct queue_identity identity;
    bool reset;
    size_t alive;
    struct uuid culprit;
} a;

static void take_err(const struct err *err)
{
    a.err = err != NULL ? *err : ERR_INIT;
    loop_stop(loop);
}

static void too_late(void *arg)
{
    (void)arg;
    fail_msg("the test waited too long");
}

static void run(void)
{
    struct loop_timer *guard = loop_timer_new(loop, too_late, NULL);
    loop_timer_start(guard, 15000);
    loop_run(loop);
    loop_timer_free(&guard);
    if (a.err.code != ERR_NONE)
        fail_msg("%s", a.err.msg);
}

static void on_verdicts(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    (void)arg;
    a.n = n;
    if (n > 0)
        memcpy(a.verdicts, verdicts, n);
    take_err(err);
}

static void on_done(void *arg, const struct err *err)
{
    (void)arg;
    take_err(err);
}

static void on_command(void *arg, const struct redis_reply *r, const struct err *err)
{
    (void)arg;
    a.value = r != NULL ? redis_int(r) : -1;
    take_err(err);
}

static int64_t ask(const char *words)
{
    struct str argv[16], rest = str_of(words);
    int argc = 0;
    while (argc < 16 && str_split(&rest, ' ', &argv[argc]))
        argc++;
    assert_non_null(redis_command(redis, argv, argc, 5000, on_command, NULL, NULL));
    run();
    return a.value;
}

static struct entry job(void)
{
    return (struct entry){.kind = ENTRY_INVOCATION,
                          .id = uuid_new(),
                          .tenant = TENANT,
                          .agent = uuid_new(),
                          .version = 1,
                          .attempt = 1,
                          .max_attempts = 1,
                          .priority = INV_NORMAL,
                          .timeout_ms = 1000,
                          .prompt_bytes = 2,
                          .prompt_inline = true,
                          .prompt = STR("hi")};
}

static void enqueue(enum queue_source source, const struct entry *jobs, size_t n)
{
    assert_int_equal(queue_enqueue(q, source, queue_fence(q), jobs, n, on_verdicts, NULL, NULL), 0);
    run();
    assert_int_equal(a.n, n);
}

static void on_read(void *arg, const struct queue_delivery *items, size_t n, const struct err *err)
{
    (void)arg;
    a.n = n < 32 ? n : 32;
    memcpy(a.got, items, a.n * sizeof *items);
    take_err(err);
}

static size_t read_as(struct uuid boot, bool pending)
{
    static const char *const streams[] = {"sp:q:normal:0", NULL};
    char consumer[UUID_TEXT_BYTES];
    uuid_format(boot, consumer);
    assert_int_equal(queue_read(redis, consumer, streams, 32, 0, pending, on_read, NULL, NULL), 0);
    run();
    return a.n;
}

/* Claims what was read last. */
static void claim_as(struct uuid boot)
{
    struct queue_claim items[32];
    size_t n = a.n;
    for (size_t i = 0; i < n; i++)
        items[i] = (struct queue_claim){.lease = &a.got[i].lease, .epoch = a.got[i].epoch};
    assert_int_equal(queue_claim(q, boot, items, n, on_verdicts, NULL), 0);
    run();
}

static void on_states(void *arg, const struct queue_live *items, size_t n, const struct err *err)
{
    (void)arg;
    memcpy(a.live, items, n * sizeof *items);
    take_err(err);
}

static enum inv_state state_of(struct uuid id)
{
    assert_int_equal(queue_states(q, &id, 1, on_states, NULL, NULL), 0);
    run();
    return a.live[0].state;
}

static void release(const struct lease *l, struct uuid boot)
{
    assert_int_equal(queue_release(q, boot, &l, 1, str_of(NULL), on_done, NULL), 0);
    run();
}

static void on_beat(void *arg, struct str epoch, bool missing, const struct uuid *cancels, size_t n,
                    const struct err *err)
{
    (void)arg;
    str_copy(epoch, a.epoch, sizeof a.epoch);
    a.missing = missing;
    a.n = n;
    if (n > 0)
        memcpy(a.cancels, cancels, n * sizeof *cancels);
    take_err(err);
}

static void beat(struct uuid boot)
{
    assert_int_equal(queue_beat(q, boot, 0, on_beat, NULL), 0);
    run();
}

static void on_cancel(void *arg, enum queue_cancel what, const struct err *err)
{
    (void)arg;
    a.cancel = what;
    take_err(err);
}

static enum queue_cancel cancel(struct uuid id)
{
    assert_int_equal(queue_cancel(q, id, on_cancel, NULL, NULL), 0);
    run();
    return a.cancel;
}

static enum queue_cancel withdraw(struct uuid id)
{
    assert_int_equal(queue_withdraw(q, id, on_cancel, NULL), 0);
    run();
    return a.cancel;
}

static int64_t window(void)
{
    return ask("HGET sp:tw 7");
}

static void on_identity(void *arg, const struct queue_identity *id, const struct err *err)
{
    (void)arg;
    if (id != NULL)
        a.identity = *id;
    take_err(err);
}

static void look(void)
{
    assert_int_equal(queue_identity(q, on_identity, NULL), 0);
    run();
}

static void on_reset(void *arg, bool done, const struct err *err)
{
    (void)arg;
    a.reset = done;
    take_err(err);
}

static bool reset_over(const char *epoch)
{
    struct queue_identity id = {.now = "run/repl"};
    str_copy(str_of(epoch), id.epoch, sizeof id.epoch);
    assert_int_equal(queue_reset(q, uuid_new(), &id, on_reset, NULL), 0);
    run();
    return a.reset;
}

static void reset(bool hold)
{
    look();
    assert_true(reset_over(a.identity.epoch));
    if (!hold)
        ask("DEL sp:hold");
}

static int fresh(void **state)
{
    (void)state;
    ask("FLUSHALL");
    reset(false);
    return 0;
}

/* ---- enqueueing and the backlog ---- */

static void enqueue_and_window(void **state)
{
    (void)state;
    struct entry jobs[6];
    for (int i = 0; i < 6; i++)
        jobs[i] = job();
    enqueue(QUEUE_FIRST, jobs, 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(a.verdicts[i], i < WINDOW ? QUEUE_ADDED : QUEUE_WAITS);
    assert_int_equal(window(), WINDOW);
    assert_int_equal(ask("XLEN sp:q:normal:0"), WINDOW);
    enqueue(QUEUE_FED, jobs, 6); /* again: known, or still no room */
    for (int i = 0; i < 6; i++)
        assert_int_equal(a.verdicts[i], i < WINDOW ? QUEUE_KNOWN : QUEUE_WAITS);
    assert_int_equal(ask("XLEN sp:q:normal:0"), WINDOW);
    struct entry other = job();
    other.tenant = TENANT + 1;
    enqueue(QUEUE_FIRST, &other, 1); /* others are not touched */
    assert_int_equal(a.verdicts[0], QUEUE_ADDED);
}

/* A dispatcher found the job, it ran and ended; then its gateway, which had been frozen, sends it. */
static void what_comes_late_is_to_be_checked(void **state)
{
    (void)state;
    struct entry e = job(), next = job();
    struct uuid before = queue_fence(q), boot = uuid_new();
    enqueue(QUEUE_FOUND, &e, 1);
    assert_int_equal(read_as(boot, false), 1);
    struct lease lease = a.got[0].lease;
    claim_as(boot);
    release(&lease, boot);
    assert_int_equal(queue_enqueue(q, QUEUE_FIRST, before, &e, 1, on_verdicts, NULL, NULL), 0);
    run();
    assert_int_equal(a.verdicts[0], QUEUE_ADDED); /* Redis does not know it any more */
    assert_int_equal(read_as(boot, false), 1);
    assert_false(a.got[0].first);
    enqueue(QUEUE_FIRST, &next, 1); /* its commit began when the new fence was known */
    assert_int_equal(read_as(boot, false), 1);
    assert_true(a.got[0].first);
}

static void on_backlog(void *arg, const struct queue_backlog *items, size_t n, const struct err *err)
{
    (void)arg;
    a.n = n;
    if (n > 0)
        memcpy(a.backlog, items, n * sizeof *items);
    take_err(err);
}

static void take_backlog(void)
{
    assert_int_equal(queue_backlog_take(q, on_backlog, NULL), 0);
    run();
}

static void backlog_marks(void **state)
{
    (void)state;
    struct entry jobs[6], late = job(), later = job();
    for (int i = 0; i < 6; i++)
        jobs[i] = job();
    enqueue(QUEUE_FIRST, jobs, 6);
    take_backlog();
    assert_int_equal(a.n, 1);
    assert_int_equal(a.backlog[0].tenant, TENANT);
    assert_true(a.backlog[0].has_low && uuid_eq(a.backlog[0].low, jobs[4].id));
    assert_int_equal(a.backlog[0].in_window, WINDOW);
    struct queue_backlog seen = a.backlog[0];
    enqueue(QUEUE_FIRST, &late, 1); /* between the take and the clear: a newer generation */
    assert_int_equal(a.verdicts[0], QUEUE_WAITS);
    queue_backlog_clear(q, &seen, 1);
    take_backlog();
    assert_int_equal(a.n, 1); /* not cleared */
    assert_true(a.backlog[0].has_low && uuid_eq(a.backlog[0].low, late.id));
    assert_true(a.backlog[0].generation > seen.generation);
    seen = a.backlog[0];
    take_backlog();
    assert_false(a.backlog[0].has_low); /* taken once */
    queue_backlog_clear(q, &seen, 1);
    take_backlog();
    assert_int_equal(a.n, 0);
    const struct queue_mark mark = {.tenant = TENANT, .low = late.id};
    assert_int_equal(queue_mark(q, &mark, 1, on_done, NULL), 0);
    run();
    ask("DEL sp:tw");
    enqueue(QUEUE_FIRST, &later, 1); /* room, but the tenant's older work goes first */
    assert_int_equal(a.verdicts[0], QUEUE_WAITS);
    take_backlog();
    assert_true(uuid_eq(a.backlog[0].low, late.id));
}

static void closed_while_rebuilding(void **state)
{
    (void)state;
    struct entry e = job();
    reset(true);
    enqueue(QUEUE_FIRST, &e, 1);
    assert_int_equal(a.verdicts[0], QUEUE_WAITS);
    enqueue(QUEUE_FED, &e, 1);
    assert_int_equal(a.verdicts[0], QUEUE_WAITS);
    assert_int_equal(cancel(e.id), QUEUE_CANCEL_UNKNOWN);
    assert_int_equal(withdraw(e.id), QUEUE_CANCEL_UNKNOWN);
    ask("DEL sp:hold");
    take_backlog();
    assert_true(a.backlog[0].has_low); /* marked under the hold */
    assert_int_equal(withdraw(e.id), QUEUE_CANCEL_ABSENT);
    ask("FLUSHALL");
    enqueue(QUEUE_FIRST, &e, 1);
    assert_int_equal(a.verdicts[0], QUEUE_WAITS);
    assert_int_equal(cancel(e.id), QUEUE_CANCEL_UNKNOWN);
    assert_int_equal(withdraw(e.id), QUEUE_CANCEL_UNKNOWN);
}

/* ---- leases ---- */

static void claimed_once(void **state)
{
    (void)state;
    struct entry e = job();
    enqueue(QUEUE_FIRST, &e, 1);
    assert_int_equal(read_as(boot_a, false), 1);
    assert_true(a.got[0].first && !a.got[0].broken);
    struct lease l = a.got[0].lease;
    claim_as(boot_a);
    assert_int_equal(a.verdicts[0], 1);
    assert_int_equal(window(), 0);
    assert_int_equal(state_of(e.id), INV_STARTING);
    assert_true(uuid_eq(a.live[0].owner, boot_a));
    assert_int_equal(read_as(boot_a, true), 1); /* a lost reply: the pending list, and the claim again */
    claim_as(boot_a);
    assert_int_equal(a.verdicts[0], 1);
    assert_int_equal(read_as(boot_b, false), 0);
    const struct lease *lp = &l;
    queue_progress(q, boot_b, &lp, 1); /* not its own */
    assert_int_equal(state_of(e.id), INV_STARTING);
    queue_progress(q, boot_a, &lp, 1);
    assert_int_equal(state_of(e.id), INV_RUNNING);
    assert_int_equal(withdraw(e.id), QUEUE_CANCEL_RUNNING);
    assert_int_equal(state_of(e.id), INV_RUNNING); /* left alone */
    release(&l, boot_a);
    assert_int_equal(state_of(e.id), INV_NONE);
    assert_int_equal(ask("XLEN sp:q:normal:0"), 0);
    assert_int_equal(read_as(boot_a, true), 0);
}

static void superseded_entries(void **state)
{
    (void)state;
    struct entry e = job();
    enqueue(QUEUE_FIRST, &e, 1);
    read_as(boot_a, false);
    struct queue_delivery old = a.got[0];
    usleep(2000); /* entries are named by the millisecond, and a rebuild takes seconds */
    reset(false); /* a rebuild: the old entry is from another epoch */
    enqueue(QUEUE_FED, &e, 1);
    a.got[0] = old;
    a.n = 1;
    claim_as(boot_a);
    assert_int_equal(a.verdicts[0], 0);
    assert_int_equal(state_of(e.id), INV_QUEUED);
    assert_int_equal(read_as(boot_b, false), 1);
    assert_false(a.got[0].first);
    claim_as(boot_b);
    assert_int_equal(a.verdicts[0], 1);
    release(&old.lease, boot_a); /* a late release of the former owner */
    assert_int_equal(state_of(e.id), INV_STARTING);
}

static void asserting(void **state)
{
    (void)state;
    struct entry e = job();
    enqueue(QUEUE_FIRST, &e, 1);
    read_as(boot_a, false);
    struct lease l = a.got[0].lease, other = l;
    claim_as(boot_a);
    const struct queue_assert_item mine = {.lease = &l, .running = true};
    assert_int_equal(queue_assert(q, boot_a, &mine, 1, on_verdicts, NULL), 0);
    run();
    assert_int_equal(a.verdicts[0], 1);
    assert_int_equal(state_of(e.id), INV_RUNNING);
    queue_assert(q, boot_b, &mine, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 0); /* another owner */
    other.attempt = 2;
    const struct queue_assert_item next = {.lease = &other};
    queue_assert(q, boot_a, &next, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 0); /* another attempt */
    reset(false);
    queue_assert(q, boot_a, &mine, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 1); /* a missing record is put back */
    usleep(2000);
    reset(false);
    enqueue(QUEUE_FED, &e, 1);
    queue_assert(q, boot_a, &mine, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 1); /* fed again, not claimed: taken back */
    assert_int_equal(window(), 0);
    assert_int_equal(read_as(boot_b, false), 1);
    claim_as(boot_b);
    assert_int_equal(a.verdicts[0], 0);
}

static void requeueing(void **state)
{
    (void)state;
    struct entry e = job();
    enqueue(QUEUE_FIRST, &e, 1);
    read_as(boot_a, false);
    struct queue_requeue_item item = {.lease = a.got[0].lease};
    claim_as(boot_a);
    e.attempt = 2;
    item.again = &e;
    queue_requeue(q, &boot_b, &item, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 0); /* not b's */
    queue_requeue(q, &boot_a, &item, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 1);
    assert_int_equal(window(), 1);
    assert_int_equal(ask("XLEN sp:q:normal:0"), 1);
    queue_requeue(q, &boot_a, &item, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 0); /* once */
    assert_int_equal(read_as(boot_b, false), 1);
    assert_int_equal(a.got[0].lease.attempt, 2);
    item.lease = a.got[0].lease; /* delivered, never leased: as it was */
    queue_requeue(q, NULL, &item, 1, on_verdicts, NULL);
    run();
    assert_int_equal(a.verdicts[0], 1);
    assert_int_equal(window(), 1);
    assert_int_equal(read_as(boot_b, true), 0);
    queue_requeue(q, NULL, &item, 1, on_verdicts, NULL); /* a stray one is nobody's */
    run();
    assert_int_equal(a.verdicts[0], 0);
    assert_int_equal(ask("XLEN sp:q:normal:0"), 1);
}

static void cancel_in_each_state(void **state)
{
    (void)state;
    struct entry e = job(), r = job();
    assert_int_equal(cancel(e.id), QUEUE_CANCEL_ABSENT);
    enqueue(QUEUE_FIRST, &e, 1);
    assert_int_equal(cancel(e.id), QUEUE_CANCEL_REMOVED);
    assert_int_equal(state_of(e.id), INV_NONE);
    assert_int_equal(window(), 0);
    assert_int_equal(read_as(boot_a, false), 0);
    enqueue(QUEUE_FIRST, &r, 1);
    read_as(boot_a, false);
    struct lease l = a.got[0].lease;
    claim_as(boot_a);
    assert_int_equal(cancel(r.id), QUEUE_CANCEL_RUNNING);
    beat(boot_a);
    assert_int_equal(a.n, 1);
    assert_true(uuid_eq(a.cancels[0], r.id));
    release(&l, boot_a);
    beat(boot_a);
    assert_int_equal(a.n, 0);
    enqueue(QUEUE_FIRST, &e, 1); /* delivered, then canceled before the claim */
    read_as(boot_a, false);
    struct queue_delivery d = a.got[0];
    assert_int_equal(cancel(e.id), QUEUE_CANCEL_REMOVED);
    a.got[0] = d;
    a.n = 1;
    claim_as(boot_a);
    assert_int_equal(a.verdicts[0], 0);
}

/* An ended job's queued record goes, and its tenant has the room again. */
static void forgetting_gives_room_back(void **state)
{
    (void)state;
    struct entry jobs[WINDOW], more = job();
    for (int i = 0; i < WINDOW; i++)
        jobs[i] = job();
    enqueue(QUEUE_FED, jobs, WINDOW);
    for (int i = 0; i < WINDOW; i++) {
        assert_int_equal(state_of(jobs[i].id), INV_QUEUED);
        struct queue_live seen = a.live[0];
        assert_int_equal(queue_forget(q, &seen, 1), 0);
        assert_int_equal(state_of(jobs[i].id), INV_NONE);
    }
    assert_int_equal(window(), 0);
    assert_int_equal(ask("XLEN sp:q:normal:0"), 0);
    enqueue(QUEUE_FED, &more, 1);
    assert_int_equal(a.verdicts[0], QUEUE_ADDED);
}

/* ---- executors ---- */

static void striking_off(void **state)
{
    (void)state;
    struct entry e = job();
    beat(boot_a);
    assert_true(a.missing);
    beat(boot_a);
    assert_false(a.missing);
    queue_executor_forget(q, boot_a); /* alive: stays */
    assert_int_equal(ask("SCARD sp:execs"), 1);
    enqueue(QUEUE_FIRST, &e, 1);
    read_as(boot_a, false);
    struct queue_requeue_item item = {.lease = a.got[0].lease, .again = &e};
    char key[64], text[UUID_TEXT_BYTES];
    uuid_format(boot_a, text);
    snprintf(key, sizeof key, "DEL sp:x:%s", text);
    ask(key);
    queue_executor_forget(q, boot_a); /* an entry is pending for it: deleting its consumer would strand it */
    assert_int_equal(ask("SCARD sp:execs"), 1);
    assert_int_equal(read_as(boot_a, true), 1);
    queue_requeue(q, NULL, &item, 1, on_verdicts, NULL);
    run();
    queue_executor_forget(q, boot_a);
    assert_int_equal(ask("SCARD sp:execs"), 0);
    beat(boot_a); /* it was only frozen: it registers again, and is told to assert */
    assert_true(a.missing);
    assert_int_equal(ask("SCARD sp:execs"), 1);
    ask("DEL sp:execs");
    beat(boot_a); /* struck off with its lease intact */
    assert_true(a.missing);
    assert_int_equal(ask("SCARD sp:execs"), 1);
}

/* ---- wills ---- */

static void on_will(void *arg, const struct queue_will *w, const struct err *err)
{
    struct queue_usage *out = arg;
    a.n = err == NULL ? w->usage_n : 0;
    a.culprit = w->culprit;
    if (a.n > 0)
        *out = w->usage[0];
    take_err(err);
}

static struct queue_usage will_of(struct uuid boot)
{
    struct queue_usage u = {0};
    assert_int_equal(queue_will_read(q, boot, on_will, &u), 0);
    run();
    return u;
}

static void a_will_is_read_as_it_was_written(void **state)
{
    (void)state;
    const struct queue_usage u = {.id = uuid_new(),
                                  .agent = uuid_new(),
                                  .tenant = TENANT,
                                  .attempt = 300,
                                  .sandbox = "isandbox-1",
                                  .started_at = wall_now(),
                                  .queue_ms = 1,
                                  .sandbox_start_ms = 2,
                                  .run_ms = 3,
                                  .sandbox_ms = 4,
                                  .cpu_ms = -1,
                                  .peak_memory_bytes = 1LL << 40};
    for (int i = 0; i < 2; i++) { /* twice is as once */
        assert_int_equal(queue_will_put(q, boot_a, &u, on_done, NULL), 0);
        run();
    }
    struct queue_usage got = will_of(boot_a);
    assert_int_equal(a.n, 1);
    assert_true(uuid_is_zero(a.culprit));
    assert_true(uuid_eq(got.id, u.id) && uuid_eq(got.agent, u.agent));
    assert_string_equal(got.sandbox, u.sandbox);
    assert_int_equal(got.tenant, u.tenant);
    assert_int_equal(got.attempt, u.attempt);
    assert_int_equal(got.started_at.us, u.started_at.us);
    assert_int_equal(got.queue_ms + got.sandbox_start_ms * 10 + got.run_ms * 100 + got.sandbox_ms * 1000,
                     4321);
    assert_int_equal(got.cpu_ms, -1);
    assert_int_equal(got.peak_memory_bytes, u.peak_memory_bytes);
    will_of(boot_b);
    assert_int_equal(a.n, 0);
    queue_will_drop(q, boot_a, u.id, 299); /* of another attempt */
    will_of(boot_a);
    assert_int_equal(a.n, 1);
    queue_will_drop(q, boot_a, u.id, u.attempt);
    will_of(boot_a);
    assert_int_equal(a.n, 0);
}

static void on_up(void *arg, bool connected)
{
    (void)arg, (void)connected;
    take_err(NULL);
}

/* What a crash handler sends: past the loop, on a connection of its own. */
static void last_words_name_the_culprit_and_end_the_lease(void **state)
{
    (void)state;
    struct queue_last_words where;
    struct uuid culprit = uuid_new();
    struct buf words;
    buf_init(&words, 512);
    assert_true(queue_last_words(boot_a, &words, &where));
    memcpy(words.data + where.id_at, culprit.b, sizeof culprit.b);
    struct redis *own = redis_open(loop, &(struct redis_options){.url = url, .on_state = on_up}, NULL);
    run();
    int past = dup(redis_socket(own)); /* the loop would stumble over the answers: a crash waits for none */
    redis_close(&own);
    size_t alone = words.len - where.culprit_bytes;
    assert_int_equal(write(past, words.data + where.culprit_bytes, alone), alone); /* over nobody's job */
    beat(boot_a);
    will_of(boot_a);
    assert_true(uuid_is_zero(a.culprit));
    assert_int_equal(write(past, words.data, words.len), words.len);
    close(past);
    for (int i = 0; i < 10000 && uuid_is_zero(a.culprit); i++)
        will_of(boot_a); /* another connection's words: when Redis comes to them */
    assert_true(uuid_eq(a.culprit, culprit));
    char key[64], text[UUID_TEXT_BYTES];
    uuid_format(boot_a, text);
    snprintf(key, sizeof key, "EXISTS sp:x:%s", text);
    assert_int_equal(ask(key), 0);
    queue_executor_forget(q, boot_a); /* with its will */
    will_of(boot_a);
    assert_true(uuid_is_zero(a.culprit));
    buf_deinit(&words);
}

/* ---- lead, identity, governor ---- */

static void on_lead(void *arg, bool leading, const struct err *err)
{
    (void)arg;
    a.lead = leading;
    take_err(err);
}

static bool lead(struct uuid token, int64_t ttl_ms)
{
    assert_int_equal(queue_lead(q, token, ttl_ms, on_lead, NULL), 0);
    run();
    return a.lead;
}

static void one_leads(void **state)
{
    (void)state;
    assert_true(lead(boot_a, 60000));
    assert_false(lead(boot_b, 60000));
    assert_true(lead(boot_a, 60000));
    ask("DEL sp:lead");
    assert_true(lead(boot_b, 60000));
    assert_false(lead(boot_a, 60000));
}

static void identity(void **state)
{
    (void)state;
    struct entry e = job();
    enqueue(QUEUE_FIRST, &e, 1);
    reset(true);
    assert_int_equal(ask("XLEN sp:q:normal:0"), 0);
    assert_int_equal(ask("HLEN sp:live"), 1); /* the epoch */
    look();
    assert_true(!a.identity.torn && a.identity.hold && a.identity.unmarked);
    assert_string_equal(a.identity.known, "run/repl");
    assert_true(strlen(a.identity.now) == 81 && strlen(a.identity.epoch) == 36);
    assert_int_equal(read_as(boot_a, false), 0); /* the groups are there */
}

static void live_records_lost_alone(void **state)
{
    (void)state;
    struct entry e = job();
    ask("DEL sp:live");
    look();
    assert_true(a.identity.torn);
    enqueue(QUEUE_FED, &e, 1);
    assert_int_equal(a.verdicts[0], QUEUE_WAITS); /* somebody may be running it */
    reset(false);
    look();
    assert_false(a.identity.torn);
    enqueue(QUEUE_FED, &e, 1);
    assert_int_equal(a.verdicts[0], QUEUE_ADDED);
}

/* Of two dispatchers that saw the same loss one resets. */
static void reset_once(void **state)
{
    (void)state;
    struct entry e = job();
    char seen[sizeof a.identity.epoch];
    look();
    memcpy(seen, a.identity.epoch, sizeof seen);
    assert_true(reset_over(seen));
    ask("DEL sp:hold");
    enqueue(QUEUE_FIRST, &e, 1);
    assert_false(reset_over(seen));
    assert_int_equal(ask("XLEN sp:q:normal:0"), 1);
    assert_int_equal(queue_marked(q, on_done, NULL), 0);
    run();
    look();
    assert_false(a.identity.unmarked || a.identity.hold);
    ask("FLUSHALL");
    assert_true(reset_over(""));
    assert_false(reset_over(""));
}

static void on_permits(void *arg, int granted, int64_t wait_ms, const struct err *err)
{
    (void)arg;
    a.granted = granted;
    a.wait_ms = wait_ms;
    take_err(err);
}

static int permits(struct governor *g, int n)
{
    assert_int_equal(governor_take(g, n, false, on_permits, NULL), 0);
    run();
    return a.granted;
}

static void governing(void **state)
{
    (void)state;
    const struct governor_limits live = {.live = 5}, rate = {.creates_per_sec = 3};
    struct governor *x = governor_new(redis, boot_a, &live), *y = governor_new(redis, boot_b, &live);
    struct entry e = job();
    assert_int_equal(permits(x, 1), 0); /* nothing waits */
    enqueue(QUEUE_FIRST, &e, 1);
    assert_int_equal(permits(x, 3), 3);
    assert_int_equal(permits(y, 4), 2);
    assert_int_equal(permits(x, 1), 0);
    assert_true(a.wait_ms > 0);
    governor_give(x, 1);
    assert_int_equal(permits(y, 4), 1);
    governor_return(y, 2);
    assert_int_equal(permits(x, 9), 2);
    governor_drop(x, boot_b);
    assert_int_equal(permits(x, 9), 1);
    governor_set(x, 0);
    governor_give(x, 7); /* never below nothing */
    assert_int_equal(permits(x, 9), 5);
    governor_set(x, 0);
    governor_pause(x, 60000);
    assert_int_equal(permits(x, 1), 0);
    assert_in_range(a.wait_ms, 50000, 60000);
    ask("DEL sp:gov:pause");
    struct governor *z = governor_new(redis, boot_a, &rate);
    ask("DEL sp:gov:bucket");
    assert_int_equal(permits(z, 10), 3); /* a burst of one second's worth */
    assert_int_equal(permits(z, 10), 0);
    assert_in_range(a.wait_ms, 1, 334);
    governor_return(z, 2);
    assert_in_range(permits(z, 10), 2, 3);
    governor_free(&x);
    governor_free(&y);
    governor_free(&z);
}

/* ---- the server ---- */

static void on_state(void *arg, bool connected)
{
    (void)arg;
    if (connected)
        loop_stop(loop);
}

static int setup(void **state)
{
    (void)state;
    char sock[64];
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new();
    boot_a = uuid_new();
    boot_b = uuid_new();
    if (loop == NULL || mkdtemp(dir) == NULL)
        return -1;
    snprintf(sock, sizeof sock, "%s/s", dir);
    snprintf(url, sizeof url, "unix://%s", sock);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", sock, "--save", "",
               "--appendonly", "no", "--dir", dir, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000 && access(sock, F_OK) != 0; i++)
        usleep(10000);
    redis = redis_open(loop, &(struct redis_options){.url = url, .name = "test", .on_state = on_state}, NULL);
    run();
    q = queue_new(redis, WINDOW);
    return q != NULL ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    queue_free(&q);
    redis_close(&redis);
    loop_free(&loop);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(enqueue_and_window, fresh),
        cmocka_unit_test_setup(what_comes_late_is_to_be_checked, fresh),
        cmocka_unit_test_setup(backlog_marks, fresh),
        cmocka_unit_test_setup(closed_while_rebuilding, fresh),
        cmocka_unit_test_setup(claimed_once, fresh),
        cmocka_unit_test_setup(superseded_entries, fresh),
        cmocka_unit_test_setup(asserting, fresh),
        cmocka_unit_test_setup(requeueing, fresh),
        cmocka_unit_test_setup(cancel_in_each_state, fresh),
        cmocka_unit_test_setup(forgetting_gives_room_back, fresh),
        cmocka_unit_test_setup(a_will_is_read_as_it_was_written, fresh),
        cmocka_unit_test_setup(last_words_name_the_culprit_and_end_the_lease, fresh),
        cmocka_unit_test_setup(striking_off, fresh),
        cmocka_unit_test_setup(one_leads, fresh),
        cmocka_unit_test_setup(live_records_lost_alone, fresh),
        cmocka_unit_test_setup(identity, fresh),
        cmocka_unit_test_setup(reset_once, fresh),
        cmocka_unit_test_setup(governing, fresh),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
