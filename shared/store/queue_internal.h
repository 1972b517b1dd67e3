/* Inside the queue only: the object and how its calls are made and answered. */
#ifndef STORE_QUEUE_INTERNAL_H
#define STORE_QUEUE_INTERNAL_H

#include "store/args.h"
#include "store/queue.h"
#include "store/scripts.h"

struct queue {
    struct redis *redis;
    int window;
    struct uuid fence; /* the newest seen */
};

/* A call under way: who gets the answer. Freed when it has been given. */
struct queue_call {
    void (*fn)(void); /* the typed callback, cast back by its reader */
    void *arg;
    size_t n;
    void *extra; /* owned by the call; freed with it */
    struct queue *q;
};

struct queue_call *queue_call_new(void (*fn)(void), void *arg, size_t n);
void queue_call_free(struct queue_call *c);

/* Sends a script; takes call and the args' contents. On refusal frees the call and returns -1. */
int queue_eval(struct queue *q, struct redis_script *script, const char *const *keys, int nkeys,
               struct args *args, redis_done_fn *reply, struct queue_call *call, struct err *err);
int queue_send(struct redis *redis, struct args *args, int64_t timeout_ms, redis_done_fn *reply,
               struct queue_call *call, struct err *err);

/* Readers for calls of these two shapes. */
void queue_reply_verdicts(void *arg, const struct redis_reply *reply, const struct err *err);
void queue_reply_done(void *arg, const struct redis_reply *reply, const struct err *err);

/* The text of sp:live's values. False when it does not have the form. */
bool queue_live_parse(struct str text, struct uuid id, struct queue_live *out);

#endif
