/* waitpid(-1) on SIGCHLD, and who wants to know. Children without a watcher (slirp4netns after its cell) are
 * reaped silently: sandboxd is their subreaper, so none is left to an init that may not reap. */
#include "reaper.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <uthash.h>

struct watch {
    pid_t pid;
    reaper_fn *fn;
    void *arg;
    UT_hash_handle hh;
};

struct reaper {
    struct loop_signal *signal;
    struct watch *watches;
};

static void reap(void *arg, int signum)
{
    struct reaper *r = arg;
    pid_t pid;
    int status;
    (void)signum;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct watch *w;
        HASH_FIND_INT(r->watches, &pid, w);
        if (w == NULL)
            continue;
        HASH_DEL(r->watches, w);
        struct watch copy = *w;
        free(w);
        copy.fn(copy.arg, status);
    }
}

struct reaper *reaper_new(struct loop *loop)
{
    struct reaper *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->signal = loop_signal_new(loop, SIGCHLD, reap, r);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (r->signal == NULL)
        reaper_free(&r);
    return r;
}

void reaper_free(struct reaper **r)
{
    if (*r == NULL)
        return;
    struct watch *w, *next;
    HASH_ITER(hh, (*r)->watches, w, next)
    {
        HASH_DEL((*r)->watches, w);
        free(w);
    }
    loop_signal_free(&(*r)->signal);
    free(*r);
    *r = NULL;
}

int reaper_watch(struct reaper *r, pid_t pid, reaper_fn *fn, void *arg)
{
    struct watch *w = calloc(1, sizeof *w);
    if (w == NULL)
        return -1;
    *w = (struct watch){.pid = pid, .fn = fn, .arg = arg};
    HASH_ADD_INT(r->watches, pid, w);
    return 0;
}

void reaper_forget(struct reaper *r, pid_t pid)
{
    struct watch *w;
    HASH_FIND_INT(r->watches, &pid, w);
    if (w == NULL)
        return;
    HASH_DEL(r->watches, w);
    free(w);
}
