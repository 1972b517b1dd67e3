/* loop: order of tasks, timers, flows with deadlines, the worker pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "loop/flow.h"
#include "loop/loop.h"
#include "loop/work.h"

static struct loop *loop;
static char trace[64];

static void note(const char *s)
{
    strncat(trace, s, sizeof trace - strlen(trace) - 1);
}

static void stop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

static struct loop_task a, b;

static void task_b(void *arg)
{
    (void)arg;
    note("b");
    loop_stop(loop);
}

static void task_a(void *arg)
{
    (void)arg;
    note("a");
    if (strlen(trace) < 3)
        loop_task_post(loop, &a, task_a, NULL); /* itself: next turn */
    else
        loop_task_post(loop, &b, task_b, NULL);
}

static void tasks_run_in_order(void **state)
{
    (void)state;
    trace[0] = '\0';
    loop_task_post(loop, &a, task_a, NULL);
    struct loop_timer *guard = loop_timer_new(loop, stop, NULL);
    loop_timer_start(guard, 5000);
    loop_run(loop);
    assert_string_equal(trace, "aaab");
    loop_task_post(loop, &a, task_a, NULL);
    loop_task_cancel(loop, &a);
    assert_null(a.pprev);
    loop_timer_free(&guard);
}

struct walk {
    struct flow flow;
    struct err end;
    bool ended;
};

static void step_sync(void *self)
{
    struct walk *w = self;
    note("1");
    flow_next(&w->flow);
}

static void step_hang(void *self)
{
    (void)self;
    note("2");
}

static void step_late(void *self)
{
    struct walk *w = self;
    note("L");
    flow_next(&w->flow);
}

static void walk_end(void *self, const struct err *err)
{
    struct walk *w = self;
    w->ended = true;
    if (err != NULL)
        w->end = *err;
    loop_stop(loop);
}

static void flows_keep_deadlines(void **state)
{
    (void)state;
    static const struct flow_step steps[] = {{"sync", step_sync, 1000, NULL},
                                             {"hang", step_hang, 10, step_late},
                                             {"hang again", step_hang, 10, NULL}};
    struct walk w = {0};
    trace[0] = '\0';
    assert_int_equal(flow_init(&w.flow, loop, steps, 3, &w, walk_end, NULL), 0);
    flow_start(&w.flow);
    loop_run(loop);
    assert_string_equal(trace, "12L2");
    assert_true(w.ended);
    assert_int_equal(w.end.code, ERR_TIMEOUT);
    flow_goto(&w.flow, 0); /* after the end: nothing */
    flow_deinit(&w.flow);
}

static int done_count, sum;

static void square(void *arg)
{
    int *n = arg;
    *n *= *n;
}

static void add_up(void *arg)
{
    sum += *(int *)arg;
    if (++done_count == 50)
        loop_stop(loop);
}

static void workers_answer_on_the_loop(void **state)
{
    (void)state;
    static int n[50];
    struct work_pool *pool = work_pool_new(loop, 2, 50);
    for (int i = 0; i < 50; i++) {
        n[i] = i;
        assert_int_equal(work_submit(pool, square, add_up, &n[i], NULL), 0);
    }
    struct loop_timer *guard = loop_timer_new(loop, stop, NULL);
    loop_timer_start(guard, 5000);
    loop_run(loop);
    assert_int_equal(done_count, 50);
    assert_int_equal(sum, 40425);
    loop_timer_free(&guard);
    work_pool_free(&pool);
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new();
    return loop == NULL;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(&loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_run_in_order),
        cmocka_unit_test(flows_keep_deadlines),
        cmocka_unit_test(workers_answer_on_the_loop),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
