/* libcurl's multi handles on the loop. A shard is one multi handle with at most SHARD_TRANSFERS transfers
 * (its cost per transfer grows with their number, and looking for a kept connection is a walk over all of its
 * connections: 40,000 short jobs, 256 at a time, ran at 7,000/s with 256 in a shard and at 11,000/s with 64).
 *
 * libcurl calls back (sockets, timer, data) only from inside curl_multi_socket_action, add and remove; those
 * callbacks only take notes. Owners are called afterwards, from client_tell: so they may start and cancel
 * transfers as they like and no handle is ever added or removed inside a callback. */
#include <stdlib.h>

#include "http/transfer.h"

struct watch {
    struct shard *shard;
    struct loop_io *io;
};

static void after_action(struct shard *s)
{
    CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(s->multi, &left)) != NULL) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        CURLcode code = msg->data.result; /* msg dies with the handle's removal */
        struct http_transfer *t = NULL;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        transfer_ended(t, code);
    }
    client_tell(s->client);
}

static void on_timeout(void *arg)
{
    struct shard *s = arg;
    int running;
    curl_multi_socket_action(s->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    after_action(s);
}

static int timer_cb(CURLM *multi, long ms, void *arg)
{
    (void)multi;
    struct shard *s = arg;
    loop_timer_stop(s->timer);
    loop_task_cancel(s->client->loop, &s->kick);
    if (ms == 0)
        loop_task_post(s->client->loop, &s->kick, on_timeout, s);
    else if (ms > 0)
        loop_timer_start(s->timer, ms);
    return 0;
}

static void on_socket(void *arg, int fd, int events)
{
    struct shard *s = ((struct watch *)arg)->shard; /* the watch may die in the action */
    int mask = ((events & LOOP_READ) != 0 ? CURL_CSELECT_IN : 0) |
               ((events & LOOP_WRITE) != 0 ? CURL_CSELECT_OUT : 0);
    int running;
    curl_multi_socket_action(s->multi, fd, mask, &running);
    after_action(s);
}

static void watch_free(struct watch *w)
{
    if (w == NULL)
        return;
    loop_io_free(&w->io);
    free(w);
}

static int socket_cb(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    (void)easy;
    struct shard *s = arg;
    struct watch *w = socket_arg;
    if (what == CURL_POLL_REMOVE) {
        watch_free(w);
        curl_multi_assign(s->multi, fd, NULL);
        return 0;
    }
    int events =
        ((what & CURL_POLL_IN) != 0 ? LOOP_READ : 0) | ((what & CURL_POLL_OUT) != 0 ? LOOP_WRITE : 0);
    if (w != NULL) {
        loop_io_set(w->io, events);
        return 0;
    }
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return -1;
    w->shard = s;
    w->io = loop_io_new(s->client->loop, fd, events, on_socket, w);
    if (w->io == NULL) {
        free(w);
        return -1;
    }
    curl_multi_assign(s->multi, fd, w);
    return 0;
}

/* ---- shards ---- */

static void shard_free(struct shard *s)
{
    if (s == NULL)
        return;
    if (s->multi != NULL)
        curl_multi_cleanup(s->multi); /* closes its connections, which frees their watches */
    loop_task_cancel(s->client->loop, &s->kick);
    loop_timer_free(&s->timer);
    free(s);
}

static struct shard *shard_new(struct http_client *c)
{
    struct shard *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->client = c;
    s->multi = curl_multi_init();
    s->timer = loop_timer_new(c->loop, on_timeout, s);
    if (s->multi == NULL || s->timer == NULL) {
        shard_free(s);
        return NULL;
    }
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
    curl_multi_setopt(s->multi, CURLMOPT_SOCKETDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERFUNCTION, timer_cb);
    curl_multi_setopt(s->multi, CURLMOPT_TIMERDATA, s);
    curl_multi_setopt(s->multi, CURLMOPT_MAXCONNECTS, (long)SHARD_TRANSFERS);
    return s;
}

struct shard *shard_pick(struct http_client *c)
{
    struct shard *s = c->roomy != NULL ? c->roomy : c->shards, *last = NULL;
    while (s != NULL && s->running >= SHARD_TRANSFERS) {
        last = s;
        s = s->next;
    }
    if (s == NULL) {
        s = shard_new(c);
        if (s == NULL)
            return NULL;
        s->index = last != NULL ? last->index + 1 : 0;
        *(last != NULL ? &last->next : &c->shards) = s;
    }
    c->roomy = s;
    return s;
}

bool shard_add(struct shard *s, struct http_transfer *t)
{
    if (curl_multi_add_handle(s->multi, t->easy) != CURLM_OK)
        return false;
    t->shard = s;
    s->running++;
    return true;
}

void shard_remove(struct http_transfer *t)
{
    if (t->shard == NULL)
        return;
    curl_multi_remove_handle(t->shard->multi, t->easy);
    t->shard->running--;
    if (t->client->roomy == NULL || t->shard->index < t->client->roomy->index)
        t->client->roomy = t->shard;
    t->shard = NULL;
}

void shards_free(struct http_client *c)
{
    c->roomy = NULL;
    while (c->shards != NULL) {
        struct shard *s = c->shards;
        c->shards = s->next;
        shard_free(s);
    }
}
