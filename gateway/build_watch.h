/* Logs of builds that somebody watches: PostgreSQL is asked how far all of them are, in one query each 300
 * ms, and not at all while nobody watches. So a thousand followers of a build cost what one costs, until
 * there is something to send. */
#ifndef GATEWAY_BUILD_WATCH_H
#define GATEWAY_BUILD_WATCH_H

#include "gateway.h"

struct build_news {
    bool over; /* the gateway is being stopped, the watcher's time is up, or the version is gone */
    int64_t bytes;
    bool building;
};
typedef void build_news_fn(void *arg, const struct build_news *news);

/* Embedded in its owner, zeroed; the owner fills in the upper half. */
struct build_watcher {
    struct uuid version;
    int64_t seen; /* bytes that it knows of */
    mono_t until;
    build_news_fn *fn;
    void *arg;

    struct build_watcher *prev, *next;
    bool watching;
};

struct build_watch;
struct build_watch *build_watch_new(struct gateway *g);
void build_watch_free(struct build_watch **w);

/* fn is called once, from the loop: when there is more than `seen`, when the build has ended, or when it is
 * over. It may add the watcher again. */
void build_watch_add(struct build_watch *w, struct build_watcher *watcher);
/* Fine when it does not watch. */
void build_watch_remove(struct build_watch *w, struct build_watcher *watcher);

#endif
