/* An attempt's environment. */
#include "environment.h"

#include <string.h>

bool environment_first(const struct job *j)
{
    return j->entry.env || j->version.manifest->secret_count > 0;
}

const char *environment_missing(const struct job *j)
{
    const struct environment *e = j->environment;
    const struct manifest *m = j->version.manifest;
    for (int i = 0; i < m->secret_count; i++) {
        struct str name = str_of(m->secrets[i]);
        if (e == NULL || (!vars_has(e->secrets, name) && !vars_has(e->own, name)))
            return m->secrets[i];
    }
    return NULL;
}

void environment_set(struct job *j, struct environment *e)
{
    environment_free(&j->environment);
    j->environment = e;
}

/* ---- the start ---- */

static size_t name_length(const char *pair)
{
    return strcspn(pair, "=");
}

void environment_pair_put(struct environment_pairs *p, const char *pair)
{
    size_t n = name_length(pair);
    for (size_t i = 0; i < p->n; i++)
        if (name_length(p->list[i]) == n && memcmp(p->list[i], pair, n) == 0) {
            p->list[i] = pair;
            return;
        }
    INVARIANT(p->n < ENVIRONMENT_MAX); /* each kind has its limit */
    p->list[p->n++] = pair;
    p->list[p->n] = NULL;
}

static void put_vars(struct environment_pairs *p, const struct vars *v)
{
    for (size_t i = 0; i < vars_count(v); i++)
        environment_pair_put(p, vars_pair(v, i));
}

void environment_pairs_put(struct environment_pairs *p, const struct job *j)
{
    if (j->environment == NULL)
        return;
    put_vars(p, j->environment->secrets);
    put_vars(p, j->environment->own);
}

/* ---- what is seen ---- */

static void put_out(void *arg, struct str piece)
{
    spool_put(&((struct job *)arg)->out, piece);
}

static void put_err(void *arg, struct str piece)
{
    spool_put(&((struct job *)arg)->err, piece);
}

bool environment_guard(struct job *j)
{
    redactor_free(&j->redact_err); /* of a start in a sandbox that was gone */
    redactor_free(&j->redact_out);
    if (j->environment == NULL || redact_values_none(j->environment->redact))
        return true;
    j->redact_err = redactor_new(j->environment->redact, put_err, j);
    bool both = j->version.manifest->redact_output;
    if (both)
        j->redact_out = redactor_new(j->environment->redact, put_out, j);
    return j->redact_err != NULL && (j->redact_out != NULL || !both);
}

void environment_stdout(struct job *j, struct str piece)
{
    if (j->redact_out != NULL)
        redactor_feed(j->redact_out, piece);
    else
        spool_put(&j->out, piece);
}

void environment_stderr(struct job *j, struct str piece)
{
    if (j->redact_err != NULL)
        redactor_feed(j->redact_err, piece);
    else
        spool_put(&j->err, piece);
}

void environment_flush(struct job *j)
{
    if (j->redact_err != NULL)
        redactor_end(j->redact_err);
    if (j->redact_out != NULL) {
        redactor_end(j->redact_out);
        j->out_redacted = redactor_hit(j->redact_out);
    }
    redactor_free(&j->redact_err);
    redactor_free(&j->redact_out);
}

struct message {
    char *out;
    size_t n, max;
};

static void put_message(void *arg, struct str piece)
{
    struct message *m = arg;
    size_t n = piece.n < m->max - m->n ? piece.n : m->max - m->n;
    memcpy(m->out + m->n, piece.p, n);
    m->n += n;
}

void environment_clean(const struct job *j, const char *message, char *out, size_t out_bytes)
{
    struct message m = {.out = out, .max = out_bytes - 1};
    struct str text = str_of(message);
    struct redactor *r = NULL;
    bool secret = j->environment != NULL && !redact_values_none(j->environment->redact);
    if (secret)
        r = redactor_new(j->environment->redact, put_message, &m);
    if (r != NULL) {
        redactor_feed(r, text);
        redactor_end(r);
        redactor_free(&r);
    } else if (secret) {
        put_message(&m, STR("(withheld: no memory)"));
    } else {
        put_message(&m, text);
    }
    out[m.n] = '\0';
}

void environment_drop(struct job *j)
{
    redactor_free(&j->redact_err);
    redactor_free(&j->redact_out);
    environment_free(&j->environment);
}
