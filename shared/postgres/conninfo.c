/* The connection parameters: what the url says, then ours where it says nothing.
 *
 * A parameter of `defaults` holds unless the url gives it. Dead peers are found by TCP itself: keepalives
 * when idle, tcp_user_timeout with data in flight. */
#include "postgres/conninfo.h"

#include <stdlib.h>
#include <string.h>

#include "postgres/pg.h"

static const char *const defaults[][2] = {
    {"target_session_attrs", "read-write"}, {"tcp_user_timeout", "10000"}, {"keepalives_idle", "20"},
    {"keepalives_interval", "5"},           {"keepalives_count", "3"},
};

static const char *const fixed[][2] = {
    {"client_encoding", "UTF8"},
};

enum { DEFAULTS = sizeof defaults / sizeof *defaults, FIXED = sizeof fixed / sizeof *fixed };

struct pg_conninfo {
    PQconninfoOption *parsed; /* owns the url's values */
    char *application;
    const char **keys, **values; /* NULL-ended; point into the above */
    size_t count;
};

static void add(struct pg_conninfo *info, const char *key, const char *value)
{
    info->keys[info->count] = key;
    info->values[info->count] = value;
    info->count++;
}

static bool given(const struct pg_conninfo *info, const char *key)
{
    for (const PQconninfoOption *o = info->parsed; o->keyword != NULL; o++)
        if (strcmp(o->keyword, key) == 0)
            return o->val != NULL;
    return false;
}

static size_t parsed_count(const struct pg_conninfo *info)
{
    size_t n = 0;
    for (const PQconninfoOption *o = info->parsed; o->keyword != NULL; o++)
        n++;
    return n;
}

static int fill(struct pg_conninfo *info, const char *application)
{
    size_t max = parsed_count(info) + DEFAULTS + FIXED + 2;
    info->keys = calloc(max, sizeof *info->keys);
    info->values = calloc(max, sizeof *info->values);
    info->application = strdup(application != NULL ? application : "sandpiper");
    if (info->keys == NULL || info->values == NULL || info->application == NULL)
        return -1;
    for (const PQconninfoOption *o = info->parsed; o->keyword != NULL; o++)
        if (o->val != NULL)
            add(info, o->keyword, o->val);
    for (size_t i = 0; i < DEFAULTS; i++)
        if (!given(info, defaults[i][0]))
            add(info, defaults[i][0], defaults[i][1]);
    for (size_t i = 0; i < FIXED; i++) /* a later value of the same key wins */
        add(info, fixed[i][0], fixed[i][1]);
    add(info, "application_name", info->application);
    return 0;
}

struct pg_conninfo *pg_conninfo_new(const char *url, const char *application, struct err *err)
{
    struct pg_conninfo *info = calloc(1, sizeof *info);
    if (info == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a database connection");
        return NULL;
    }
    info->parsed = PQconninfoParse(url != NULL ? url : "", NULL);
    if (info->parsed == NULL) { /* libpq's own text may quote the url: not passed on */
        err_set(err, ERR_CONFIG,
                "the database url cannot be read; expected postgresql://user@host:port/name");
        pg_conninfo_free(&info);
        return NULL;
    }
    if (fill(info, application) != 0) {
        err_set(err, ERR_NO_MEMORY, "no memory for a database connection");
        pg_conninfo_free(&info);
    }
    return info;
}

void pg_conninfo_free(struct pg_conninfo **info)
{
    if (info == NULL || *info == NULL)
        return;
    PQconninfoFree((*info)->parsed);
    free((*info)->application);
    free((*info)->keys);
    free((*info)->values);
    free(*info);
    *info = NULL;
}

PGconn *pg_conninfo_start(const struct pg_conninfo *info)
{
    return PQconnectStartParams(info->keys, info->values, 0);
}

int pg_url_check(const char *url, struct err *err)
{
    struct pg_conninfo *info = pg_conninfo_new(url, NULL, err);
    bool fine = info != NULL;
    pg_conninfo_free(&info);
    return fine ? 0 : -1;
}
