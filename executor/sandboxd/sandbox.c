/* Sandboxes (sandbox.h): creation on top of the pool, the time to live, calls, the table. */
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#include "base/log.h"
#include "crypto/crypto.h"
#include "process.h"

enum {
    CELL_WAIT_MS = 60000,
    MAX_CALLS = 1024,
    CALL_MS = 60000,       /* until the first answer to a call */
    LONG_CALL_MS = 600000, /* the same, for calls that answer when all is done */
    CALLS_LOOK_MS = 5000,
};

struct call {
    uint32_t ticket;
    mono_t deadline;
    bool answered;
    sandbox_answer_fn *fn;
    void *arg;
    UT_hash_handle hh;
};

enum sandbox_state { SANDBOX_WAITING, SANDBOX_STARTING, SANDBOX_RUNNING };

struct sandbox {
    struct sandbox *prev, *next;
    struct host *host;
    enum sandbox_state state;
    char id[SANDBOX_ID_CHARS + 1], token[SANDBOX_TOKEN_CHARS + 1];
    struct sandbox_spec spec;
    struct pool_wait *wait; /* WAITING */
    struct cell *cell;      /* later */
    sandbox_created_fn *created;
    void *created_arg;
    wall_t started_at, ends_at;
    mono_t asked_at;
    struct loop_timer *ttl;
    struct call *calls;
    struct loop_timer *calls_look;
    uint32_t last_ticket;
    enum wire_type asked; /* the kind of the message that is being written */
    struct process *processes;
    int64_t programs; /* ever asked for */
    UT_hash_handle hh;
};

struct host {
    struct cell_works *works;
    struct pool *pool;
    struct sandbox *list; /* in order of creation */
    struct sandbox *by_id;
    int running, live;
};

static uint8_t outbox[WIRE_MAX_BYTES];
static struct wire_writer writer;

/* ---- plain values ---- */

void sandbox_spec_free(struct sandbox_spec *s)
{
    pairs_free(&s->metadata);
    pairs_free(&s->env);
    for (int i = 0; i < s->layer_count; i++)
        free(s->layers[i]);
    free(s->template_id);
    *s = (struct sandbox_spec){0};
}

/* ---- the end ---- */

static void calls_over(struct sandbox *s)
{
    while (s->calls != NULL) {
        struct call *c = s->calls;
        HASH_DEL(s->calls, c);
        struct call copy = *c;
        free(c);
        copy.fn(copy.arg, SANDBOX_CALL_OVER, NULL, NULL, 0, true);
    }
}

static void sandbox_free(struct sandbox *s)
{
    struct host *h = s->host;
    if (s->state == SANDBOX_RUNNING) {
        HASH_DEL(h->by_id, s);
        h->running--;
    }
    h->live--;
    DL_DELETE(h->list, s);
    pool_cancel(&s->wait);
    cell_kill(&s->cell);
    calls_over(s);
    processes_free(&s->processes);
    loop_timer_free(&s->ttl);
    loop_timer_free(&s->calls_look);
    sandbox_spec_free(&s->spec);
    crypto_wipe(s->token, sizeof s->token);
    free(s);
}

void sandbox_kill(struct sandbox **s, const char *why)
{
    if (*s == NULL)
        return;
    log_info("sandbox ended", LF_STR("sandbox", (*s)->id), LF_STR("why", why),
             LF_INT("programs", (*s)->programs));
    sandbox_free(*s);
    *s = NULL;
}

/* ---- creation ---- */

static void creation_failed(struct sandbox *s, const char *why)
{
    sandbox_created_fn *fn = s->created;
    void *arg = s->created_arg;
    struct err err = ERR_INIT;
    err_set(&err, ERR_UNAVAILABLE, "%s", why);
    log_error("a sandbox could not be made", LF_STR("sandbox", s->id), LF_STR("error", why));
    sandbox_free(s);
    if (fn != NULL)
        fn(arg, NULL, &err);
}

static void on_built(void *arg)
{
    (void)arg;
    BUG("a sandbox's cell is built before");
}

static void on_live(void *arg)
{
    struct sandbox *s = arg;
    sandbox_created_fn *fn = s->created;
    s->state = SANDBOX_RUNNING;
    s->created = NULL;
    HASH_ADD_STR(s->host->by_id, id, s);
    s->host->running++;
    s->started_at = wall_now();
    sandbox_set_ttl(s, s->spec.ttl_ms);
    log_info("sandbox started", LF_STR("sandbox", s->id), LF_STR("template", s->spec.template_id),
             LF_INT("ms", mono_ms_between(s->asked_at, mono_now())));
    fn(s->created_arg, s, NULL);
}

static void on_gone(void *arg, const char *why)
{
    struct sandbox *s = arg;
    s->cell = NULL;
    if (s->state == SANDBOX_RUNNING)
        sandbox_kill(&s, why);
    else
        creation_failed(s, why);
}

static void on_message(void *arg, enum wire_type type, uint32_t ticket, struct wire_reader *r, const int *fds,
                       int fd_count)
{
    struct sandbox *s = arg;
    struct call *c;
    bool last = type == WIRE_DONE || type == WIRE_FAILED || type == WIRE_EXITED;
    HASH_FIND(hh, s->calls, &ticket, sizeof ticket, c);
    if (c == NULL) {
        for (int i = 0; i < fd_count; i++)
            close(fds[i]);
        return;
    }
    c->answered = true;
    struct call copy = *c;
    if (last) {
        HASH_DEL(s->calls, c);
        free(c);
    }
    copy.fn(copy.arg, (int)type, r, fds, fd_count, last);
}

static const struct cell_events events = {on_built, on_live, on_message, on_gone};

static void on_cell(void *arg, struct cell *cell, const char *why)
{
    struct sandbox *s = arg;
    struct err err = ERR_INIT;
    s->wait = NULL;
    if (cell == NULL) {
        creation_failed(s, why);
        return;
    }
    s->cell = cell;
    s->state = SANDBOX_STARTING;
    cell_adopt(cell, &events, s);
    if (cell_enter(cell, s->id, s->spec.network, (const char *const *)s->spec.layers, s->spec.layer_count,
                   &err) != 0)
        creation_failed(s, err.msg);
}

/* "i" and 20 lower-case letters and digits, as E2B's ids are. */
static void make_id(char out[SANDBOX_ID_CHARS + 1])
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    uint8_t random[SANDBOX_ID_CHARS];
    random_bytes(random, sizeof random);
    out[0] = 'i';
    for (int i = 1; i < SANDBOX_ID_CHARS; i++)
        out[i] = alphabet[random[i] % 36];
    out[SANDBOX_ID_CHARS] = '\0';
}

static void make_token(char out[SANDBOX_TOKEN_CHARS + 1])
{
    uint8_t random[SANDBOX_TOKEN_CHARS / 2];
    random_bytes(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(out + 2 * i, 3, "%02x", random[i]);
}

static void on_ttl(void *arg)
{
    struct sandbox *s = arg;
    sandbox_kill(&s, "its time to live is over");
}

static struct call *late_call(struct sandbox *s)
{
    struct call *c, *next;
    mono_t now = mono_now();
    HASH_ITER(hh, s->calls, c, next)
    {
        if (!c->answered && !mono_before(now, c->deadline))
            return c;
    }
    return NULL;
}

/* A supervisor that does not answer (starved, stopped) holds nobody up for ever. */
static void on_calls_look(void *arg)
{
    struct sandbox *s = arg;
    struct call *c;
    if (s->calls != NULL)
        loop_timer_start(s->calls_look, CALLS_LOOK_MS);
    while ((c = late_call(s)) != NULL) {
        struct call copy = *c;
        HASH_DEL(s->calls, c);
        free(c);
        log_warn("a sandbox does not answer", LF_STR("sandbox", s->id));
        copy.fn(copy.arg, SANDBOX_CALL_LATE, NULL, NULL, 0, true);
    }
}

static struct sandbox *sandbox_new(struct host *h, struct sandbox_spec *spec)
{
    struct sandbox *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->ttl = loop_timer_new(h->works->loop, on_ttl, s);
        s->calls_look = loop_timer_new(h->works->loop, on_calls_look, s);
    }
    if (s == NULL || s->ttl == NULL || s->calls_look == NULL) {
        if (s != NULL) {
            loop_timer_free(&s->ttl);
            loop_timer_free(&s->calls_look);
        }
        free(s);
        sandbox_spec_free(spec);
        return NULL;
    }
    s->host = h;
    s->spec = *spec;
    *spec = (struct sandbox_spec){0};
    s->asked_at = mono_now();
    make_id(s->id);
    if (s->spec.secure)
        make_token(s->token);
    DL_APPEND(h->list, s);
    h->live++;
    return s;
}

int sandbox_create(struct host *h, struct sandbox_spec *spec, sandbox_created_fn *fn, void *arg,
                   struct sandbox **sandbox_out, struct err *err)
{
    if (h->live >= h->works->options->max_sandboxes) {
        sandbox_spec_free(spec);
        return err_set(err, ERR_TOO_MANY,
                       "you have reached the maximum number of concurrent E2B sandboxes (%lld)",
                       (long long)h->works->options->max_sandboxes);
    }
    struct sandbox *s = sandbox_new(h, spec);
    if (s == NULL)
        return err_set(err, ERR_NO_MEMORY, "sandbox");
    s->created = fn;
    s->created_arg = arg;
    s->wait = pool_take(h->pool, CELL_WAIT_MS, on_cell, s, err);
    if (s->wait == NULL) {
        sandbox_free(s);
        return -1;
    }
    *sandbox_out = s;
    return 0;
}

void sandbox_abandon(struct sandbox *s)
{
    if (s->state != SANDBOX_RUNNING)
        sandbox_kill(&s, "its client left");
}

/* ---- the table ---- */

struct host *host_new(struct cell_works *works, struct pool *pool)
{
    struct host *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->works = works;
    h->pool = pool;
    return h;
}

void host_free(struct host **host)
{
    if (*host == NULL)
        return;
    while ((*host)->list != NULL)
        sandbox_free((*host)->list);
    free(*host);
    *host = NULL;
}

bool host_works(const struct host *h)
{
    return pool_works(h->pool);
}

struct sandbox *host_find(struct host *h, struct str id)
{
    struct sandbox *s = NULL;
    struct str head = id;
    str_split(&id, '-', &head);
    if (head.n > 0)
        HASH_FIND(hh, h->by_id, head.p, head.n, s);
    return s;
}

int host_running(const struct host *h)
{
    return h->running;
}

struct sandbox *host_next(struct host *h, const struct sandbox *after)
{
    struct sandbox *s = after != NULL ? after->next : h->list;
    while (s != NULL && s->state != SANDBOX_RUNNING)
        s = s->next;
    return s;
}

bool host_any(const struct host *h, bool (*fn)(const struct sandbox_spec *spec, const char *arg),
              const char *arg)
{
    const struct sandbox *s;
    DL_FOREACH(h->list, s)
    if (fn(&s->spec, arg))
        return true;
    return false;
}

/* ---- one sandbox ---- */

const char *sandbox_id(const struct sandbox *s)
{
    return s->id;
}

const char *sandbox_token(const struct sandbox *s)
{
    return s->token;
}

const struct sandbox_spec *sandbox_spec_of(const struct sandbox *s)
{
    return &s->spec;
}

wall_t sandbox_started_at(const struct sandbox *s)
{
    return s->started_at;
}

wall_t sandbox_ends_at(const struct sandbox *s)
{
    return s->ends_at;
}

struct cell *sandbox_cell(struct sandbox *s)
{
    return s->cell;
}

struct loop *sandbox_loop(struct sandbox *s)
{
    return s->host->works->loop;
}

void sandbox_set_ttl(struct sandbox *s, int64_t ms)
{
    s->ends_at = (wall_t){.us = wall_now().us + ms * 1000};
    loop_timer_start(s->ttl, ms);
}

struct process **sandbox_processes(struct sandbox *s)
{
    return &s->processes;
}

void sandbox_count_program(struct sandbox *s)
{
    s->programs++;
}

/* ---- calls ---- */

static int64_t call_ms(enum wire_type type)
{
    return type == WIRE_WRITE || type == WIRE_REMOVE ? LONG_CALL_MS : CALL_MS;
}

struct wire_writer *sandbox_message(struct sandbox *s, enum wire_type type)
{
    s->asked = type;
    wire_begin(&writer, outbox, sizeof outbox, type, ++s->last_ticket);
    return &writer;
}

uint32_t sandbox_send(struct sandbox *s, struct wire_writer *msg, const int *fds, int fd_count,
                      sandbox_answer_fn *fn, void *arg, struct err *err)
{
    struct call *c;
    if (HASH_COUNT(s->calls) >= MAX_CALLS) {
        err_set(err, ERR_TOO_MANY, "too many requests to one sandbox at a time");
        return 0;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "call");
        return 0;
    }
    if (cell_send(s->cell, msg, fds, fd_count, err) != 0) {
        free(c);
        return 0;
    }
    *c = (struct call){.ticket = s->last_ticket,
                       .deadline = mono_add_ms(mono_now(), call_ms(s->asked)),
                       .fn = fn,
                       .arg = arg};
    if (!loop_timer_active(s->calls_look))
        loop_timer_start(s->calls_look, CALLS_LOOK_MS);
    HASH_ADD(hh, s->calls, ticket, sizeof c->ticket, c);
    return c->ticket;
}

const char *sandbox_over_text(int type)
{
    return type == SANDBOX_CALL_LATE ? "the sandbox does not answer" : "The sandbox was not found";
}

int sandbox_over_status(int type)
{
    return type == SANDBOX_CALL_LATE ? 504 : 502;
}

void sandbox_forget(struct sandbox *s, uint32_t ticket)
{
    struct call *c;
    HASH_FIND(hh, s->calls, &ticket, sizeof ticket, c);
    if (c == NULL)
        return;
    HASH_DEL(s->calls, c);
    free(c);
}

enum wire_fault sandbox_fault(struct wire_reader *r, const char **text_out)
{
    uint32_t fault = wire_get_u32(r);
    *text_out = wire_get_cstr(r);
    if (r->bad || fault == 0 || fault > WIRE_FAULT_LIMIT)
        return WIRE_FAULT_INTERNAL;
    return (enum wire_fault)fault;
}
