/* The queue: looking at live records, and what only dispatchers do (identity, reset, executors, groups). */
#include "store/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct redis_script script_reset = {.body = lua_reset};
static struct redis_script script_identity = {.body = lua_identity};
static struct redis_script script_lead = {.body = lua_lead};
static struct redis_script script_forget = {.body = lua_forget};

/* ---- live records ---- */

static enum inv_state live_state(struct str s)
{
    return str_eq_c(s, "q")   ? INV_QUEUED
           : str_eq_c(s, "s") ? INV_STARTING
           : str_eq_c(s, "r") ? INV_RUNNING
                              : INV_NONE;
}

bool queue_live_parse(struct str text, struct uuid id, struct queue_live *out)
{
    struct str rest = text, part[6];
    for (int i = 0; i < 6; i++)
        if (!str_split(&rest, ' ', &part[i]))
            return false;
    uint64_t attempt, tenant;
    *out = (struct queue_live){.state = live_state(part[0]), .lease.id = id};
    if (rest.p != NULL || out->state == INV_NONE || !str_to_u64(part[1], &attempt) || attempt > INT16_MAX ||
        !str_to_u64(part[5], &tenant) || tenant > INT32_MAX ||
        !str_copy(part[3], out->lease.stream, sizeof out->lease.stream) ||
        !str_copy(part[4], out->lease.entry, sizeof out->lease.entry))
        return false;
    if (!str_eq_c(part[2], "-") && !uuid_parse(part[2], &out->owner))
        return false;
    out->attempt = out->lease.attempt = (int16_t)attempt;
    out->lease.tenant = (int32_t)tenant;
    return true;
}

static void reply_states(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    queue_states_fn *fn = (queue_states_fn *)c->fn;
    const struct uuid *ids = c->extra;
    struct queue_live *items = calloc(c->n + 1, sizeof *items);
    struct err none;
    if (items == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for live records");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < c->n; i++)
        if (!queue_live_parse(redis_str(redis_at(reply, i)), ids[i], &items[i]))
            items[i] = (struct queue_live){.state = INV_NONE};
    fn(c->arg, err == NULL ? items : NULL, err == NULL ? c->n : 0, err);
    free(items);
    queue_call_free(c);
}

int queue_states(struct queue *q, const struct uuid *ids, size_t n, queue_states_fn *fn, void *arg,
                 struct err *err)
{
    struct args a;
    struct queue_call *c = queue_call_new((void (*)(void))fn, arg, n);
    struct uuid *copy = c != NULL ? calloc(n + 1, sizeof *copy) : NULL;
    args_init(&a, 256);
    a.failed = a.failed || copy == NULL;
    args_cstr(&a, "HMGET");
    args_cstr(&a, "sp:live");
    if (copy != NULL) {
        memcpy(copy, ids, n * sizeof *ids);
        c->extra = copy;
    }
    for (size_t i = 0; copy != NULL && i < n; i++)
        args_uuid(&a, &copy[i]);
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, reply_states, c, err);
}

static void reply_scan(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    queue_scan_fn *fn = (queue_scan_fn *)c->fn;
    const struct redis_reply *list = err == NULL ? redis_at(reply, 1) : NULL;
    size_t n = list != NULL ? redis_count(list) / 2 : 0, good = 0;
    struct uuid *ids = calloc(n + 1, sizeof *ids);
    struct queue_live *items = calloc(n + 1, sizeof *items);
    INVARIANT(ids != NULL && items != NULL); /* a page is bounded by COUNT */
    for (size_t i = 0; i < n; i++) {
        struct str id = redis_str(redis_at(list, 2 * i));
        if (id.n != sizeof ids->b)
            continue;
        memcpy(ids[good].b, id.p, id.n);
        if (queue_live_parse(redis_str(redis_at(list, 2 * i + 1)), ids[good], &items[good]))
            good++;
    }
    fn(c->arg, err == NULL ? redis_str(redis_at(reply, 0)) : str_of("0"), ids, items, good, err);
    free(ids);
    free(items);
    queue_call_free(c);
}

int queue_scan(struct queue *q, struct str cursor, queue_scan_fn *fn, void *arg)
{
    struct args a;
    args_init(&a, 256);
    args_cstr(&a, "HSCAN");
    args_cstr(&a, "sp:live");
    args_copy(&a, cursor);
    args_cstr(&a, "COUNT");
    args_cstr(&a, "500");
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, reply_scan, queue_call_new((void (*)(void))fn, arg, 0),
                      NULL);
}

/* As entries that nobody leased, to be dropped: so their tenant's window has the room again. */
int queue_forget(struct queue *q, const struct queue_live *seen, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct queue_requeue_item item = {.lease = seen[i].lease};
        if (queue_requeue(q, NULL, &item, 1, NULL, NULL) != 0)
            return -1;
    }
    return 0;
}

/* ---- the lead ---- */

static void reply_lead(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    ((queue_lead_fn *)c->fn)(c->arg, err == NULL && redis_int(reply) == 1, err);
    queue_call_free(c);
}

int queue_lead(struct queue *q, struct uuid token, int64_t ttl_ms, queue_lead_fn *fn, void *arg)
{
    static const char *const keys[] = {"sp:lead"};
    struct args a;
    args_init(&a, 256);
    args_uuid_text(&a, token);
    args_int(&a, ttl_ms);
    return queue_eval(q, &script_lead, keys, 1, &a, reply_lead, queue_call_new((void (*)(void))fn, arg, 0),
                      NULL);
}

int queue_led(struct queue *q, queue_lead_fn *fn, void *arg)
{
    struct args a;
    args_init(&a, 64);
    args_cstr(&a, "EXISTS");
    args_cstr(&a, "sp:lead");
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, reply_lead, queue_call_new((void (*)(void))fn, arg, 0),
                      NULL);
}

/* ---- identity ---- */

/* The value of "name:value\r\n" in INFO's text. */
static struct str info_value(struct str info, const char *name)
{
    struct str rest = info, line;
    size_t n = strlen(name);
    while (str_split(&rest, '\n', &line))
        if (line.n > n + 1 && memcmp(line.p, name, n) == 0 && line.p[n] == ':')
            return str_make(line.p + n + 1, line.n - n - 1 - (line.p[line.n - 1] == '\r' ? 1 : 0));
    return str_of(NULL);
}

static void reply_info(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    struct queue_identity *id = c->extra;
    if (err == NULL) {
        struct str run = info_value(redis_str(reply), "run_id"),
                   repl = info_value(redis_str(reply), "master_replid");
        snprintf(id->now, sizeof id->now, "%.*s/%.*s", STR_ARG(run), STR_ARG(repl));
    }
    ((queue_identity_fn *)c->fn)(c->arg, err == NULL ? id : NULL, err);
    queue_call_free(c);
}

/* The first answer: epoch and hold; asks for INFO then. The script and INFO cannot be one command, and a loss
 * between the two shows at the next look. */
struct identity_call {
    struct queue *q;
    queue_identity_fn *fn;
    void *arg;
};

static void reply_epoch(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    struct identity_call *ask = c->extra;
    struct err refused = ERR_INIT;
    if (err == NULL) {
        struct queue_call *info = queue_call_new((void (*)(void))ask->fn, ask->arg, 0);
        struct queue_identity *id = info != NULL ? calloc(1, sizeof *id) : NULL;
        struct args a;
        args_init(&a, 64);
        args_cstr(&a, "INFO");
        a.failed = a.failed || id == NULL;
        if (id != NULL) {
            info->extra = id;
            str_copy(redis_str(redis_at(reply, 0)), id->epoch, sizeof id->epoch);
            id->hold = redis_type_of(redis_at(reply, 1)) == REDIS_STR;
            str_copy(redis_str(redis_at(reply, 2)), id->known, sizeof id->known);
            id->unmarked = redis_type_of(redis_at(reply, 3)) == REDIS_STR;
            id->torn = redis_int(redis_at(reply, 4)) != 1;
        }
        if (queue_send(ask->q->redis, &a, QUEUE_TIMEOUT_MS, reply_info, info, &refused) == 0) {
            queue_call_free(c);
            return;
        }
        err = &refused;
    }
    ask->fn(ask->arg, NULL, err);
    queue_call_free(c);
}

int queue_identity(struct queue *q, queue_identity_fn *fn, void *arg)
{
    static const char *const keys[] = {"sp:epoch", "sp:hold", "sp:ident", "sp:unmarked", "sp:live"};
    struct queue_call *c = queue_call_new(NULL, NULL, 0);
    struct identity_call *ask = c != NULL ? calloc(1, sizeof *ask) : NULL;
    struct args a;
    args_init(&a, 64);
    a.failed = a.failed || ask == NULL;
    if (ask != NULL) {
        *ask = (struct identity_call){.q = q, .fn = fn, .arg = arg};
        c->extra = ask;
    }
    return queue_eval(q, &script_identity, keys, 5, &a, reply_epoch, c, NULL);
}

static void reply_reset(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    ((queue_reset_fn *)c->fn)(c->arg, err == NULL && redis_int(reply) == 1, err);
    queue_call_free(c);
}

int queue_reset(struct queue *q, struct uuid new_epoch, const struct queue_identity *id, queue_reset_fn *fn,
                void *arg)
{
    const char *const keys[] = {"sp:epoch",       "sp:hold",        "sp:live",        "sp:tw",
                                queue_streams[0], queue_streams[1], queue_streams[2], queue_build_stream,
                                "sp:ident",       "sp:unmarked"};
    struct args a;
    args_init(&a, 256);
    args_uuid_text(&a, new_epoch);
    args_int(&a, QUEUE_HOLD_MS);
    args_copy(&a, str_of(id->now));
    args_copy(&a, str_of(id->epoch));
    return queue_eval(q, &script_reset, keys, 10, &a, reply_reset, queue_call_new((void (*)(void))fn, arg, 0),
                      NULL);
}

int queue_marked(struct queue *q, queue_done_fn *fn, void *arg)
{
    struct args a;
    args_init(&a, 64);
    args_cstr(&a, "DEL");
    args_cstr(&a, "sp:unmarked");
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, queue_reply_done,
                      queue_call_new((void (*)(void))fn, arg, 0), NULL);
}

/* ---- groups ---- */

struct group_call {
    queue_done_fn *fn;
    void *arg;
    int left;
    struct err err;
};

static void reply_group(void *arg, const struct redis_reply *reply, const struct err *err)
{
    (void)reply;
    struct queue_call *c = arg;
    struct group_call *all = c->arg;
    if (err != NULL && !str_starts(str_of(err->msg), STR("BUSYGROUP")))
        all->err = *err;
    queue_call_free(c);
    if (--all->left > 0)
        return;
    if (all->fn != NULL)
        all->fn(all->arg, all->err.code != ERR_NONE ? &all->err : NULL);
    free(all);
}

static int group_create(struct queue *q, const char *stream, struct group_call *all)
{
    struct args a;
    args_init(&a, 64);
    const char *const words[] = {"XGROUP", "CREATE", stream, "executors", "0", "MKSTREAM"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        args_cstr(&a, words[i]);
    all->left++;
    if (queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, reply_group, queue_call_new(NULL, all, 0), &all->err) == 0)
        return 0;
    all->left--;
    return -1;
}

int queue_groups_create(struct queue *q, queue_done_fn *fn, void *arg)
{
    struct group_call *all = calloc(1, sizeof *all);
    if (all == NULL)
        return -1;
    *all = (struct group_call){.fn = fn, .arg = arg};
    bool ok = group_create(q, queue_build_stream, all) == 0;
    for (int i = 0; ok && queue_streams[i] != NULL; i++)
        ok = group_create(q, queue_streams[i], all) == 0;
    if (all->left == 0) {
        free(all);
        return -1;
    }
    return 0;
}

/* ---- executors ---- */

struct executors_call {
    struct queue *q;
    queue_executors_fn *fn;
    void *arg;
    size_t n;
    bool *alive;
    struct uuid boots[];
};

static void executors_free(struct executors_call *e)
{
    if (e != NULL)
        free(e->alive);
    free(e);
}

/* MGET of the lease keys: present is alive. */
static void reply_leases(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    struct executors_call *e = c->arg;
    for (size_t i = 0; err == NULL && i < e->n; i++)
        e->alive[i] = redis_type_of(redis_at(reply, i)) == REDIS_STR;
    e->fn(e->arg, e->boots, e->alive, err == NULL ? e->n : 0, err);
    executors_free(e);
    queue_call_free(c);
}

static void ask_leases(struct executors_call *e)
{
    struct args a;
    struct err err = ERR_INIT;
    args_init(&a, e->n * 64 + 64);
    args_cstr(&a, "MGET");
    for (size_t i = 0; i < e->n; i++)
        args_key(&a, "sp:x:", e->boots[i]);
    if (queue_send(e->q->redis, &a, QUEUE_TIMEOUT_MS, reply_leases, queue_call_new(NULL, e, 0), &err) != 0) {
        e->fn(e->arg, NULL, NULL, 0, &err);
        executors_free(e);
    }
}

static void reply_register(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    struct executors_call *ask = c->extra;
    size_t n = err == NULL ? redis_count(reply) : 0;
    struct executors_call *e = calloc(1, sizeof *e + (n + 1) * sizeof e->boots[0]);
    INVARIANT(e != NULL);
    *e = (struct executors_call){.q = ask->q, .fn = ask->fn, .arg = ask->arg, .alive = calloc(n + 1, 1)};
    INVARIANT(e->alive != NULL);
    queue_call_free(c);
    for (size_t i = 0; i < n; i++)
        if (uuid_parse(redis_str(redis_at(reply, i)), &e->boots[e->n]))
            e->n++;
    if (e->n > 0) {
        ask_leases(e);
        return;
    }
    e->fn(e->arg, e->boots, e->alive, 0, err);
    executors_free(e);
}

int queue_executors(struct queue *q, queue_executors_fn *fn, void *arg)
{
    struct queue_call *c = queue_call_new(NULL, NULL, 0);
    struct executors_call *ask = c != NULL ? calloc(1, sizeof *ask) : NULL;
    struct args a;
    args_init(&a, 64);
    a.failed = a.failed || ask == NULL;
    if (ask != NULL) {
        *ask = (struct executors_call){.q = q, .fn = fn, .arg = arg};
        c->extra = ask;
    }
    args_cstr(&a, "SMEMBERS");
    args_cstr(&a, "sp:execs");
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, reply_register, c, NULL);
}

#define CLIENT_NAME "sandpiper-executor-"

void queue_client_name(struct uuid boot, char out[QUEUE_CLIENT_NAME_BYTES])
{
    char text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    snprintf(out, QUEUE_CLIENT_NAME_BYTES, CLIENT_NAME "%s", text);
}

/* The boot in " name=sandpiper-executor-<boot> " of a line of CLIENT LIST. */
static bool client_boot(struct str line, struct uuid *boot)
{
    struct str rest = line, field;
    while (str_split(&rest, ' ', &field))
        if (str_starts(field, STR("name=" CLIENT_NAME))) {
            size_t skip = sizeof "name=" CLIENT_NAME - 1;
            return uuid_parse(str_make(field.p + skip, field.n - skip), boot);
        }
    return false;
}

static void reply_clients(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    struct str rest = err == NULL ? redis_str(reply) : str_of(NULL), line;
    size_t cap = rest.n / sizeof CLIENT_NAME + 1, n = 0; /* a line is longer than the name */
    struct uuid *boots = calloc(cap, sizeof *boots);
    INVARIANT(boots != NULL); /* bounded by Redis's connections */
    while (n < cap && str_split(&rest, '\n', &line))
        if (client_boot(line, &boots[n]))
            n++;
    ((queue_connected_fn *)c->fn)(c->arg, boots, n, err);
    free(boots);
    queue_call_free(c);
}

int queue_connected(struct queue *q, queue_connected_fn *fn, void *arg)
{
    struct args a;
    args_init(&a, 64);
    args_cstr(&a, "CLIENT");
    args_cstr(&a, "LIST");
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, reply_clients,
                      queue_call_new((void (*)(void))fn, arg, 0), NULL);
}

static void lease_key(struct uuid boot, char out[64])
{
    char text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    snprintf(out, 64, "sp:x:%s", text);
}

static int forget(struct queue *q, struct uuid boot, queue_done_fn *fn, void *arg)
{
    char lease[64], cancels[64], will[64], text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    lease_key(boot, lease);
    snprintf(cancels, sizeof cancels, "sp:cx:%s", text);
    snprintf(will, sizeof will, "sp:will:%s", text);
    const char *const keys[] = {lease,
                                "sp:execs",
                                cancels,
                                will,
                                queue_streams[0],
                                queue_streams[1],
                                queue_streams[2],
                                queue_build_stream};
    struct args a;
    args_init(&a, 128);
    args_uuid_text(&a, boot);
    return queue_eval(q, &script_forget, keys, 8, &a, queue_reply_done,
                      queue_call_new((void (*)(void))fn, arg, 0), NULL);
}

int queue_executor_forget(struct queue *q, struct uuid boot)
{
    return forget(q, boot, NULL, NULL);
}

/* Two commands of one connection: in this order. */
int queue_executor_leave(struct queue *q, struct uuid boot, queue_done_fn *fn, void *arg)
{
    char lease[64];
    struct args a;
    lease_key(boot, lease);
    args_init(&a, 128);
    args_cstr(&a, "DEL");
    args_copy(&a, str_of(lease));
    if (queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, queue_reply_done, queue_call_new(NULL, NULL, 0), NULL) !=
        0)
        return -1;
    return forget(q, boot, fn, arg);
}

int queue_pending_of(struct queue *q, struct uuid boot, const char *stream, queue_read_fn *fn, void *arg)
{
    const char *const streams[] = {stream, NULL};
    char consumer[UUID_TEXT_BYTES];
    uuid_format(boot, consumer);
    return queue_read(q->redis, consumer, streams, QUEUE_BATCH, 0, true, fn, arg, NULL);
}
