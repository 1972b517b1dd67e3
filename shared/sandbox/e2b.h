/* Inside the E2B provider: the requests' common part and the plumbing that its files share. */
#ifndef SANDBOX_E2B_H
#define SANDBOX_E2B_H

#include "base/culprit.h"
#include "http/client.h"
#include "json/json.h"
#include "json/writer.h"
#include "sandbox/provider_ops.h"

enum {
    E2B_ANSWER_BYTES = 256 * 1024,
    E2B_LIST_BYTES = 4 * 1024 * 1024,
    E2B_TRY_MS = 30000,   /* one try of a call that is repeated */
    E2B_BACKOFF_MS = 100, /* the first pause; doubled, with jitter, up to */
    E2B_BACKOFF_MAX_MS = 5000,
    E2B_ENVD_PORT = 49983,
    E2B_PING_SEC = 50,        /* Keepalive-Ping-Interval on streams, at most: E2B's SDKs ask for it */
    E2B_PING_SPREAD_SEC = 15, /* and less by up to this: what starts together does not ping together */
    E2B_SILENCE_MS = 110000,  /* a stream without any byte for so long is dead: two pings missed */
    E2B_ATTACH_MS = 30000,    /* envd keeps an exit for so long: the window for re-attaching */
};

struct e2b_request;

/* Which create path the service has is found out once (e2b.c). */
enum e2b_probe { E2B_PROBING, E2B_V1, E2B_V2 };

struct e2b {
    struct provider base;
    struct loop *loop;
    struct http_client *http;
    char *api_url, *sandbox_url /* or NULL */, *domain;
    struct str api_key; /* borrowed: the secret's bytes */
    bool healthy;
    enum e2b_probe probe;
    struct e2b_request *prober;
    int probe_said; /* the status (0: none came) that on_state was told of; -1 before */
    void (*on_state)(void *arg, const char *why);
    void *on_state_arg;
    struct e2b_request *requests; /* all that are open */
};

typedef void e2b_answer_fn(struct e2b_request *r, const struct http_response *answer, const struct err *err);

/* A call under way. Each kind embeds it first. It is freed by e2b_request_free: after its callback, or by
 * cancel. */
struct e2b_request {
    struct sandbox_request base;
    struct e2b *e2b;
    struct e2b_request *next, **pprev;
    mono_t deadline;
    int tries;
    struct http_transfer *transfer;
    struct loop_timer *timer; /* made on need */
    void (*on_timer)(struct e2b_request *r);
    struct loop_task task;
    struct uuid culprit; /* for whom it was made */
    struct err refused;  /* why a call could not even begin: answered next turn */
    e2b_answer_fn *on_answer;
    void (*release)(struct e2b_request *r); /* frees what its kind holds; may be NULL */
};

/* A request of `bytes` in all, zeroed; NULL without memory. */
void *e2b_request_new(struct provider *p, size_t bytes, int64_t deadline_ms);
void e2b_request_free(struct e2b_request *r);
int64_t e2b_left_ms(const struct e2b_request *r); /* until the deadline; at least 1 */
bool e2b_is_late(const struct e2b_request *r);
void e2b_after(struct e2b_request *r, int64_t ms, void (*fn)(struct e2b_request *r));
void e2b_timer_stop(struct e2b_request *r);
int64_t e2b_backoff_ms(int tries);

/* Headers of one call: texts on the stack, copied by the client. */
struct e2b_headers {
    const char *list[12];
    int count;
    char text[1024];
    size_t used;
};
void e2b_header(struct e2b_headers *h, const char *name, struct str value);
void e2b_header_int(struct e2b_headers *h, const char *name, int64_t value);

/* Sends a call of the control plane: path after the API's address; json may be empty. The answer comes to
 * on_answer. */
struct e2b_control {
    const char *method, *path;
    struct str json;
    int64_t timeout_ms;
    size_t max_body; /* 0: E2B_ANSWER_BYTES */
    bool once;       /* must not be sent a second time */
};
void e2b_control(struct e2b_request *r, const struct e2b_control *c, e2b_answer_fn *on_answer);

/* The address of a sandbox's daemon and the headers that lead to it. */
void e2b_data_headers(struct e2b_headers *h, const struct sandbox *sandbox);
bool e2b_data_url(const struct e2b *e2b, const struct sandbox *sandbox, const char *path, struct buf *out);
/* Sends any call; fills in done and arg. A call without an address (it was too long) is refused. */
void e2b_send(struct e2b_request *r, struct http_call *call, e2b_answer_fn *on_answer);

/* What an answer that is no success means. data_plane: 502 says that the sandbox is gone. */
struct sandbox_failure e2b_failure(const struct http_response *answer, const struct err *err,
                                   bool data_plane);
/* The same for a stream's own error (Connect's codes). */
struct sandbox_failure e2b_stream_failure(const char *code, const char *message);
struct sandbox_failure e2b_failure_make(enum err_code code, enum err_retry retry, const char *text);

/* Percent-encodes everything but the unreserved characters. */
void e2b_encode(struct str s, struct buf *out);
/* "0.5.13" >= 0.5.7 and the like, numerically; an unreadable version counts as newest. */
bool e2b_version_at_least(const char *version, int major, int minor, int patch);

/* ---- e2b_control.c, e2b_list.c, e2b_process.c, e2b_files.c: the table's entries ---- */
struct sandbox_request *e2b_create(struct provider *, const struct sandbox_create *, sandbox_created_fn *,
                                   void *);
void e2b_creates_go(struct e2b *e2b); /* the probe is done */
struct sandbox_request *e2b_destroy(struct provider *, const char *, int64_t, sandbox_done_fn *, void *);
struct sandbox_request *e2b_set_ttl(struct provider *, const char *, int64_t, int64_t, sandbox_done_fn *,
                                    void *);
struct sandbox_request *e2b_snapshot(struct provider *, const struct sandbox *, const char *, int64_t,
                                     sandbox_snapshot_fn *, void *);
struct sandbox_request *e2b_snapshot_delete(struct provider *, const char *, int64_t, sandbox_done_fn *,
                                            void *);
struct sandbox_request *e2b_snapshots(struct provider *, int64_t, sandbox_snapshots_fn *, void *);
struct sandbox_request *e2b_list(struct provider *, struct uuid, struct uuid, int64_t, sandbox_list_fn *,
                                 void *);
struct sandbox_request *e2b_spawn(struct provider *, const struct sandbox_spawn *,
                                  const struct sandbox_process_events *);
struct sandbox_request *e2b_signal(struct provider *, const struct sandbox *, int64_t, bool, int64_t,
                                   sandbox_done_fn *, void *);
struct sandbox_request *e2b_send_input(struct provider *, const struct sandbox *, int64_t, struct str,
                                       int64_t, sandbox_done_fn *, void *);
struct sandbox_request *e2b_close_input(struct provider *, const struct sandbox *, int64_t, int64_t,
                                        sandbox_done_fn *, void *);
struct sandbox_request *e2b_write_file(struct provider *, const struct sandbox *, const char *, struct str,
                                       int64_t, sandbox_done_fn *, void *);
struct sandbox_request *e2b_read_file(struct provider *, const struct sandbox *, const char *, size_t,
                                      int64_t, sandbox_file_fn *, void *);
struct sandbox_request *e2b_read_range(struct provider *, const struct sandbox *, const char *, int64_t,
                                       size_t, int64_t, sandbox_file_fn *, void *);
struct sandbox_request *e2b_stat(struct provider *, const struct sandbox *, const char *, int64_t,
                                 sandbox_entries_fn *, void *); /* e2b_tree.c */
struct sandbox_request *e2b_list_dir(struct provider *, const struct sandbox *, const char *, int, int64_t,
                                     sandbox_entries_fn *, void *);

#endif
