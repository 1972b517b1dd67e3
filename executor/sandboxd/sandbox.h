/* Sandboxes: what a client created and a cell carries, and the table of them.
 *
 *   WAITING (for a cell) -> STARTING (the cell becomes a sandbox) -> RUNNING -> freed
 *
 * Whatever ends one (a kill, its time to live, its own death) goes through sandbox_kill: the cell is killed,
 * every outstanding call and process is told, the table forgets it. A pointer to a sandbox is valid until
 * then; what waits across turns keeps the id or is told. */
#ifndef SANDBOXD_SANDBOX_H
#define SANDBOXD_SANDBOX_H

#include "base/clock.h"
#include "base/str.h"
#include "cell.h"
#include "pairs.h"
#include "pool.h"

enum { SANDBOX_ID_CHARS = 21, SANDBOX_TOKEN_CHARS = 64 };

struct sandbox;
struct host; /* the table */
struct process;

struct sandbox_spec {
    char *template_id; /* as asked for */
    struct pairs metadata, env;
    int64_t ttl_ms;
    bool secure, network;
    int layer_count;
    char *layers[CELL_MAX_LAYERS]; /* uppermost first */
};
void sandbox_spec_free(struct sandbox_spec *s);

struct host *host_new(struct cell_works *works, struct pool *pool);
/* Kills all. */
void host_free(struct host **h);
/* Whether sandboxes can be made, as far as the last attempts tell. */
bool host_works(const struct host *h);

/* The sandbox is RUNNING (err NULL), or there is none (sandbox NULL). Called once, from the loop. */
typedef void sandbox_created_fn(void *arg, struct sandbox *sandbox, const struct err *err);

/* Takes what spec holds (the struct is then empty), also on failure. -1 and *err: ERR_TOO_MANY (the live
 * limit), ERR_OVERLOADED, ERR_NO_MEMORY. */
int sandbox_create(struct host *h, struct sandbox_spec *spec, sandbox_created_fn *fn, void *arg,
                   struct sandbox **sandbox_out, struct err *err);
/* fn will not be called; the sandbox is destroyed if it is not RUNNING yet. */
void sandbox_abandon(struct sandbox *s);

/* A RUNNING one of this id (a suffix "-client" is dropped), or NULL. */
struct sandbox *host_find(struct host *h, struct str id);
int host_running(const struct host *h);
/* Walks all RUNNING ones, oldest first: NULL gives the first, NULL is returned after the last. */
struct sandbox *host_next(struct host *h, const struct sandbox *after);
/* Whether fn says so of any sandbox, those not yet RUNNING included. */
bool host_any(const struct host *h, bool (*fn)(const struct sandbox_spec *spec, const char *arg),
              const char *arg);

const char *sandbox_id(const struct sandbox *s);
const char *sandbox_token(const struct sandbox *s); /* "" when not secure */
const struct sandbox_spec *sandbox_spec_of(const struct sandbox *s);
wall_t sandbox_started_at(const struct sandbox *s);
wall_t sandbox_ends_at(const struct sandbox *s);
struct cell *sandbox_cell(struct sandbox *s);
struct loop *sandbox_loop(struct sandbox *s);

/* The time to live from now on. */
void sandbox_set_ttl(struct sandbox *s, int64_t ms);

void sandbox_kill(struct sandbox **s, const char *why);

/* ---- calls to the supervisor ---- */

/* As types of an answer: the sandbox is gone; or its supervisor gave no answer in time. */
enum { SANDBOX_CALL_OVER = 0, SANDBOX_CALL_LATE = -1 };

/* What such an answer means, in words and as an HTTP status. */
const char *sandbox_over_text(int type);
int sandbox_over_status(int type);

/* An answer. fds are the callee's. last: the call is over. */
typedef void sandbox_answer_fn(void *arg, int type, struct wire_reader *r, const int *fds, int fd_count,
                               bool last);

/* Begins a request's message in a shared buffer (one at a time). */
struct wire_writer *sandbox_message(struct sandbox *s, enum wire_type type);
/* Sends it. The ticket (> 0), or 0 and *err; fn is called for each answer, from the loop. The first answer
 * has a deadline. */
uint32_t sandbox_send(struct sandbox *s, struct wire_writer *msg, const int *fds, int fd_count,
                      sandbox_answer_fn *fn, void *arg, struct err *err);
/* fn is not called any more. */
void sandbox_forget(struct sandbox *s, uint32_t ticket);

/* What a FAILED answer says, as an error; text lives as long as the message. */
enum wire_fault sandbox_fault(struct wire_reader *r, const char **text_out);

/* ---- its processes: a list that process.c keeps ---- */

struct process **sandbox_processes(struct sandbox *s);
/* One more was asked for: its log says at the end how many. */
void sandbox_count_program(struct sandbox *s);

#endif
