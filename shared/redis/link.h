/* A connection to Redis that keeps itself connected, beneath the command and the subscription connection
 * (private to shared/redis). */
#ifndef REDIS_LINK_H
#define REDIS_LINK_H

#include <hiredis/async.h>

#include "redis/redis.h"

struct redis_link;

struct redis_link_events {
    void (*up)(void *arg);   /* after the handshake */
    void (*down)(void *arg); /* after every loss of a connection, up or not; its context is gone */
    void (*gone)(void *arg); /* the link is closed: free its owner */
};

/* ERR_CONFIG for an unusable url (the message never holds its password). */
struct redis_link *redis_link_open(struct loop *loop, const struct redis_options *options,
                                   const struct redis_link_events *events, void *arg, struct err *err);

/* Closes, now or when the outermost callback returns; then `gone` is called. */
void redis_link_close(struct redis_link *l);

/* The context to send with, NULL while it is not up. */
redisAsyncContext *redis_link_context(const struct redis_link *l);

/* Drops the connection at the end of this turn; it then connects anew. */
void redis_link_doom(struct redis_link *l, const char *why);

/* Why there is no connection, for error texts. */
const char *redis_link_trouble(const struct redis_link *l);

/* Around everything that calls the user from a loop callback of the owner's own. The link may be gone
 * afterwards. */
void redis_link_enter(struct redis_link *l);
void redis_link_leave(struct redis_link *l);

#endif
