/* The worker pool: one mutex, two lists (waiting, finished), one wake-up to the loop. */
#include "loop/work.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct job {
    struct job *next;
    work_run_fn *run;
    work_done_fn *done;
    void *arg;
};

struct list {
    struct job *head, **end;
};

struct work_pool {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list waiting, finished; /* under lock */
    int queued;                    /* under lock */
    bool closing;                  /* under lock */
    int max_queued;
    struct loop_wake *wake;
    int threads;
    pthread_t thread[];
};

static void list_init(struct list *l)
{
    l->head = NULL;
    l->end = &l->head;
}

static void list_put(struct list *l, struct job *job)
{
    job->next = NULL;
    *l->end = job;
    l->end = &job->next;
}

static struct job *list_take(struct list *l)
{
    struct job *job = l->head;
    if (job != NULL && (l->head = job->next) == NULL)
        l->end = &l->head;
    return job;
}

static void *worker(void *arg)
{
    struct work_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    while (!pool->closing) {
        struct job *job = list_take(&pool->waiting);
        if (job == NULL) {
            pthread_cond_wait(&pool->more, &pool->lock);
            continue;
        }
        pool->queued--;
        pthread_mutex_unlock(&pool->lock);
        job->run(job->arg);
        pthread_mutex_lock(&pool->lock);
        list_put(&pool->finished, job);
        loop_wake_send(pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void report(void *arg)
{
    struct work_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    struct job *job = pool->finished.head;
    list_init(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
    while (job != NULL) {
        struct job *next = job->next;
        job->done(job->arg);
        free(job);
        job = next;
    }
}

struct work_pool *work_pool_new(struct loop *loop, int threads, int max_queued)
{
    struct work_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->thread[0]);
    if (pool == NULL)
        return NULL;
    pool->max_queued = max_queued;
    list_init(&pool->waiting);
    list_init(&pool->finished);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    pool->wake = loop_wake_new(loop, report, pool);
    sigset_t all, old; /* signals belong to the loop's thread */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    while (pool->wake != NULL && pool->threads < threads &&
           pthread_create(&pool->thread[pool->threads], NULL, worker, pool) == 0)
        pool->threads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (pool->threads == 0)
        work_pool_free(&pool);
    return pool;
}

static void list_free(struct list *l)
{
    for (struct job *job; (job = list_take(l)) != NULL;)
        free(job);
}

void work_pool_free(struct work_pool **ppool)
{
    if (ppool == NULL || *ppool == NULL)
        return;
    struct work_pool *pool = *ppool;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    list_free(&pool->waiting);
    list_free(&pool->finished);
    loop_wake_free(&pool->wake);
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    *ppool = NULL;
}

int work_submit(struct work_pool *pool, work_run_fn *run, work_done_fn *done, void *arg, struct err *err)
{
    struct job *job = malloc(sizeof *job);
    if (job == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory for a job");
    *job = (struct job){.run = run, .done = done, .arg = arg};
    pthread_mutex_lock(&pool->lock);
    bool full = pool->queued >= pool->max_queued;
    if (!full) {
        pool->queued++;
        list_put(&pool->waiting, job);
        pthread_cond_signal(&pool->more);
    }
    pthread_mutex_unlock(&pool->lock);
    if (!full)
        return 0;
    free(job);
    return err_set(err, ERR_OVERLOADED, "the worker pool's queue is full (%d)", pool->max_queued);
}
