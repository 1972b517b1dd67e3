/* Inside the HTTP client: what its files share. */
#ifndef HTTP_TRANSFER_H
#define HTTP_TRANSFER_H

#include <curl/curl.h>

#include "base/buf.h"
#include "base/culprit.h"
#include "http/client.h"

enum { SHARD_TRANSFERS = 64 };

/* Where a transfer stands; it is on at most one of the client's lists. */
enum transfer_state {
    TRANSFER_RUNNING, /* in its shard's multi handle, with nothing for the owner */
    TRANSFER_READY,   /* in the multi handle, with data for the owner: on client.ready */
    TRANSFER_ENDED,   /* out of the multi handle; data and `done` to be told: on client.ready */
    TRANSFER_TOLD,    /* `done` was called: only to be freed */
};

struct http_transfer {
    struct http_client *client;
    struct shard *shard;
    struct http_transfer *next, **pprev;             /* client.transfers */
    struct http_transfer *ready_next, **ready_pprev; /* client.ready */
    enum transfer_state state;
    CURL *easy;
    struct http_call call; /* its pointers lead into `text` below */
    struct curl_slist *headers;
    size_t copied_bytes; /* of a body that is to be wiped; else 0 */
    struct buf body;     /* collected, or gathered for on_data */
    bool begun;          /* a `once` call was sent */
    bool is_stream;      /* a 2xx body goes to on_data */
    bool too_large;
    bool was_cut;    /* the answer was longer than a `cut` call reads */
    bool refused;    /* the guard refused an address */
    int64_t last_us; /* when a byte came last */
    int64_t retry_after_sec;
    char *next_token; /* owned */
    int status;
    struct uuid culprit; /* for whom it was made: entered around every call of its owner */
    struct err err;      /* code ERR_NONE: an answer came */
};

struct shard {
    struct http_client *client;
    struct shard *next;
    int index;
    CURLM *multi;
    struct loop_timer *timer;
    struct loop_task kick;
    int running;
};

struct http_client {
    struct loop *loop;
    char *user_agent;
    int max_transfers, active;
    CURLSH *share;
    struct shard *shards; /* the oldest first: they are filled first */
    struct shard *roomy;  /* none before it has room */
    struct http_transfer *transfers, *ready, **ready_end;
    struct loop_timer *watchdog;
    int64_t watchdog_ms;
    struct http_transfer *telling; /* whose owner is being called; NULL once it canceled */
    CURL *pool[64];
    int pooled;
};

/* ---- shard.c ---- */

/* A shard with room, made when there is none. NULL without memory. */
struct shard *shard_pick(struct http_client *c);
bool shard_add(struct shard *s, struct http_transfer *t);
void shard_remove(struct http_transfer *t); /* fine when it is out already */
void shards_free(struct http_client *c);

/* ---- client.c ---- */

/* libcurl is through with it. */
void transfer_ended(struct http_transfer *t, CURLcode code);
/* Calls the owners of all that is ready. Never from inside libcurl. */
void client_tell(struct http_client *c);
/* Puts it on the ready list. */
void transfer_ready(struct http_transfer *t);

#endif
