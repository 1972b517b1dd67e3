/* POST /v1/agents: a new version of an agent from its archive (without one: deploy_json.c).
 *
 *   body -> spooled to an unlinked file, hashed on the way -> checked on a worker -> may it be built on the
 * template that it names? -> is the newest version the same? -> stored in chunks -> a version, building ->
 * its build is queued -> 202 with the agent
 *
 * Memory stays constant: one piece of the body, one chunk of the file. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents.h"
#include "base/failpoint.h"
#include "bundle.h"
#include "deploy.h"
#include "base/log.h"
#include "loop/flow.h"
#include "store/agents.h"

enum { STORE_MS = 10000, CHECK_MS = 60000, UPLOADS_MAX = 32 /* each may spool a whole archive */ };

struct deploy {
    struct flow flow;
    struct call *c;
    int fd;
    int64_t bytes;
    struct crypto_sha256_state hash;
    uint8_t sha256[SHA256_BYTES]; /* of the archive */
    bool rebuild;                 /* ?rebuild=true: also when it is the same */
    char name[AGENT_SLUG_BYTES];  /* ?name=, may be empty */
    struct bundle bundle;
    struct err check_err;
    struct uuid version_id;
    int32_t chunk;
    int32_t version; /* made, or found */
    bool ready;      /* found, and ready */
    char *piece;     /* one chunk's memory */
};

static void enter_check(void *self);
static void enter_template(void *self);
static void enter_same(void *self);
static void enter_keep(void *self);
static void enter_version(void *self);
static void wait_for_worker(void *self);

static const struct flow_step steps[] = {
    {"check", enter_check, CHECK_MS, wait_for_worker},
    {"template", enter_template, 0, NULL},
    {"same", enter_same, 0, NULL},
    {"keep", enter_keep, 0, NULL},       /* each statement has a deadline: its answer is waited for, */
    {"version", enter_version, 0, NULL}, /* since it comes back to this struct */
};

static void deploy_free(void *data)
{
    struct deploy *d = data;
    flow_deinit(&d->flow);
    if (d->fd >= 0) {
        close(d->fd);
        d->c->g->uploads--;
    }
    free(d->piece);
    free(d);
}

static void flow_over(void *self, const struct err *err)
{
    struct deploy *d = self;
    struct call *c = d->c;
    /* Not when the version may be on record after all; what is left over is dropped after two hours. */
    if (err != NULL && d->chunk > 0 && err->code != ERR_OUTCOME_UNKNOWN)
        agent_file_drop(c->g->files, d->version_id, STORE_MS);
    if (!call_leave(c))
        return;
    if (err != NULL && err->code == ERR_OUTCOME_UNKNOWN) {
        char where[sizeof d->name + 16];
        snprintf(where, sizeof where, "/v1/agents/%s", d->name);
        call_fail_unknown(c, where);
    } else if (err != NULL) {
        call_fail(c, err);
    } else {
        agent_answer_deploy(c, str_of(d->name), d->version, d->ready ? 200 : 202);
    }
}

/* ---- checking ---- */

static void run_check(void *arg)
{
    struct deploy *d = arg;
    bundle_check(d->fd, &d->bundle, &d->check_err);
}

static void on_checked(void *arg)
{
    struct deploy *d = arg;
    struct err *err = &d->check_err;
    if (err->code == ERR_NONE && d->name[0] == '\0')
        snprintf(d->name, sizeof d->name, "%s", d->bundle.manifest.name);
    if (err->code == ERR_NONE && d->name[0] == '\0')
        err_set(err, ERR_MISSING_FIELD, "the agent has no name: give ?name= or \"name\" in agent.json");
    if (err->code != ERR_NONE)
        flow_end(&d->flow, err);
    else
        flow_next(&d->flow);
}

static void enter_check(void *self)
{
    struct deploy *d = self;
    struct err err;
    if (work_submit(d->c->g->pool, run_check, on_checked, d, &err) != 0)
        flow_end(&d->flow, &err);
}

/* A thread cannot be stopped: the archive is bounded, so it ends by itself. */
static void wait_for_worker(void *self)
{
    log_warn("checking an archive takes long", LF_INT("bytes", ((struct deploy *)self)->bytes));
}

static void on_template(void *arg, const struct err *err)
{
    struct deploy *d = arg;
    if (err != NULL)
        flow_end(&d->flow, err);
    else
        flow_next(&d->flow);
}

static void enter_template(void *self)
{
    struct deploy *d = self;
    struct err err;
    const char *name = d->bundle.manifest.template;
    if (name[0] == '\0')
        flow_next(&d->flow);
    else if (deploy_template_check(d->c->g, name, on_template, d, &err) != 0)
        flow_end(&d->flow, &err);
}

/* ---- the same again ---- */

static struct agent_source source_of(const struct deploy *d)
{
    struct agent_source s = {.manifest = &d->bundle.manifest, .archive_bytes = d->bytes};
    memcpy(s.archive_sha256, d->sha256, sizeof s.archive_sha256);
    memcpy(s.source_sha256, d->bundle.source_sha256, sizeof s.source_sha256);
    return s;
}

static void on_same(void *arg, int32_t version, enum agent_status status, const struct err *err)
{
    struct deploy *d = arg;
    d->version = version;
    d->ready = version > 0 && status == AGENT_READY;
    if (err != NULL || version > 0)
        flow_end(&d->flow, err);
    else
        flow_next(&d->flow);
}

static void enter_same(void *self)
{
    struct deploy *d = self;
    struct err err;
    const struct agent_source source = source_of(d);
    if (d->rebuild)
        flow_next(&d->flow);
    else if (agent_same(d->c->g->files, d->c->tenant, str_of(d->name), &source, STORE_MS, on_same, d, &err) !=
             0)
        flow_end(&d->flow, &err);
}

/* ---- storing ---- */

static void on_kept(void *arg, const struct err *err)
{
    struct deploy *d = arg;
    if (err != NULL) {
        flow_end(&d->flow, err);
        return;
    }
    d->chunk++;
    enter_keep(d);
}

static void enter_keep(void *self)
{
    struct deploy *d = self;
    struct err err = ERR_INIT;
    off_t at = (off_t)d->chunk * INV_CHUNK_BYTES;
    if (at >= d->bytes) {
        flow_next(&d->flow);
        return;
    }
    ssize_t n = pread(d->fd, d->piece, INV_CHUNK_BYTES, at);
    if (n <= 0)
        err_set(&err, ERR_IO, "the spooled archive cannot be read");
    else if (agent_file_put(d->c->g->files, d->version_id, d->chunk, str_make(d->piece, (size_t)n), STORE_MS,
                            on_kept, d, &err) == 0)
        return;
    flow_end(&d->flow, &err);
}

/* ---- the version ---- */

void deploy_enqueue(struct call *c, struct uuid version_id, struct uuid agent, int32_t version)
{
    struct entry e = {.kind = ENTRY_BUILD,
                      .id = version_id,
                      .tenant = c->tenant,
                      .agent = agent,
                      .version = version,
                      .attempt = 1,
                      .max_attempts = 1,
                      .priority = INV_NORMAL,
                      .timeout_ms = 600 * 1000,
                      .ready = wall_now()};
    e.queue_deadline.us = e.ready.us + INV_QUEUE_TIMEOUT_DEFAULT_MS * 1000LL;
    FAILPOINT(gateway_deploy_done);
    queue_enqueue(c->g->queue, QUEUE_FED, (struct uuid){0}, &e, 1, NULL, NULL, NULL);
}

static void on_version(void *arg, struct uuid agent, int32_t version, const struct err *err)
{
    struct deploy *d = arg;
    if (err != NULL) {
        flow_end(&d->flow, err);
        return;
    }
    d->version = version;
    deploy_enqueue(d->c, d->version_id, agent, version);
    flow_next(&d->flow);
}

static void enter_version(void *self)
{
    struct deploy *d = self;
    struct err err;
    const struct agent_source source = source_of(d);
    if (agent_deploy(d->c->g->files, d->c->tenant, str_of(d->name), d->version_id, &source, STORE_MS,
                     on_version, d, &err) != 0)
        flow_end(&d->flow, &err);
}

/* ---- the body ---- */

static bool on_data(void *arg, struct http_request *req, struct str piece)
{
    (void)req;
    struct deploy *d = arg;
    crypto_sha256_update(&d->hash, piece);
    for (size_t at = 0; at < piece.n;) { /* the page cache takes it: bounded by the archive's limit */
        ssize_t n = write(d->fd, piece.p + at, piece.n - at);
        if (n <= 0) {
            call_fail_code(d->c, ERR_UNAVAILABLE, "no room to spool the archive");
            return false;
        }
        at += (size_t)n;
    }
    d->bytes += (int64_t)piece.n;
    return true;
}

static void on_end(void *arg, struct http_request *req)
{
    (void)req;
    struct deploy *d = arg;
    struct err err;
    crypto_sha256_final(&d->hash, d->sha256);
    d->version_id = uuid_new();
    d->piece = malloc(INV_CHUNK_BYTES);
    if (d->piece == NULL ||
        flow_init(&d->flow, d->c->g->loop, steps, sizeof steps / sizeof *steps, d, flow_over, &err) != 0) {
        call_fail_code(d->c, ERR_OVERLOADED, NULL);
        return;
    }
    call_enter(d->c);
    flow_start(&d->flow);
}

static int check_request(struct call *c, struct deploy *d, struct err *err)
{
    struct str type, name, rebuild;
    if (!http_header(c->req, "Content-Type", &type) ||
        !(str_eq_nocase(type, STR("application/gzip")) || str_eq_nocase(type, STR("application/x-gzip")) ||
          str_eq_nocase(type, STR("application/x-tar")) ||
          str_eq_nocase(type, STR("application/octet-stream"))))
        return err_set(err, ERR_MEDIA_TYPE,
                       "send a tar.gz archive as application/gzip, or {\"name\", \"git_url\"} or {\"name\", "
                       "\"template\", "
                       "\"manifest\"} as application/json");
    int got = http_query_get(c->req, "name", &name, err);
    if (got > 0 && (!agent_slug_valid(name) || !str_copy(name, d->name, sizeof d->name)))
        return err_set(err, ERR_BAD_QUERY, "name must be lower-case letters, digits and hyphens, at most 63");
    int again = got < 0 ? -1 : http_query_get(c->req, "rebuild", &rebuild, err);
    if (again > 0 && !str_eq_c(rebuild, "true") && !str_eq_c(rebuild, "false"))
        return err_set(err, ERR_BAD_QUERY, "rebuild must be true or false");
    d->rebuild = again > 0 && str_eq_c(rebuild, "true");
    return again < 0 ? -1 : 0;
}

void agent_deploy_call(struct call *c)
{
    struct err err = ERR_INIT;
    struct str type;
    if (http_header(c->req, "Content-Type", &type) && str_starts(type, STR("application/json"))) {
        agent_deploy_json(c);
        return;
    }
    struct deploy *d = calloc(1, sizeof *d);
    if (d == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *d = (struct deploy){.c = c, .fd = -1};
    c->data = d;
    c->free_data = deploy_free;
    crypto_sha256_init(&d->hash);
    if (check_request(c, d, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    if (c->g->uploads >= UPLOADS_MAX) {
        call_fail_code(c, ERR_OVERLOADED, "too many archives are on their way");
        return;
    }
    d->fd = open(c->g->settings->spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (d->fd < 0) {
        log_error("cannot spool uploads", LF_STR("dir", c->g->settings->spool_dir));
        call_fail_code(c, ERR_UNAVAILABLE, "no room to spool the archive");
        return;
    }
    c->g->uploads++;
    const struct http_body_stream stream = {.on_data = on_data, .on_end = on_end, .arg = d};
    http_stream_body(c->req, AGENT_ARCHIVE_MAX_BYTES, &stream);
}
