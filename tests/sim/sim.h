/* The simulator's parts: what its files share.
 *
 *   api.c      which call it is, access, the control plane's answers
 *   box.c      sandboxes: made, listed, ended by a call or by their time; the ledger
 *   program.c  programs: what they answer, when, to whom
 *   files.c    what was uploaded */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <uthash.h>

#include "base/buf.h"
#include "base/clock.h"
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
    uint64_t deleted, expired, refused_live, refused_rate;
    size_t peak_live, file_bytes;
    double permits; /* of creates, now */
    mono_t permits_at;
    int ledger;              /* -1: none */
    struct buf ledger_lines; /* not written yet: whole lines */
    bool ledger_failed;
    struct later *laters;  /* api.c: answers to come */
    uint64_t first_number; /* of this process's first sandbox: no id comes twice across restarts */
    uint8_t token_key[32];
};

/* What an unanswered request leads to (http_data): forgets the request when its client goes. */
struct asked {
    struct http_request *req;
    void (*gone)(struct asked *a);
};

/* ---- api.c ---- */
void api_request(void *arg, struct http_request *r);
void api_gone(void *arg, struct http_request *r);
const char *api_error_body(void *arg, enum err_code code, const char *detail, struct buf *out);
void api_error(struct http_request *r, int status, const char *text);
/* Takes the body over. */
void api_json(struct http_request *r, int status, struct buf *body);
/* Answers after a while; at once when ms is 0. body may be NULL. */
void api_later(struct sim *s, struct http_request *r, int64_t ms, int status, struct buf *body);
void api_rpc_error(struct http_request *r, const char *code, const char *text);
void api_laters_free(struct sim *s);

/* ---- box.c ---- */
enum box_end { BOX_DELETED, BOX_EXPIRED, BOX_SHUTDOWN };
struct box *box_new(struct sim *s, struct str template_id, struct pairs *metadata, int64_t ttl_s);
struct box *box_find(struct sim *s, struct str id);
void box_end(struct box *b, enum box_end how);
void box_expire_due(struct sim *s);
/* As the calls create, connect and get show it. detail: with times and metadata. */
void box_write(struct json_writer *w, const struct box *b, bool detail);
void box_list(struct sim *s, struct http_request *r, bool paged);
int ledger_open(struct sim *s, struct err *err);
void ledger_flush(struct sim *s);
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
void files_drop(struct box *b);

#endif
