/* doctor: what stands behind the gateway. Each is asked once, with a deadline. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "doctor.h"
#include "http/client.h"
#include "postgres/pg.h"
#include "store/migrate.h"
#include "store/queue.h"

enum { ASK_MS = 5000, URL_BYTES = 512 };

struct services {
    char *database_url, *redis_url, *e2b_api_url, *e2b_domain;
    struct secret *e2b_api_key;
};

#define ROW(k, kind_, field, help_)                                                              \
    {                                                                                            \
        .key = (k), .kind = (kind_), .offset = offsetof(struct services, field), .help = (help_) \
    }
static const struct config_row rows[] = {
    ROW("SANDPIPER_DATABASE_URL", CONFIG_STRING, database_url, "PostgreSQL"),
    ROW("SANDPIPER_REDIS_URL", CONFIG_STRING, redis_url, "Redis"),
    ROW("E2B_API_URL", CONFIG_URL, e2b_api_url, "the sandbox service"),
    ROW("E2B_DOMAIN", CONFIG_STRING, e2b_domain, "E2B's domain"),
    ROW("E2B_API_KEY", CONFIG_SECRET, e2b_api_key, "its key"),
};
static const struct config_table table = {
    .daemon = "sandpiper doctor", .about = "", .rows = rows, .count = sizeof rows / sizeof *rows};

/* One question under way: done, or the time is over. */
struct wait {
    struct doctor *d;
    bool done;
    struct loop_timer *late;
};

static void on_late(void *arg)
{
    struct wait *w = arg;
    loop_stop(w->d->cli->loop);
}

static void answered(struct wait *w)
{
    w->done = true;
    loop_stop(w->d->cli->loop);
}

/* Whether there was an answer in time. */
static bool wait_for(struct wait *w)
{
    w->late = loop_timer_new(w->d->cli->loop, on_late, w);
    if (w->late == NULL)
        return false;
    loop_timer_start(w->late, ASK_MS);
    if (!w->done && !w->d->cli->interrupted)
        loop_run(w->d->cli->loop);
    loop_timer_free(&w->late);
    return w->done;
}

/* ---- PostgreSQL ---- */

struct schema {
    struct wait wait;
    int found, wanted;
    struct err err;
};

static void on_schema(void *arg, int found, int wanted, struct uuid deployment, const struct err *err)
{
    struct schema *s = arg;
    (void)deployment;
    s->found = found;
    s->wanted = wanted;
    if (err != NULL)
        s->err = *err;
    answered(&s->wait);
}

static void look_at_postgres(struct doctor *d, const char *url)
{
    struct schema s = {.wait.d = d};
    const struct pg_options options = {.url = url, .application = "sandpiper-cli"};
    struct pg *pg = pg_open(d->cli->loop, &options, &s.err);
    cli_spin(d->cli, "asking PostgreSQL");
    bool told = pg != NULL && schema_check(pg, ASK_MS, on_schema, &s, &s.err) == 0 && wait_for(&s.wait);
    if (!told || s.err.code != ERR_NONE)
        doctor_tell(d, FOUND_BAD, "PostgreSQL", "is it running? SANDPIPER_DATABASE_URL says where", "%s",
                    s.err.code != ERR_NONE ? s.err.msg : "it does not answer");
    else if (s.found < s.wanted)
        doctor_tell(d, FOUND_BAD, "PostgreSQL", "run 'sandpiper migrate'",
                    "the schema is %d, and this release wants %d", s.found, s.wanted);
    else if (s.found > s.wanted)
        doctor_tell(d, FOUND_BAD, "PostgreSQL", "use the release that made it, or a newer one",
                    "the schema is %d, newer than this release's %d", s.found, s.wanted);
    else
        doctor_tell(d, FOUND_WELL, "PostgreSQL", NULL, "it answers, and has schema %d", s.found);
    pg_close(&pg);
}

/* ---- Redis, and who works on it ---- */

struct fleet {
    struct wait wait;
    size_t alive, dead;
    bool led;
    struct err err;
};

static void on_state(void *arg, bool connected)
{
    (void)connected;
    answered(arg);
}

static void on_executors(void *arg, const struct uuid *boots, const bool *alive, size_t n,
                         const struct err *err)
{
    struct fleet *f = arg;
    (void)boots;
    for (size_t i = 0; err == NULL && i < n; i++)
        *(alive[i] ? &f->alive : &f->dead) += 1;
    if (err != NULL)
        f->err = *err;
    answered(&f->wait);
}

static void on_led(void *arg, bool led, const struct err *err)
{
    struct fleet *f = arg;
    f->led = led;
    if (err != NULL)
        f->err = *err;
    answered(&f->wait);
}

static void look_at_fleet(struct doctor *d, struct queue *q)
{
    struct fleet f = {.wait.d = d};
    bool told = queue_executors(q, on_executors, &f) == 0 && wait_for(&f.wait) && f.err.code == ERR_NONE;
    if (told && f.alive > 0)
        doctor_tell(d, FOUND_WELL, "executors", NULL, "%zu at work", f.alive);
    else
        doctor_tell(d, FOUND_BAD, "executors", "start sandpiper-executor; its log says what it waits for",
                    "none is at work: jobs are accepted, and wait");
    f.wait.done = false;
    told = queue_led(q, on_led, &f) == 0 && wait_for(&f.wait) && f.err.code == ERR_NONE;
    if (told && f.led)
        doctor_tell(d, FOUND_WELL, "dispatchers", NULL, "one leads");
    else
        doctor_tell(d, FOUND_BAD, "dispatchers", "start sandpiper-dispatcher; its log says what it waits for",
                    "none leads: what waits, is retried or was lost stays where it is");
}

static void look_at_redis(struct doctor *d, const char *url)
{
    struct wait w = {.d = d};
    struct err err = ERR_INIT;
    const struct redis_options options = {
        .url = url, .name = "sandpiper-cli", .on_state = on_state, .arg = &w};
    struct redis *redis = redis_open(d->cli->loop, &options, &err);
    cli_spin(d->cli, "asking Redis");
    if (redis != NULL)
        wait_for(&w);
    struct queue *q = redis != NULL && redis_connected(redis) ? queue_new(redis, 1) : NULL;
    if (q == NULL) {
        doctor_tell(d, FOUND_BAD, "Redis", "is it running? SANDPIPER_REDIS_URL says where", "%s",
                    err.code != ERR_NONE ? err.msg : "it does not answer");
    } else {
        doctor_tell(d, FOUND_WELL, "Redis", NULL, "it answers");
        look_at_fleet(d, q);
    }
    redis_close(&redis);
    queue_free(&q);
}

/* ---- the sandbox service ---- */

struct service {
    struct wait wait;
    int status;
    struct err err;
};

static void on_list(void *arg, const struct http_response *response, const struct err *err)
{
    struct service *s = arg;
    s->status = response != NULL ? response->status : 0;
    if (err != NULL)
        s->err = *err;
    answered(&s->wait);
}

static void tell_service(struct doctor *d, const char *url, const struct service *s)
{
    if (s->status == 200)
        doctor_tell(d, FOUND_WELL, "sandboxes", NULL, "%s answers, and lets the key in", url);
    else if (s->status == 401 || s->status == 403)
        doctor_tell(d, FOUND_BAD, "sandboxes", "check E2B_API_KEY, the executors' and the dispatchers'",
                    "%s refuses the key", url);
    else if (s->status > 0)
        doctor_tell(d, FOUND_BAD, "sandboxes", "check E2B_API_URL; E2B's status page may say more",
                    "%s answers with status %d", url, s->status);
    else
        doctor_tell(d, FOUND_BAD, "sandboxes", "is it running? E2B_API_URL says where", "%s: %s", url,
                    s->err.code != ERR_NONE ? s->err.msg : "it does not answer");
}

static void look_at_sandboxes(struct doctor *d, const struct services *s)
{
    struct service x = {.wait.d = d};
    char url[URL_BYTES], list[URL_BYTES + 32], *key = NULL;
    const char *domain = s->e2b_domain != NULL ? s->e2b_domain : "e2b.app";
    snprintf(url, sizeof url, "%s%s", s->e2b_api_url != NULL ? s->e2b_api_url : "https://api.",
             s->e2b_api_url != NULL ? "" : domain);
    snprintf(list, sizeof list, "%s/v2/sandboxes?limit=1", url);
    struct http_client *http = http_client_open(
        d->cli->loop, &(struct http_client_options){.user_agent = "sandpiper-cli/" SP_VERSION}, &x.err);
    if (asprintf(&key, "X-API-Key: %.*s", STR_ARG(secret_reveal(s->e2b_api_key))) < 0)
        key = NULL;
    const char *headers[] = {key, NULL};
    const struct http_call call = {
        .method = "GET", .url = list, .headers = headers, .timeout_ms = ASK_MS, .done = on_list, .arg = &x};
    cli_spin(d->cli, "asking the sandbox service");
    if (http != NULL && key != NULL && http_call(http, &call, &x.err) != NULL)
        wait_for(&x.wait);
    tell_service(d, url, &x);
    http_client_close(&http);
    if (key != NULL)
        crypto_wipe(key, strlen(key));
    free(key);
}

/* ---- all of them ---- */

static void look_at_all(struct doctor *d, const struct services *s)
{
    if (s->database_url != NULL)
        look_at_postgres(d, s->database_url);
    else
        doctor_tell(d, FOUND_SKIPPED, "PostgreSQL", NULL,
                    "not asked: SANDPIPER_DATABASE_URL is not set here");
    if (s->redis_url != NULL)
        look_at_redis(d, s->redis_url);
    else
        doctor_tell(d, FOUND_SKIPPED, "Redis", NULL, "not asked: SANDPIPER_REDIS_URL is not set here");
    if (s->e2b_api_key != NULL)
        look_at_sandboxes(d, s);
    else
        doctor_tell(d, FOUND_SKIPPED, "sandboxes", NULL, "not asked: E2B_API_KEY is not set here");
}

int doctor_services(struct doctor *d, const char *config_file)
{
    struct services s = {0};
    char name[] = "sandpiper doctor", flag[] = "--config",
         *file = config_file != NULL ? strdup(config_file) : NULL;
    char *argv[] = {name, flag, file, NULL};
    enum config_action action = config_load(&table, file != NULL ? 3 : 1, argv, &s);
    if (action == CONFIG_RUN) {
        look_at_all(d, &s);
        config_unload(&table, &s);
    }
    free(file);
    return action == CONFIG_RUN ? STATUS_OK : STATUS_USAGE;
}
