/* The simulator's parts: what its files share.
 *
 *   api.c      which call it is, access, the control plane's answers
 *   answer.c   answers on their way out, and the faults that happen there
 *   box.c      sandboxes: made, listed, ended by a call or by their time
 *   ledger.c   all that there ever were: written, and shown
 *   program.c  programs: what they answer, when, to whom
 *   files.c    what was uploaded
 *   faults.c   which request goes wrong, and how (faults.h)
 *   latency.c  chance, and how long things take (latency.h) */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <uthash.h>

#include "base/buf.h"
#include "base/clock.h"
#include "faults.h"
#include "http/server.h"
#include "json/json.h"
#include "json/writer.h"
#include "options.h"
#include "pairs.h"

enum {
    BOX_ID_BYTES = 24,
    BOX_TOKEN_BYTES = 65,
    BOX_FILES = 16,
    FILE_MAX_BYTES = 16 * 1024 * 1024,
    FILES_MAX_BYTES = 512 * 1024 * 1024, /* of all sandboxes */
    BODY_MAX_BYTES = FILE_MAX_BYTES + 64 * 1024,
    ANSWER_MAX_BYTES = 1024 * 1024,
};

struct program;
struct line;

/* A request that is being answered: http_data of it, in its arena. */
struct call {
    struct sim *sim;
    struct http_request *req;
    enum call_kind kind;
    uint64_t turn; /* the how many-th of its kind */
    struct fault fault;
    struct str body;
    uint64_t writes;           /* of its stream so far */
    struct line *line;         /* answer.c; NULL: it is answered as it comes */
    void (*gone)(void *owner); /* its client hung up, or it was broken off; NULL: nobody has to know */
    void *owner;
};

struct box_file {
    char *path;
    struct buf data;
};

struct box {
    struct sim *sim;
    char id[BOX_ID_BYTES], token[BOX_TOKEN_BYTES];
    uint64_t number; /* counted up: pages follow it */
    char *template_id;
    struct pairs metadata;
    wall_t started;
    wall_t until;
    int64_t programs; /* started so far; the last one's pid */
    struct program *running;
    struct box_file files[BOX_FILES]; /* the newest last */
    size_t file_count;
    UT_hash_handle hh; /* sim.boxes, in order of creation */
};

struct sim {
    struct loop *loop;
    struct options o;
    struct http_server *server;
    struct loop_timer *tick;
    struct loop_signal *term, *intr;
    struct box *boxes;
    uint64_t created, snapshots, programs, programs_running;
    uint64_t deleted, expired, vanished, refused_live, refused_rate;
    size_t peak_live, file_bytes;
    double permits; /* of creates, now */
    mono_t permits_at;
    int ledger;                        /* -1: none */
    int64_t ledger_from, ledger_bytes; /* of this process's lines in the file, so far written */
    struct buf ledger_lines;           /* not written yet: whole lines */
    bool ledger_failed;
    struct faults *faults;
    struct line *lines;    /* answer.c: answers that are held, slow or about to break off */
    struct later *laters;  /* api.c: answers to come */
    uint64_t first_number; /* of this process's first sandbox: no id comes twice across restarts */
    uint8_t token_key[32];
};

/* ---- api.c ---- */
void api_request(void *arg, struct http_request *r);
void api_gone(void *arg, struct http_request *r);
const char *api_error_body(void *arg, enum err_code code, const char *detail, struct buf *out);
void api_error(struct http_request *r, int status, const char *text);
/* Takes the body over. */
void api_json(struct http_request *r, int status, struct buf *body);
/* Answers after what the span says. body may be NULL. */
void api_later(struct http_request *r, const struct span *after, int status, struct buf *body);
/* Serves a request whose turn has come. */
void api_serve(struct call *c);
void api_rpc_error(struct http_request *r, const char *code, const char *text);
void api_laters_free(struct sim *s);

/* ---- answer.c ---- */
/* The fault that is instead of serving the request; true: it is dealt with. */
bool answer_before(struct call *c);
/* As the functions of http/server.h, with what the call's fault makes of it. The request must be a call's,
 * but for `answer`. */
void answer(struct http_request *r, int status, const char *type, struct str body);
bool answer_stream(struct http_request *r, int status, const char *type); /* false: it is broken off */
bool answer_write(struct http_request *r, struct str piece);
typedef void answer_drain_fn(void *arg, struct http_request *r);
void answer_on_drain(struct http_request *r, answer_drain_fn *fn, void *arg);
void answer_end(struct http_request *r); /* its owner is told nothing any more */
void answer_abort(struct call *c);
/* The client is gone: tells the owner, forgets what was to be sent. */
void call_lost(struct call *c);
void call_gone(struct call *c);
/* Everything that is held is served, or answered, as if nothing had been. */
void answer_heal(struct sim *s);
size_t answer_held(const struct sim *s);
void answer_close(struct sim *s);

/* ---- box.c ---- */
enum box_end { BOX_DELETED, BOX_EXPIRED, BOX_VANISHED, BOX_SHUTDOWN };
struct box *box_new(struct sim *s, struct str template_id, struct pairs *metadata, int64_t ttl_s);
struct box *box_find(struct sim *s, struct str id);
void box_end(struct box *b, enum box_end how);
void box_expire_due(struct sim *s);
/* As the calls create, connect and get show it. detail: with times and metadata. */
void box_write(struct json_writer *w, const struct box *b, bool detail);
void box_write_metadata(struct json_writer *w, const struct box *b);
void box_list(struct sim *s, struct http_request *r, bool paged);

/* ---- ledger.c ---- */
int ledger_open(struct sim *s, struct err *err);
void ledger_put(struct sim *s, const struct box *b, enum box_end how);
void ledger_flush(struct sim *s);
/* All lines, as NDJSON: first of those that live, then of those that have ended. */
void ledger_show(struct sim *s, struct http_request *r);
void ledger_close(struct sim *s);

/* ---- program.c ---- */
void program_start(struct box *b, struct http_request *r, struct str body);
void program_connect(struct box *b, struct http_request *r, struct str body);
void program_list(struct box *b, struct http_request *r, struct str body);
void program_signal(struct box *b, struct http_request *r, struct str body);
void program_input(struct box *b, struct http_request *r, struct str body);
/* The sandbox ends: streams break off, as they do when a machine is gone. */
void programs_drop(struct box *b);

/* ---- files.c ---- */
void file_get(struct box *b, struct http_request *r, struct str body);
void file_post(struct box *b, struct http_request *r, struct str body);
void file_stat(struct box *b, struct http_request *r, struct str body);
void file_list(struct box *b, struct http_request *r, struct str body);
void files_drop(struct box *b);

#endif
