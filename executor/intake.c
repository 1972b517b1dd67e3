/* Claiming. One machine:
 *
 *   IDLE -> PERMITS (governed only) -> READING -> CHECKING (fed or repeated entries, in one query) ->
 * CLAIMING -> IDLE
 *
 * After every (re)connect the consumer's own pending list is read first: a lost reply to XREADGROUP strands
 * entries otherwise. An entry skips the check in PostgreSQL only if it is the gateway's first XADD on its
 * first delivery. COUNT is per stream: with fewer than three free slots one stream is read at a time, high
 * priority first. */
#include "intake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/culprit.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "job.h"
#include "store/sweep.h"
#include "warm.h"

enum {
    BLOCK_MS = 1000,
    RETRY_MS = 200,
    POLL_MS = 20,        /* between single-stream rounds that found nothing */
    READ_MAX = 128,      /* entries a stream and read */
    TAKE_MAX = 512,      /* entries dealt with at once */
    PENDING_MAX = 20000, /* of the own pending list: everything */
    CHECK_MS = 5000,
};

enum intake_state {
    INTAKE_OFF,
    INTAKE_IDLE,
    INTAKE_PERMITS,
    INTAKE_READING,
    INTAKE_CHECKING,
    INTAKE_CLAIMING
};

/* Deliveries between reading and claiming: their own memory, the replies are gone by then. */
struct taken {
    struct queue_delivery d;
    char prompt[INV_ENTRY_PROMPT_BYTES];
    bool refused;   /* ended, superseded or unknown to PostgreSQL: acknowledge only */
    bool checked;   /* PostgreSQL was asked */
    bool canceling; /* to be run only so far as to be settled as canceled */
};

struct intake {
    struct executor *x;
    enum entry_kind kind;
    const char *const *streams;
    const char *one[2]; /* a single stream's list */
    int slots, next_stream;
    struct redis *redis; /* blocking reads only */
    enum intake_state state;
    bool pending_first; /* own pending list to be read */
    bool stopped;
    int permits;              /* granted, not used yet */
    mono_t paused_until;      /* the provider's quota is reached */
    struct loop_timer *timer; /* pauses */
    struct loop_task turn;
    char consumer[UUID_TEXT_BYTES];
    struct taken *taken;
    size_t taken_n;
    bool groups_asked;
};

static void look(void *arg);
static void claim(struct intake *in);

static void enter(struct intake *in, enum intake_state state)
{
    in->state = state;
}

static int used(const struct intake *in)
{
    return jobs_count(in->x->jobs, in->kind);
}

static bool spool_full(const struct intake *in)
{
    return in->x->spool->used >= in->x->spool->max;
}

/* What is left of the provider's pause. */
static int64_t pause_ms(const struct intake *in)
{
    return mono_ms_between(loop_now(in->x->loop), in->paused_until);
}

static bool governed(const struct intake *in)
{
    return !governor_unlimited(in->x->governor);
}

/* Back to IDLE, and at once (0) or after a pause to look again. */
static void rest(struct intake *in, int64_t ms)
{
    enter(in, INTAKE_IDLE);
    if (ms > 0)
        loop_timer_start(in->timer, ms);
    else
        loop_task_post(in->x->loop, &in->turn, look, in);
}

static void on_redis(void *arg, bool connected)
{
    struct intake *in = arg;
    if (!connected)
        return;
    in->pending_first = true;
    intake_wake(in);
}

struct intake *intake_new(struct executor *x, enum entry_kind kind, const char *const *streams, int slots,
                          struct err *err)
{
    struct intake *in = calloc(1, sizeof *in);
    if (in == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory");
        return NULL;
    }
    *in = (struct intake){.x = x, .kind = kind, .streams = streams, .slots = slots};
    uuid_format(x->boot, in->consumer);
    in->timer = loop_timer_new(x->loop, look, in);
    in->redis = redis_open(
        x->loop,
        &(struct redis_options){
            .url = x->settings->redis_url, .name = x->client_name, .on_state = on_redis, .arg = in},
        err);
    if (in->timer == NULL || in->redis == NULL)
        intake_free(&in);
    return in;
}

void intake_free(struct intake **in)
{
    if (in == NULL || *in == NULL)
        return;
    redis_close(&(*in)->redis);
    loop_task_cancel((*in)->x->loop, &(*in)->turn);
    loop_timer_free(&(*in)->timer);
    free((*in)->taken);
    free(*in);
    *in = NULL;
}

void intake_start(struct intake *in)
{
    if (in->state == INTAKE_OFF && in->slots > 0)
        rest(in, 0);
}

void intake_stop(struct intake *in)
{
    in->stopped = true;
    if (in->permits > 0)
        governor_return(in->x->governor, in->permits);
    in->permits = 0;
}

bool intake_idle(const struct intake *in)
{
    return in->state == INTAKE_OFF || in->state == INTAKE_IDLE;
}

void intake_wake(struct intake *in)
{
    if (in != NULL && in->state == INTAKE_IDLE && !loop_timer_active(in->timer))
        loop_task_post(in->x->loop, &in->turn, look, in);
}

void intake_pause(struct intake *in, int64_t ms)
{
    mono_t until = mono_add_ms(loop_now(in->x->loop), ms);
    if (mono_before(in->paused_until, until))
        in->paused_until = until;
}

int intake_permits(const struct intake *in)
{
    return in->permits;
}

/* ---- reading ---- */

/* NOGROUP: Redis lost its memory; groups are made anew (harmless when a dispatcher does so too). */
static void on_groups(void *arg, const struct err *err)
{
    (void)err;
    ((struct intake *)arg)->groups_asked = false;
}

static void read_failed(struct intake *in, const struct err *err)
{
    bool no_group =
        str_starts(str_of(err->msg), STR("NOGROUP")) || str_starts(str_of(err->msg), STR("UNBLOCKED"));
    if (no_group && !in->groups_asked)
        in->groups_asked = queue_groups_create(in->x->queue, on_groups, in) == 0;
    if (!no_group)
        log_debug("reading the streams failed", LF_ERR(err));
    rest(in, RETRY_MS);
}

/* Copies what is to be dealt with. Of a pending list that is what does not run here; what exceeds TAKE_MAX
 * stays pending and is read again. */
static void take(struct intake *in, const struct queue_delivery *items, size_t n)
{
    in->taken = calloc(n < TAKE_MAX ? n : TAKE_MAX, sizeof *in->taken);
    INVARIANT(in->taken != NULL); /* bounded by TAKE_MAX */
    for (size_t i = 0; i < n; i++) {
        if (!items[i].broken && jobs_find(in->x->jobs, items[i].lease.id) != NULL)
            continue;
        if (in->taken_n == TAKE_MAX) {
            in->pending_first = true;
            return;
        }
        struct taken *t = &in->taken[in->taken_n++];
        t->d = items[i];
        t->refused = items[i].broken;
        if (items[i].broken)
            continue;
        memcpy(t->prompt, items[i].job.prompt.p, items[i].job.prompt.n);
        t->d.job.prompt.p = t->prompt;
    }
}

static void give_up_taken(struct intake *in)
{
    free(in->taken);
    in->taken = NULL;
    in->taken_n = 0;
}

/* Back to the streams, as entries that were delivered and never leased. */
static void put_back(struct intake *in, const struct queue_delivery *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct queue_requeue_item back = {.lease = items[i].lease,
                                                .again = items[i].broken ? NULL : &items[i].job};
        if (jobs_find(in->x->jobs, items[i].lease.id) == NULL &&
            queue_requeue(in->x->queue, NULL, &back, 1, NULL, NULL) != 0)
            in->pending_first = true; /* no way to Redis: they are looked at when there is one */
    }
    rest(in, RETRY_MS);
}

/* ---- checking ---- */

static void check_row(struct intake *in, const struct sweep_row *row)
{
    for (size_t i = 0; i < in->taken_n; i++) {
        struct taken *t = &in->taken[i];
        if (!uuid_eq(t->d.lease.id, row->job.id))
            continue;
        t->checked = false; /* found */
        t->refused = t->refused || row->ended || row->job.attempt != t->d.lease.attempt;
        t->canceling = row->canceling;
    }
}

static void on_checked(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct intake *in = arg;
    if (err != NULL) { /* the entries stay pending: read again from id 0 */
        give_up_taken(in);
        in->pending_first = true;
        rest(in, RETRY_MS);
        return;
    }
    for (size_t i = 0; i < n; i++)
        check_row(in, &rows[i]);
    for (size_t i = 0; i < in->taken_n; i++) /* never committed: nothing of it may run */
        in->taken[i].refused = in->taken[i].refused || in->taken[i].checked;
    claim(in);
}

static void check(struct intake *in, bool repeated)
{
    struct uuid ids[TAKE_MAX];
    size_t n = 0;
    for (size_t i = 0; i < in->taken_n && n < TAKE_MAX; i++)
        if (!in->taken[i].refused && in->kind == ENTRY_INVOCATION && (repeated || !in->taken[i].d.first)) {
            in->taken[i].checked = true;
            ids[n++] = in->taken[i].d.lease.id;
        }
    if (n == 0) {
        claim(in);
        return;
    }
    enter(in, INTAKE_CHECKING);
    if (sweep_ids(in->x->read, ids, n, CHECK_MS, on_checked, in) != 0) {
        struct err down;
        err_set(&down, ERR_PG, "refused");
        on_checked(in, NULL, 0, &down);
    }
}

/* ---- claiming ---- */

static void begin(struct intake *in, struct taken *t)
{
    struct executor *x = in->x;
    if (jobs_find(x->jobs, t->d.lease.id) != NULL)
        return; /* delivered again, and running here already */
    CULPRIT(t->d.lease.id);
    struct job *j = job_new(x, &t->d.lease, &t->d.job);
    if (j == NULL) {
        log_error("no memory for a job; it is claimed again in a moment");
        in->pending_first = true; /* the lease is ours: nobody else will look for it */
        return;
    }
    if (in->permits > 0) {
        in->permits--;
        j->holds_permit = true;
    }
    if (in->kind == ENTRY_BUILD) {
        build_start(j);
        return;
    }
    run_start(j);
    if (t->canceling && (j = jobs_find(x->jobs, t->d.lease.id)) != NULL)
        job_cancel(j);
}

static void on_claimed(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    struct intake *in = arg;
    size_t at = 0;
    FAILPOINT(executor_leased);
    if (err != NULL)
        in->pending_first = true; /* perhaps leased: a repeated claim of our own says yes again */
    for (size_t i = 0; i < in->taken_n && err == NULL; i++) {
        if (in->taken[i].refused)
            continue;
        if (at < n && verdicts[at] == 1)
            begin(in, &in->taken[i]);
        at++;
    }
    give_up_taken(in);
    rest(in, err != NULL ? RETRY_MS : 0);
}

static void drop_refused(struct intake *in)
{
    const struct lease *refused[TAKE_MAX];
    size_t n = 0;
    for (size_t i = 0; i < in->taken_n && n < TAKE_MAX; i++)
        if (in->taken[i].refused)
            refused[n++] = &in->taken[i].d.lease;
    if (n == 0)
        return;
    /* Never leased: as their own non-owner nothing but the entries (and queued records) goes. */
    struct queue_requeue_item items[TAKE_MAX];
    for (size_t i = 0; i < n; i++)
        items[i] = (struct queue_requeue_item){.lease = *refused[i]};
    queue_requeue(in->x->queue, NULL, items, n, NULL, NULL);
    queue_release(in->x->queue, in->x->boot, refused, n, str_of(NULL), NULL, NULL);
}

static void claim(struct intake *in)
{
    struct queue_claim items[TAKE_MAX];
    size_t n = 0;
    drop_refused(in);
    for (size_t i = 0; i < in->taken_n && n < TAKE_MAX; i++)
        if (!in->taken[i].refused)
            items[n++] = (struct queue_claim){.lease = &in->taken[i].d.lease, .epoch = in->taken[i].d.epoch};
    enter(in, INTAKE_CLAIMING);
    if (n > 0 && queue_claim(in->x->queue, in->x->boot, items, n, on_claimed, in) == 0)
        return;
    struct err down;
    err_set(&down, ERR_REDIS, "refused");
    on_claimed(in, NULL, 0, n > 0 ? &down : NULL);
}

/* ---- the turn ---- */

static void on_read(void *arg, const struct queue_delivery *items, size_t n, const struct err *err)
{
    struct intake *in = arg;
    if (err != NULL) {
        read_failed(in, err);
        return;
    }
    /* Came to a read that had begun before: what only this process cannot take goes to the others, what
     * nobody can have now stays pending until the pause is over. */
    if (n > 0 && (in->stopped || spool_full(in))) {
        put_back(in, items, n);
        return;
    }
    if (n > 0 && pause_ms(in) > 0) {
        in->pending_first = true;
        rest(in, pause_ms(in));
        return;
    }
    bool repeated = in->pending_first;
    in->pending_first = false;
    if (n == 0) {
        if (in->permits > 0) { /* nothing to do: others may have them */
            governor_return(in->x->governor, in->permits);
            in->permits = 0;
        }
        bool single = in->one[0] != NULL && !repeated;
        bool more = single && in->streams[++in->next_stream] != NULL;
        if (!more)
            in->next_stream = 0;
        rest(in, single && !more ? POLL_MS : 0);
        return;
    }
    FAILPOINT(executor_read);
    in->next_stream = 0;
    take(in, items, n);
    check(in, repeated);
}

static int stream_count(const struct intake *in)
{
    int n = 0;
    while (in->streams[n] != NULL)
        n++;
    return n;
}

static void read(struct intake *in, int free_slots)
{
    struct err err;
    int streams = stream_count(in), count = free_slots / streams;
    bool single = count == 0 && !in->pending_first;
    count = single ? free_slots : count > READ_MAX ? READ_MAX : count > 0 ? count : 1;
    in->one[0] = single ? in->streams[in->next_stream] : NULL;
    in->one[1] = NULL;
    enter(in, INTAKE_READING);
    if (queue_read(in->redis, in->consumer, single ? in->one : in->streams,
                   in->pending_first ? PENDING_MAX : count, single ? 0 : BLOCK_MS, in->pending_first, on_read,
                   in, &err) != 0)
        read_failed(in, &err);
}

/* Entries that may be read without a permit: as many as there are sandboxes made ahead. Which agents' they
 * are is known when the entries are: a job that finds none waits for a permit (acquire.c). */
static int on_credit(const struct intake *in)
{
    int n = in->kind == ENTRY_INVOCATION ? warm_ready(in->x->warm) - jobs_without_permit(in->x->jobs) : 0;
    int room = in->slots - used(in) - in->permits;
    n = n < room ? n : room;
    return n > 0 ? n : 0;
}

static void on_permits(void *arg, int granted, int64_t wait_ms, const struct err *err)
{
    struct intake *in = arg;
    in->permits += granted;
    if (in->stopped) {
        enter(in, INTAKE_IDLE);
        intake_stop(in); /* gives them back */
        return;
    }
    FAILPOINT(executor_permitted);
    int ready = on_credit(in);
    if (in->permits + ready > 0)
        read(in, in->permits + ready);
    else
        rest(in, err != NULL || wait_ms <= 0 ? RETRY_MS : wait_ms);
}

static void look(void *arg)
{
    struct intake *in = arg;
    int free_slots = in->slots - used(in);
    if (in->state != INTAKE_IDLE || in->stopped)
        return;
    if (!redis_connected(in->redis) || spool_full(in)) {
        rest(in, RETRY_MS);
        return;
    }
    if (pause_ms(in) > 0) {
        rest(in, pause_ms(in));
        return;
    }
    if (free_slots <= 0 && !in->pending_first)
        return; /* intake_wake */
    if (!governed(in) || in->pending_first) {
        read(in, free_slots > 0 ? free_slots : 1);
        return;
    }
    int want = free_slots < 16 ? free_slots : 16;
    if (in->permits >= want) {
        read(in, want);
        return;
    }
    enter(in, INTAKE_PERMITS);
    if (governor_take(in->x->governor, want - in->permits,
                      in->kind == ENTRY_BUILD ? GOVERNOR_BUILDS : GOVERNOR_JOBS, on_permits, in) != 0)
        rest(in, RETRY_MS);
}
