/* Pub/sub: subscribes whenever the link is up, and finds out whether the connection still lives.
 *
 * The probe is a repeated SUBSCRIBE to the first channel, which Redis confirms each time: hiredis 0.14 loses
 * the answer to PING in subscribe mode. Anything heard since the last probe answers it; silence until the
 * next one drops the connection, so a dead peer is found within two intervals. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "redis/link.h"

enum { PROBE_EVERY_MS = 2000 };

struct redis_sub {
    struct loop *loop;
    struct redis_link *link;
    char **channels;
    int count;
    redis_message_fn *fn;
    void (*on_state)(void *arg, bool connected);
    void *state_arg, *arg;
    struct loop_timer *probe;
    int confirmed; /* channels, since the link came up */
    bool heard;    /* anything, since the last probe */
    bool up;       /* on_state(true) was told */
    bool closing;
};

static void on_event(redisAsyncContext *ac, void *reply, void *arg);

static bool subscribe(struct redis_sub *s, int count)
{
    redisAsyncContext *ac = redis_link_context(s->link);
    const char **argv = calloc((size_t)count + 1, sizeof *argv);
    bool ok = ac != NULL && argv != NULL;
    if (ok) {
        argv[0] = "SUBSCRIBE";
        for (int i = 0; i < count; i++)
            argv[i + 1] = s->channels[i];
        ok = redisAsyncCommandArgv(ac, on_event, s, count + 1, argv, NULL) == REDIS_OK;
    }
    free(argv);
    return ok;
}

static void on_probe(void *arg)
{
    struct redis_sub *s = arg;
    if (redis_link_context(s->link) == NULL)
        return;
    if (!s->heard || !subscribe(s, 1))
        redis_link_doom(s->link, "Redis answers nothing");
    s->heard = false;
}

static void confirmed(struct redis_sub *s)
{
    if (++s->confirmed != s->count)
        return;
    s->up = true;
    if (s->on_state != NULL)
        s->on_state(s->state_arg, true);
}

static struct str text_of(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING ? str_make(r->str, (size_t)r->len) : STR("");
}

static void on_event(redisAsyncContext *ac, void *reply, void *arg)
{
    (void)ac;
    struct redis_sub *s = arg;
    const redisReply *r = reply;
    if (r == NULL || s->closing)
        return;
    s->heard = true;
    if (r->type == REDIS_REPLY_ERROR) {
        redis_link_doom(s->link, r->str);
        return;
    }
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 3)
        return;
    if (str_eq(text_of(r->element[0]), STR("message")))
        s->fn(s->arg, text_of(r->element[1]), text_of(r->element[2]));
    else if (str_eq(text_of(r->element[0]), STR("subscribe")))
        confirmed(s);
}

static void on_up(void *arg)
{
    struct redis_sub *s = arg;
    s->confirmed = 0;
    s->heard = false;
    loop_timer_every(s->probe, PROBE_EVERY_MS);
    if (!subscribe(s, s->count))
        redis_link_doom(s->link, "the subscription cannot be sent");
}

static void on_down(void *arg)
{
    struct redis_sub *s = arg;
    bool was_up = s->up;
    s->up = false;
    loop_timer_stop(s->probe);
    if (was_up && !s->closing && s->on_state != NULL)
        s->on_state(s->state_arg, false);
}

static void sub_free(struct redis_sub *s)
{
    loop_timer_free(&s->probe);
    for (int i = 0; s->channels != NULL && i < s->count; i++)
        free(s->channels[i]);
    free(s->channels);
    free(s);
}

static void on_gone(void *arg)
{
    sub_free(arg);
}

static const struct redis_link_events events = {.up = on_up, .down = on_down, .gone = on_gone};

static bool copy_channels(struct redis_sub *s, const char *const *channels, int count)
{
    s->channels = calloc((size_t)count, sizeof *s->channels);
    s->count = s->channels != NULL ? count : 0;
    for (int i = 0; i < s->count; i++) {
        s->channels[i] = strdup(channels[i]);
        if (s->channels[i] == NULL)
            return false;
    }
    return s->channels != NULL;
}

struct redis_sub *redis_sub_open(struct loop *loop, const struct redis_options *options,
                                 const char *const *channels, int count, redis_message_fn *fn, void *arg,
                                 struct err *err)
{
    INVARIANT(count > 0);
    struct redis_sub *s = calloc(1, sizeof *s);
    if (s != NULL)
        s->probe = loop_timer_new(loop, on_probe, s);
    if (s == NULL || s->probe == NULL || !copy_channels(s, channels, count)) {
        err_set(err, ERR_NO_MEMORY, "no memory for a Redis subscription");
        if (s != NULL)
            sub_free(s);
        return NULL;
    }
    s->loop = loop;
    s->fn = fn;
    s->arg = arg;
    s->on_state = options->on_state;
    s->state_arg = options->arg;
    s->link = redis_link_open(loop, options, &events, s, err);
    if (s->link == NULL) {
        sub_free(s);
        return NULL;
    }
    return s;
}

void redis_sub_close(struct redis_sub **s)
{
    if (s == NULL || *s == NULL)
        return;
    struct redis_sub *sub = *s;
    *s = NULL;
    sub->closing = true;
    redis_link_close(sub->link);
}
