/* The command line's own small frame: arguments, talking to the gateway, interruption.
 *
 * A command is sequential: each api_call runs the loop until its answer is there. Exit status: 0 done (for
 * invoke: the job succeeded), 1 the job or build ended otherwise, 2 usage, 3 the gateway cannot be reached or
 * refused. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "json/json.h"
#include "loop/loop.h"

enum { STATUS_OK = 0, STATUS_ENDED = 1, STATUS_USAGE = 2, STATUS_API = 3, STATUS_INTERRUPTED = 130 };

struct http_client;
struct json_writer;

struct cli {
    struct loop *loop;
    struct http_client *http;
    char *url;           /* the gateway's, without a trailing slash */
    char *authorization; /* the header, NULL without a key */
    const char *url_option, *profile_option;
    bool json; /* --json */
    bool interrupted;
    struct loop_signal *sigint;
    struct loop_timer *spin;
    const char *spin_text;
    unsigned spin_turn;
    mono_t spin_from;
};

/* ---- commands: one a file ---- */

int command_migrate(struct cli *cli, int argc, char **argv);
int command_webhooks(struct cli *cli, int argc, char **argv);
int command_listen(struct cli *cli, int argc, char **argv);
int command_secrets(struct cli *cli, int argc, char **argv);
int command_keys(struct cli *cli, int argc, char **argv);
int command_init(struct cli *cli, int argc, char **argv);
int command_doctor(struct cli *cli, int argc, char **argv);
int command_profiles(struct cli *cli, int argc, char **argv); /* profile.c */
int command_completions(struct cli *cli, int argc, char **argv);
int command_open(struct cli *cli, int argc, char **argv);
int command_deploy(struct cli *cli, int argc, char **argv);
int command_invoke(struct cli *cli, int argc, char **argv);
int command_artifacts(struct cli *cli, int argc, char **argv);
int command_get(struct cli *cli, int argc, char **argv);
int command_cancel(struct cli *cli, int argc, char **argv);
int command_retry(struct cli *cli, int argc, char **argv);
int command_logs(struct cli *cli, int argc, char **argv);
int command_ls(struct cli *cli, int argc, char **argv); /* list.c */
int command_schedules(struct cli *cli, int argc, char **argv);
int command_batch(struct cli *cli, int argc, char **argv);
int command_agents(struct cli *cli, int argc, char **argv);
int command_versions(struct cli *cli, int argc, char **argv);
int command_usage(struct cli *cli, int argc, char **argv);
int command_rollback(struct cli *cli, int argc, char **argv); /* versions.c */

/* ---- arguments ---- */

enum cli_option_kind {
    CLI_FLAG /* bool */,
    CLI_TEXT /* const char * */,
    CLI_NUMBER /* int64_t, >= 0 */,
    CLI_LIST
};

enum { CLI_LIST_MAX = 100 };
struct cli_list {
    const char *items[CLI_LIST_MAX];
    int count;
};

struct cli_option {
    const char *name; /* without dashes */
    enum cli_option_kind kind;
    void *to;
    const char *arg; /* its argument's name, NULL for a flag */
    const char *help;
};

struct cli_usage {
    const char *usage; /* "invoke AGENT [PROMPT | -]" */
    const char *about;
    const struct cli_option
        *options; /* ends with a NULL name; --json, --url, --profile and --help come by themselves */
    int min_args, max_args;
};

/* The positional arguments are then argv[*first] on. False: leave with *status. */
bool cli_parse(struct cli *cli, const struct cli_usage *usage, int argc, char **argv, int *first,
               int *status);

/* KEY=VALUE pairs as the member "metadata"; 0, or told and the exit status. */
int cli_metadata(struct json_writer *w, const struct cli_list *pairs);

/* "sandpiper: text" to stderr. Returns STATUS_USAGE. */
int cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A moment, as RFC 3339: "90s", "15m", "1h", "2d", "1w" ago, or a time as it stands. False when it is
 * neither. */
enum { CLI_WHEN_BYTES = 64 };
bool cli_when(const char *text, char out[CLI_WHEN_BYTES]);
/* The same from now on. */
bool cli_when_ahead(const char *text, char out[CLI_WHEN_BYTES]);

/* ---- the gateway ---- */

enum reply_kind {
    REPLY_OK,      /* 2xx */
    REPLY_PROBLEM, /* another status */
    REPLY_FAILED,  /* no answer: err */
    REPLY_INTERRUPTED,
};

struct reply {
    enum reply_kind kind;
    int status;
    struct buf body;
    struct json *doc; /* NULL when the body is no JSON */
    struct err err;
    int64_t retry_after_sec;
};

enum api_retry {
    API_ONCE,
    API_RETRY_BUSY, /* 429, 503 and answers that broke off: for calls that may be repeated */
    API_RETRY_ALL,  /* also when nobody answers: for polling */
};

struct api_request {
    const char *method, *path;
    const char *headers[4]; /* "Name: value" */
    struct str body;
    int64_t timeout_ms; /* 0: 30 s */
    int64_t idle_ms;    /* instead, for streams: silent for so long */
    enum api_retry retry;
    bool (*on_data)(void *arg, struct str piece); /* takes a 2xx body piece by piece */
    void (*on_sent)(void *arg, int64_t sent);     /* of the body, now and then */
    void *arg, *sent_arg;
};

/* Runs until the answer is there. Deinit the reply in every case. */
void api_call(struct cli *cli, const struct api_request *request, struct reply *out);
void reply_deinit(struct reply *r);

/* Tells what went wrong and what to do next. Returns the exit status. */
int api_complain(const struct cli *cli, const struct reply *r);

/* 0 for a 2xx that has this member; else it is told, and the exit status. */
int reply_check(const struct cli *cli, const struct reply *r, const char *member);

/* The body as it came, and a line end. */
void reply_print(const struct reply *r);

/* Text of a member ("" without), and of a whole number (-1 without). */
struct str reply_str(const struct json_value *object, const char *key);
int64_t reply_int(const struct reply *r, const struct json_value *object, const char *key);

/* Whether there is a key to send. */
bool api_has_key(struct cli *cli);

/* From now on Ctrl-C ends api_call and cli_sleep with REPLY_INTERRUPTED; it does not end the process. */
void cli_catch_interrupt(struct cli *cli);
void cli_sleep(struct cli *cli, int64_t ms);

/* A turning sign on stderr while calls run, in a terminal only. text is kept by pointer; NULL ends it. */
void cli_spin(struct cli *cli, const char *text);

#endif
