/* Last words.
 *
 * A connection to Redis of our own is kept for them, on which nothing else is ever sent, and the commands are
 * made ahead in Redis's own bytes. The handler puts in the id of the job that this thread works for
 * (base/culprit.h), gives all of it to the kernel in one send, and lets the signal have its way: the exit
 * status tells, and what was sent arrives although we are gone.
 *
 * A witness process would do the same by another way, and was not taken: it has to be forked, reaped and kept
 * from a supervisor's SIGTERM, and it dies with us where we are a container's first process.
 *
 * What it needs and may not have: a connection that is up. Without one nobody is blamed, the executor is
 * found dead by its lease, and the job is among those that may be re-run 20 times. A kill from outside, or
 * one by the kernel for want of memory, is nobody's fault and leaves no words. */
#include "crash.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/culprit.h"
#include "store/queue_will.h"

enum { WORDS_BYTES = 512, STACK_BYTES = 64 * 1024 };

static const int signals[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
enum { SIGNALS = sizeof signals / sizeof *signals };

struct crash {
    struct redis *redis;
    void *stack; /* of the handler: ours may be what has run out */
};

/* What the handler has: nobody can give it an argument. Written from the loop, before a signal or never. */
static struct {
    volatile sig_atomic_t socket; /* -1: no connection */
    size_t bytes;
    struct queue_last_words where;
    char words[WORDS_BYTES];
    struct sigaction before[SIGNALS];
} last = {.socket = -1};

static void speak(void)
{
    struct uuid job = culprit_now();
    static const struct uuid nobody;
    bool guilty = memcmp(job.b, nobody.b, sizeof job.b) != 0;
    size_t from = guilty ? 0 : last.where.culprit_bytes;
    memcpy(last.words + last.where.id_at, job.b, sizeof job.b);
    if (last.socket >= 0)
        send(last.socket, last.words + from, last.bytes - from, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void on_crash(int signum)
{
    speak();
    for (int i = 0; i < SIGNALS; i++)
        if (signals[i] == signum)
            sigaction(signum, &last.before[i], NULL);
    raise(signum);
}

static void on_redis(void *arg, bool connected)
{
    struct crash *c = arg;
    last.socket = connected ? redis_socket(c->redis) : -1;
}

static int install(struct crash *c, struct err *err)
{
    c->stack =
        mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (c->stack == MAP_FAILED) {
        c->stack = NULL;
        return err_set(err, ERR_NO_MEMORY, "no memory for the crash handler's stack");
    }
    const stack_t stack = {.ss_sp = c->stack, .ss_size = STACK_BYTES};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK | SA_NODEFER | SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    if (sigaltstack(&stack, NULL) != 0)
        return err_set(err, ERR_INTERNAL, "the crash handler's stack cannot be set up");
    for (int i = 0; i < SIGNALS; i++)
        if (sigaction(signals[i], &action, &last.before[i]) != 0)
            return err_set(err, ERR_INTERNAL, "a crash handler cannot be installed");
    return 0;
}

static int prepare_words(struct uuid boot, struct err *err)
{
    struct buf words;
    buf_init(&words, WORDS_BYTES);
    bool ok = queue_last_words(boot, &words, &last.where);
    last.bytes = words.len;
    if (ok)
        memcpy(last.words, words.data, words.len);
    buf_deinit(&words);
    return ok ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for the crash handler");
}

struct crash *crash_new(struct executor *x, struct err *err)
{
    struct crash *c = calloc(1, sizeof *c);
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for the crash handler");
        return NULL;
    }
    c->redis =
        redis_open(x->loop,
                   &(struct redis_options){
                       .url = x->settings->redis_url, .name = x->client_name, .on_state = on_redis, .arg = c},
                   err);
    if (c->redis == NULL || prepare_words(x->boot, err) != 0 || install(c, err) != 0)
        crash_free(&c);
    return c;
}

void crash_free(struct crash **c)
{
    if (c == NULL || *c == NULL)
        return;
    last.socket = -1;
    redis_close(&(*c)->redis);
    if ((*c)->stack != NULL) {
        for (int i = 0; i < SIGNALS; i++)
            signal(signals[i], SIG_DFL);
        const stack_t off = {.ss_flags = SS_DISABLE};
        sigaltstack(&off, NULL);
        munmap((*c)->stack, STACK_BYTES);
    }
    free(*c);
    *c = NULL;
}
