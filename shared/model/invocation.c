/* Invocation states and the retry rules. */
#include "model/invocation.h"

static const struct {
    enum inv_state state;
    const char *name;
} states[] = {
    {INV_SCHEDULED, "scheduled"}, {INV_QUEUED, "queued"},       {INV_STARTING, "starting"},
    {INV_RUNNING, "running"},     {INV_SUCCEEDED, "succeeded"}, {INV_FAILED, "failed"},
    {INV_TIMED_OUT, "timed_out"}, {INV_CANCELED, "canceled"},   {INV_EXPIRED, "expired"},
    {INV_ERROR, "error"},
};

static const char *const priorities[INV_PRIORITIES] = {"high", "normal", "low"};

const char *inv_state_name(enum inv_state s)
{
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (states[i].state == s)
            return states[i].name;
    return "unknown";
}

bool inv_state_ended(enum inv_state s)
{
    return s > INV_NONE;
}

enum inv_state inv_state_parse(struct str name)
{
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (str_eq_c(name, states[i].name))
            return states[i].state;
    return INV_NONE;
}

bool inv_priority_parse(struct str name, enum inv_priority *out)
{
    for (int i = 0; i < INV_PRIORITIES; i++)
        if (str_eq_c(name, priorities[i])) {
            *out = (enum inv_priority)i;
            return true;
        }
    return false;
}

const char *inv_priority_name(enum inv_priority p)
{
    return (unsigned)p < INV_PRIORITIES ? priorities[p] : "unknown";
}

int64_t inv_backoff_ms(int attempt, uint32_t random)
{
    int64_t most = INV_BACKOFF_FIRST_MS;
    for (int i = 1; i < attempt && most < INV_BACKOFF_MAX_MS; i++)
        most *= 2;
    if (most > INV_BACKOFF_MAX_MS)
        most = INV_BACKOFF_MAX_MS;
    return (int64_t)(((uint64_t)random * (uint64_t)(most + 1)) >> 32);
}

static bool caller_wants_retry(const struct inv_attempt_end *end)
{
    int bit = end->state == INV_FAILED      ? INV_RETRY_FAILED
              : end->state == INV_TIMED_OUT ? INV_RETRY_TIMED_OUT
                                            : 0;
    return (end->retry_on & bit) != 0 && end->own + 1 < end->max_attempts;
}

enum inv_verdict inv_judge(const struct inv_attempt_end *end, uint32_t random, int64_t *backoff_ms_out)
{
    *backoff_ms_out = inv_backoff_ms(end->attempt, random);
    if (!end->ours)
        return caller_wants_retry(end) ? INV_RETRY : INV_SETTLE;
    if (end->started)
        return end->reruns < INV_MAX_LOST_RUNS ? INV_RETRY : INV_SETTLE;
    return end->queue_left_ms > *backoff_ms_out ? INV_RETRY : INV_SETTLE;
}
