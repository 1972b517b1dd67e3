/* secrets rotate-key: seals anew what another key than the new one sealed, in chunks, while everything runs.
 *
 * A row is opened and sealed as it is, place and all, and changed only where its old seal still stands: what
 * is set meanwhile stays. So it may be broken off and begun again at any time, and run twice. A pass goes
 * through all rows once; when gateways still sealed with the old key meanwhile, another finds what they did.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "crypto/seal.h"
#include "database.h"
#include "model/environment.h"
#include "secrets.h"
#include "store/secrets.h"

enum {
    CHUNK = 100,
    QUERY_MS = 60000,
    KEY_FILE_BYTES = 4096,
    PLAIN_BYTES = 256 * 1024, /* more than any row */
    SEALED_BYTES = CHUNK * PLAIN_BYTES,
    NAMED = 10, /* rows that are told of by name */
};

struct rotation {
    struct cli *cli;
    struct pg *pg;
    struct seal_private *old;
    struct seal_public new;
    char *plain; /* guarded */
    enum secrets_table table;
    struct uuid after;
    char after_name[ENV_NAME_MAX_BYTES + 1];
    struct secrets_change changes[CHUNK];
    struct buf texts; /* what changes point into, by offsets until it is whole */
    size_t n;
    int64_t seen, changed, unopened;
    bool first, over; /* the first pass; the pass is over */
    struct err err;
};

static void next_chunk(struct rotation *r);

static void stop(struct rotation *r, const struct err *err)
{
    if (err != NULL)
        r->err = *err;
    r->over = true;
    loop_stop(r->cli->loop);
}

static void tell_progress(const struct rotation *r)
{
    if (!r->cli->json && isatty(STDERR_FILENO) != 0)
        fprintf(stderr, "\r\033[K%lld sealed anew", (long long)r->changed);
}

static void on_resealed(void *arg, int64_t changed, const struct err *err)
{
    struct rotation *r = arg;
    if (err != NULL) {
        stop(r, err);
        return;
    }
    r->changed += changed;
    tell_progress(r);
    next_chunk(r);
}

static void tell_unopened(struct rotation *r, const struct secrets_row *row)
{
    char id[UUID_TEXT_BYTES];
    uuid_format(row->id, id);
    if (r->unopened++ < NAMED && r->first)
        cli_error("%s %s%s%.*s was sealed by key %.*s, which is not in the file, or is damaged: it is left "
                  "as it is",
                  r->table == SECRETS_OF_AGENTS ? "agent" : "invocation", id,
                  row->name.n > 0 ? " secret " : "", STR_ARG(row->name), STR_ARG(row->key_id));
}

static struct str keep(struct rotation *r, struct str s)
{
    size_t at = r->texts.len;
    buf_str(&r->texts, s);
    return str_make((const char *)at, s.n); /* an offset: the buffer may move */
}

static void reseal(struct rotation *r, const struct secrets_row *row)
{
    size_t n = 0;
    if (row->sealed.n > PLAIN_BYTES ||
        !seal_open(r->old, row->key_id, row->sealed, r->plain, PLAIN_BYTES, &n)) {
        tell_unopened(r, row);
        return;
    }
    struct secrets_change *c = &r->changes[r->n];
    *c = (struct secrets_change){
        .id = row->id, .name = keep(r, row->name), .old_sealed = keep(r, row->sealed)};
    size_t at = r->texts.len;
    if (seal_value(&r->new, str_make(r->plain, n), &r->texts)) {
        c->new_sealed = str_make((const char *)at, r->texts.len - at);
        r->n++;
    }
    crypto_wipe(r->plain, n);
}

static struct str settle(const struct rotation *r, struct str offset)
{
    return str_make(r->texts.data + (size_t)offset.p, offset.n);
}

static void on_stale(void *arg, const struct secrets_row *rows, size_t n, const struct err *err)
{
    struct rotation *r = arg;
    struct err failed = ERR_INIT;
    if (err != NULL) {
        stop(r, err);
        return;
    }
    if (n == 0) {
        r->table = r->table + 1;
        r->after = (struct uuid){0};
        r->after_name[0] = '\0';
        next_chunk(r);
        return;
    }
    r->n = 0;
    buf_clear(&r->texts);
    for (size_t i = 0; i < n; i++)
        reseal(r, &rows[i]);
    r->seen += (int64_t)n;
    r->after = rows[n - 1].id;
    str_copy(rows[n - 1].name, r->after_name, sizeof r->after_name);
    if (r->texts.failed) {
        err_set(&failed, ERR_NO_MEMORY, "no memory to seal with");
        stop(r, &failed);
        return;
    }
    for (size_t i = 0; i < r->n; i++) {
        struct secrets_change *c = &r->changes[i];
        c->name = settle(r, c->name);
        c->old_sealed = settle(r, c->old_sealed);
        c->new_sealed = settle(r, c->new_sealed);
    }
    if (r->n == 0)
        next_chunk(r);
    else if (secrets_reseal(r->pg, r->table, str_of(r->new.id), r->changes, r->n, QUERY_MS, on_resealed, r,
                            &failed) != 0)
        stop(r, &failed);
}

static void next_chunk(struct rotation *r)
{
    struct err err = ERR_INIT;
    if (r->table == SECRETS_TABLES)
        stop(r, NULL);
    else if (secrets_stale(r->pg, r->table, str_of(r->new.id), r->after, str_of(r->after_name), CHUNK,
                           QUERY_MS, on_stale, r, &err) != 0)
        stop(r, &err);
}

/* ---- one pass after the other ---- */

/* Passes until one finds nothing that it could change; a gateway that seals with the old key all the time
 * would make that never, so a few. */
static int passes(struct rotation *r)
{
    enum { PASSES = 5 };
    int64_t before = -1;
    for (int i = 0; i < PASSES && r->err.code == ERR_NONE && r->changed != before && !r->cli->interrupted;
         i++) {
        before = r->changed;
        r->table = SECRETS_OF_AGENTS;
        r->after = (struct uuid){0};
        r->after_name[0] = '\0';
        r->seen = r->unopened = 0;
        r->first = i == 0;
        r->over = false;
        next_chunk(r);
        while (!r->over && !r->cli->interrupted)
            loop_run(r->cli->loop);
    }
    if (isatty(STDERR_FILENO) != 0 && !r->cli->json)
        fputs("\r\033[K", stderr);
    if (r->cli->interrupted) {
        cli_error("broken off: %lld were sealed anew; run it again for the rest", (long long)r->changed);
        return STATUS_INTERRUPTED;
    }
    if (r->err.code != ERR_NONE) {
        cli_error("%s\n%s\n%lld were sealed anew; run it again for the rest.", r->err.msg,
                  database_advice(&r->err), (long long)r->changed);
        return STATUS_API;
    }
    return r->unopened > 0 || r->seen > 0 ? STATUS_ENDED : STATUS_OK;
}

static void report(const struct rotation *r, int status)
{
    if (r->cli->json)
        printf("{\"key_id\":\"%s\",\"sealed\":%lld,\"unreadable\":%lld,\"left\":%lld}\n", r->new.id,
               (long long)r->changed, (long long)r->unopened, (long long)r->seen);
    else if (status == STATUS_OK)
        printf("%lld sealed anew with key %s; every secret is. The old key may go from executors' file.\n",
               (long long)r->changed, r->new.id);
    else if (r->unopened > 0)
        printf("%lld sealed anew with key %s; %lld could not be opened.\n", (long long)r->changed, r->new.id,
               (long long)r->unopened);
    else
        printf("%lld sealed anew with key %s, and gateways still seal with the old one: give them the new "
               "public key, "
               "then run this again.\n",
               (long long)r->changed, r->new.id);
}

/* ---- keys ---- */

static bool read_key(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    char *to = buf_reserve(out, KEY_FILE_BYTES);
    if (fd >= 0 && to != NULL)
        n = read(fd, to, KEY_FILE_BYTES);
    if (n < 0)
        cli_error("cannot read %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (n > 0)
        buf_commit(out, (size_t)n);
    return n >= 0;
}

static bool read_keys(struct rotation *r, const char *private_file, const char *public_file)
{
    struct buf private, public;
    struct err err = ERR_INIT;
    buf_init_secret(&private, KEY_FILE_BYTES);
    buf_init(&public, KEY_FILE_BYTES);
    bool fine = read_key(private_file, &private) && read_key(public_file, &public);
    if (fine && seal_public_read(buf_view(&public), &r->new, &err) != 0) {
        cli_error("%s: %s", public_file, err.msg);
        fine = false;
    }
    if (fine && (r->old = seal_private_new(buf_view(&private), &err)) == NULL) {
        cli_error("%s: %s", private_file, err.msg);
        fine = false;
    }
    if (fine && !seal_private_has(r->old, str_of(r->new.id))) {
        cli_error("%s does not hold the private key of %s: executors could not open what is sealed anew; put "
                  "it there "
                  "first, and restart them",
                  private_file, public_file);
        fine = false;
    }
    buf_deinit(&private);
    buf_deinit(&public);
    return fine;
}

static int run(struct rotation *r, const char *database)
{
    const struct pg_options options = {.url = database, .application = "sandpiper-cli"};
    r->pg = pg_open(r->cli->loop, &options, &r->err);
    if (r->pg == NULL)
        return cli_error("%s", r->err.msg);
    cli_catch_interrupt(r->cli);
    int status = passes(r);
    if (status == STATUS_OK || status == STATUS_ENDED)
        report(r, status);
    return status;
}

int secrets_rotate(struct cli *cli, const char *database, const char *private_file, const char *public_file)
{
    struct rotation *r = calloc(1, sizeof *r);
    int status = STATUS_USAGE;
    if (r == NULL || (r->plain = crypto_guarded_new(PLAIN_BYTES)) == NULL) {
        free(r);
        return cli_error("no memory");
    }
    r->cli = cli;
    buf_init(&r->texts, SEALED_BYTES);
    if (read_keys(r, private_file, public_file))
        status = run(r, database);
    pg_close(&r->pg);
    seal_private_free(&r->old);
    crypto_guarded_free(r->plain);
    buf_deinit(&r->texts);
    free(r);
    return status;
}
