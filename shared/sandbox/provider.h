/* Sandbox providers: one small asynchronous interface (DESIGN section 6).
 *
 * Every call takes a deadline and answers exactly once through its callback, from the loop, never from inside
 * the call. The request is gone when its callback is called: forget the pointer there. A call returns NULL
 * only without memory; then nothing fires. sandbox_cancel detaches: the callback then does not fire (the
 * effect may still happen; a canceled create destroys what it made).
 *
 * For a create that ends in RETRY_CHECK the provider has already reconciled: it listed by the nonce and
 * destroyed what it found (`made`), or says in the error that it could not and leaves it to the reaper. */
#ifndef SANDBOX_PROVIDER_H
#define SANDBOX_PROVIDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "crypto/crypto.h"
#include "loop/loop.h"

enum { SANDBOX_ID_BYTES = 64, SANDBOX_TOKEN_BYTES = 160, SANDBOX_HOST_BYTES = 160 };

struct provider;
struct sandbox_request; /* a call under way */

/* A live sandbox as its owner knows it: plain values, copied freely. */
struct sandbox {
    char id[SANDBOX_ID_BYTES];
    char token[SANDBOX_TOKEN_BYTES]; /* data-plane access token; secret: never logged */
    char domain[SANDBOX_HOST_BYTES]; /* as answered; "" for the provider's own */
    char envd_version[24];
};

struct sandbox_failure {
    struct err err;
    enum err_retry retry;   /* LATER: nothing happened; CHECK: it may have; NEVER: bad template or request */
    bool quota;             /* a 429: no attempt is spent */
    bool quota_concurrency; /* the live limit, not the rate: wait for a sandbox to end */
    int64_t retry_after_ms; /* -1: not said */
    bool sandbox_gone;      /* the sandbox does not exist any more (502 / 404) */
    /* Of a create whose answer was lost: what it had made all the same, found and destroyed; "": nothing was
     * found. It counts as held: by whoever asked for it. */
    char made[SANDBOX_ID_BYTES];
    int64_t made_ms; /* how long it lived */
};

/* ---- life ---- */

struct sandbox_create {
    const char *template_id;                      /* base template or snapshot id */
    int64_t ttl_ms;                               /* the last line of defence: rounded up to seconds */
    struct uuid deployment, executor_boot, nonce; /* the metadata; nonce is new for each create */
    bool no_internet;
    int64_t deadline_ms; /* >= 75 s against E2B's cloud */
};
typedef void sandbox_created_fn(void *arg, const struct sandbox *sandbox,
                                const struct sandbox_failure *failure);
struct sandbox_request *sandbox_create(struct provider *p, const struct sandbox_create *spec,
                                       sandbox_created_fn *fn, void *arg);

typedef void sandbox_done_fn(void *arg, const struct sandbox_failure *failure); /* NULL: done */
/* Gone already counts as done. The provider retries 5xx and 429 with backoff within the deadline. */
struct sandbox_request *sandbox_destroy(struct provider *p, const char *sandbox_id, int64_t deadline_ms,
                                        sandbox_done_fn *fn, void *arg);
struct sandbox_request *sandbox_set_ttl(struct provider *p, const char *sandbox_id, int64_t ttl_ms,
                                        int64_t deadline_ms, sandbox_done_fn *fn, void *arg);

/* ---- running a program ---- */

struct sandbox_spawn {
    const struct sandbox *sandbox; /* copied */
    const char *cmd;               /* executable */
    const char *const *args;       /* NULL-ended, without argv[0] */
    const char *const *env;        /* "K=V", NULL-ended; may be NULL */
    const char *cwd;               /* NULL: the user's home */
    bool stdin_open;               /* false: /dev/null */
    int64_t kill_after_ms;         /* the host's own kill deadline (Connect-Timeout-Ms); 0: none */
    int64_t start_deadline_ms;     /* until the start event */
};

enum sandbox_exit_kind { SANDBOX_EXITED, SANDBOX_SIGNALED };

struct sandbox_exit {
    enum sandbox_exit_kind kind;
    int code;                  /* when EXITED */
    char signal[16];           /* "KILL", when SIGNALED */
    bool oom_killed;           /* as far as the provider tells */
    int64_t cpu_ms;            /* -1: not reported */
    int64_t peak_memory_bytes; /* -1: not reported */
};

/* Events of a running program. Views are valid during the call. After on_end nothing more comes. */
struct sandbox_process_events {
    void (*on_start)(void *arg, int64_t pid);
    void (*on_stdout)(void *arg, struct str piece);
    void (*on_stderr)(void *arg, struct str piece);
    /* The stream broke: until on_resume or on_end nobody knows how the program goes. Both may be NULL. */
    void (*on_break)(void *arg);
    /* It was taken up again: of what the program wrote meanwhile, some may be missing. Its end may follow at
     * once. */
    void (*on_resume)(void *arg);
    /* exit set: the program ended so. Otherwise failure: it never started (before on_start), or the stream
     * was lost and could not be re-attached (sandbox_gone: the sandbox is known dead), or kill_after_ms
     * passed (ERR_TIMEOUT). */
    void (*on_end)(void *arg, const struct sandbox_exit *exit, const struct sandbox_failure *failure);
    void *arg;
};
struct sandbox_request *sandbox_spawn(struct provider *p, const struct sandbox_spawn *spec,
                                      const struct sandbox_process_events *events);

struct sandbox_request *sandbox_signal(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                       bool kill, int64_t deadline_ms, sandbox_done_fn *fn, void *arg);
struct sandbox_request *sandbox_send_input(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                           struct str data, int64_t deadline_ms, sandbox_done_fn *fn,
                                           void *arg);
struct sandbox_request *sandbox_close_input(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                            int64_t deadline_ms, sandbox_done_fn *fn, void *arg);

/* ---- files ---- */

/* data is borrowed until fn or cancel. */
struct sandbox_request *sandbox_write_file(struct provider *p, const struct sandbox *sandbox,
                                           const char *path, struct str data, int64_t deadline_ms,
                                           sandbox_done_fn *fn, void *arg);
typedef void sandbox_file_fn(void *arg, struct str content, const struct sandbox_failure *failure);
struct sandbox_request *sandbox_read_file(struct provider *p, const struct sandbox *sandbox, const char *path,
                                          size_t max_bytes, int64_t deadline_ms, sandbox_file_fn *fn,
                                          void *arg);

/* At most `bytes` of it from `offset` on: fewer where it ends. */
struct sandbox_request *sandbox_read_range(struct provider *p, const struct sandbox *sandbox,
                                           const char *path, int64_t offset, size_t bytes,
                                           int64_t deadline_ms, sandbox_file_fn *fn, void *arg);

enum sandbox_entry_kind { SANDBOX_FILE, SANDBOX_DIRECTORY, SANDBOX_OTHER /* symbolic links among them */ };
struct sandbox_entry {
    struct str path; /* absolute */
    enum sandbox_entry_kind kind;
    int64_t bytes; /* of a file */
};
/* Views are valid during the call. ERR_NOT_FOUND: there is nothing at that path. */
typedef void sandbox_entries_fn(void *arg, const struct sandbox_entry *entries, size_t n,
                                const struct sandbox_failure *failure);
/* One entry: what is there. */
struct sandbox_request *sandbox_stat(struct provider *p, const struct sandbox *sandbox, const char *path,
                                     int64_t deadline_ms, sandbox_entries_fn *fn, void *arg);
/* What is below a directory, `depth` levels of it; links are not followed. */
struct sandbox_request *sandbox_list_dir(struct provider *p, const struct sandbox *sandbox, const char *path,
                                         int depth, int64_t deadline_ms, sandbox_entries_fn *fn, void *arg);

/* ---- snapshots ---- */

typedef void sandbox_snapshot_fn(void *arg, const char *snapshot_id, const struct sandbox_failure *failure);
struct sandbox_request *sandbox_snapshot(struct provider *p, const struct sandbox *sandbox, const char *name,
                                         int64_t deadline_ms, sandbox_snapshot_fn *fn, void *arg);
struct sandbox_request *sandbox_snapshot_delete(struct provider *p, const char *snapshot_id,
                                                int64_t deadline_ms, sandbox_done_fn *fn, void *arg);

struct snapshot_listed {
    char id[128], name[128]; /* name: as it was given to sandbox_snapshot */
};
/* All snapshots that have a name, everybody's; all pages. items are valid during the call. A service that has
 * no such list fails with RETRY_NEVER. */
typedef void sandbox_snapshots_fn(void *arg, const struct snapshot_listed *items, size_t count,
                                  const struct sandbox_failure *failure);
struct sandbox_request *sandbox_snapshots(struct provider *p, int64_t deadline_ms, sandbox_snapshots_fn *fn,
                                          void *arg);

/* ---- listing, for the reaper ---- */

struct sandbox_listed {
    char id[SANDBOX_ID_BYTES];
    struct uuid deployment, executor_boot, nonce; /* zero when the metadata lacks them */
    wall_t started_at;
};
/* Every live sandbox whose metadata has this deployment (and nonce, unless zero); all pages. items are valid
 * during the call. */
typedef void sandbox_list_fn(void *arg, const struct sandbox_listed *items, size_t count,
                             const struct sandbox_failure *failure);
struct sandbox_request *sandbox_list(struct provider *p, struct uuid deployment, struct uuid nonce,
                                     int64_t deadline_ms, sandbox_list_fn *fn, void *arg);

/* Withdraws; *r is nulled; NULL is fine. For a spawned program this drops the stream (it runs on: destroy the
 * sandbox). */
void sandbox_cancel(struct sandbox_request **r);

/* ---- providers ---- */

struct provider_e2b_options {
    const char *api_url; /* E2B_API_URL; NULL: https://api.<domain> */
    const char
        *sandbox_url;             /* E2B_SANDBOX_URL; NULL: by domain (one shared host or per-sandbox names);
                                   * without      a domain either, api_url stands for both unless it is E2B's own */
    const char *domain;           /* E2B_DOMAIN; NULL: e2b.app */
    const struct secret *api_key; /* E2B_API_KEY; borrowed */
    int max_concurrent;           /* live streams expected; 0: 10000 */
    /* Told from the loop, may be NULL: the service does not answer yet, or refuses the key (why: one line,
     * once for each reason); and once when it has answered (why NULL). */
    void (*on_state)(void *arg, const char *why);
    void *arg;
};
/* Opens, and probes in the background which create path the service has (v2, else v1); creates wait for it.
 * NULL and *err on bad options. */
struct provider *provider_e2b_open(struct loop *loop, const struct provider_e2b_options *options,
                                   struct err *err);
void provider_close(struct provider **p);
/* Whether the last call reached the service (for readiness). */
bool provider_healthy(const struct provider *p);

#endif
