/* sandpiper-e2b-sim: E2B's control plane and envd, spoken over the real protocol, without any sandbox behind
 * them. Thousands of sandboxes in one process: what is measured against it is the system in front. It shows
 * nothing about isolation and runs no command (README.md). This file only wires. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "sim.h"

enum { TICK_MS = 100, CONNECTIONS = 100000, FAULTS_FILE_BYTES = 64 * 1024 };

static void on_tick(void *arg)
{
    struct sim *s = arg;
    box_expire_due(s);
    ledger_flush(s);
}

static void on_signal(void *arg, int signum)
{
    (void)signum;
    loop_stop(((struct sim *)arg)->loop);
}

static int read_file(const char *path, struct buf *out, struct err *err)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return err_set(err, ERR_CONFIG, "%s: %s", path, strerror(errno));
    char *to = buf_reserve(out, FAULTS_FILE_BYTES);
    if (to != NULL)
        buf_commit(out, fread(to, 1, FAULTS_FILE_BYTES, f));
    bool whole = to != NULL && feof(f) != 0;
    fclose(f);
    return whole ? 0 : err_set(err, ERR_CONFIG, "%s: %d KiB at most", path, FAULTS_FILE_BYTES / 1024);
}

/* The seed goes to the log: a run without one can be repeated, too. */
static int faults_open(struct sim *s, struct err *err)
{
    struct buf text;
    uint64_t seed = (uint64_t)s->o.seed;
    if (seed == 0) {
        random_bytes(&seed, sizeof seed);
        seed = seed % INT64_MAX + 1;
    }
    s->faults = faults_new(seed);
    if (s->faults == NULL)
        return err_set(err, ERR_NO_MEMORY, "faults");
    if (s->o.faults[0] == '\0')
        return 0;
    if (s->o.faults[0] == '{')
        return faults_set(s->faults, str_of(s->o.faults), NULL, err);
    buf_init(&text, FAULTS_FILE_BYTES);
    int rc = read_file(s->o.faults, &text, err);
    if (rc == 0)
        rc = faults_set(s->faults, buf_view(&text), NULL, err);
    buf_deinit(&text);
    return rc;
}

static int sim_open(struct sim *s, struct err *err)
{
    s->loop = loop_new();
    if (s->loop == NULL)
        return err_set(err, ERR_NO_MEMORY, "loop");
    s->tick = loop_timer_new(s->loop, on_tick, s);
    s->term = loop_signal_new(s->loop, SIGTERM, on_signal, s);
    s->intr = loop_signal_new(s->loop, SIGINT, on_signal, s);
    if (s->tick == NULL || s->term == NULL || s->intr == NULL)
        return err_set(err, ERR_NO_MEMORY, "loop");
    if (faults_open(s, err) != 0)
        return err_wrap(err, "SANDPIPER_SIM_FAULTS");
    if (ledger_open(s, err) != 0)
        return -1;
    const struct http_server_options options = {
        .listen = s->o.listen,
        .app = {.on_request = api_request, .on_gone = api_gone, .error_body = api_error_body},
        .arg = s,
        .max_connections = CONNECTIONS,
        .idle_timeout_ms = 640 * 1000}; /* envd's */
    s->server = http_server_open(s->loop, &options, err);
    if (s->server == NULL)
        return -1;
    s->permits = (double)s->o.creates_per_second;
    s->permits_at = loop_now(s->loop);
    s->first_number = (uint64_t)wall_now().us;
    random_bytes(s->token_key, sizeof s->token_key);
    loop_timer_every(s->tick, TICK_MS);
    return 0;
}

static void sim_close(struct sim *s)
{
    for (struct box *b = s->boxes, *next; b != NULL; b = next) {
        next = b->hh.next;
        box_end(b, BOX_SHUTDOWN);
    }
    api_laters_free(s);
    answer_close(s);
    http_server_close(&s->server);
    faults_free(&s->faults);
    ledger_close(s);
    loop_timer_free(&s->tick);
    loop_signal_free(&s->term);
    loop_signal_free(&s->intr);
    loop_free(&s->loop);
    config_unload(&options_table, &s->o);
}

static int run(struct sim *s)
{
    struct err err = ERR_INIT;
    enum log_level level = LOG_INFO;
    options_settle(&s->o);
    log_level_parse(str_of(s->o.log_level), &level);
    log_setup("sandpiper-e2b-sim", level);
    signal(SIGPIPE, SIG_IGN);
    if (crypto_init(&err) != 0 || sim_open(s, &err) != 0) {
        log_error("cannot start", LF_ERR(&err));
        fprintf(stderr, "sandpiper-e2b-sim: %s\n", err.msg);
        return 1;
    }
    log_info("ready", LF_STR("listen", s->o.listen), LF_INT("port", http_server_port(s->server)),
             LF_INT("seed", (int64_t)faults_dice(s->faults)->seed));
    loop_run(s->loop);
    log_info("stopped", LF_INT("created", (int64_t)s->created), LF_INT("deleted", (int64_t)s->deleted),
             LF_INT("expired", (int64_t)s->expired), LF_INT("programs", (int64_t)s->programs),
             LF_INT("peak_live", (int64_t)s->peak_live));
    return 0;
}

int main(int argc, char **argv)
{
    static struct sim sim = {.ledger = -1};
    enum config_action action = config_load(&options_table, argc, argv, &sim.o);
    if (action != CONFIG_RUN)
        return action == CONFIG_EXIT_OK ? 0 : 2;
    int status = run(&sim);
    sim_close(&sim);
    return status;
}
