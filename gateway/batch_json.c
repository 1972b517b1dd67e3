/* A batch's record as JSON. */
#include <stdio.h>

#include "batches.h"
#include "json/writer.h"

void batch_path(struct uuid id, char out[BATCH_PATH_BYTES])
{
    char text[ID_TEXT_BYTES];
    id_format("bat", id, text);
    snprintf(out, BATCH_PATH_BYTES, "/v1/batches/%s", text);
}

/* What is not ended is scheduled until its time has come, then queued unless an executor has it; so the
 * counts add up to the total. Redis answers a moment later than PostgreSQL: what has ended in between is not
 * counted twice. */
static void write_counts(const struct batch *b, const struct batch_live *live, struct json_writer *w)
{
    int32_t open = b->total - b->ended_count;
    int32_t scheduled = b->scheduled < open ? b->scheduled : open;
    open -= scheduled;
    int32_t running = live->running < open ? live->running : open;
    int32_t starting = live->starting < open - running ? live->starting : open - running;
    jw_key(w, "counts");
    jw_object(w);
    jw_kint(w, inv_state_name(INV_SCHEDULED), scheduled);
    jw_kint(w, inv_state_name(INV_QUEUED), open - running - starting);
    jw_kint(w, inv_state_name(INV_STARTING), starting);
    jw_kint(w, inv_state_name(INV_RUNNING), running);
    for (int s = INV_SUCCEEDED; s <= INV_ERROR; s++)
        jw_kint(w, inv_state_name((enum inv_state)s), b->ended[s]);
    jw_object_end(w);
}

/* Items that ended a second, over the batch's life. */
static double rate_of(const struct batch *b)
{
    wall_t until = b->ended_at.us != 0 ? b->ended_at : wall_now();
    int64_t us = until.us - uuid_time(b->first).us;
    double rate = us > 0 ? (double)b->ended_count * 1e6 / (double)us : 0;
    return (double)(int64_t)(rate * 100 + 0.5) / 100;
}

void batch_write(const struct batch *b, const struct batch_live *live, struct buf *out)
{
    char path[BATCH_PATH_BYTES], results[BATCH_PATH_BYTES + 16];
    struct json_writer w = json_writer(out);
    batch_path(b->id, path);
    snprintf(results, sizeof results, "%s/results", path);
    jw_object(&w);
    jw_kid(&w, "id", "bat", b->id);
    jw_kcstr(&w, "status", batch_state_name(b->state));
    jw_kbool(&w, "status_stale", live->stale);
    jw_kint(&w, "total", b->total);
    jw_kint(&w, "ended", b->ended_count);
    write_counts(b, live, &w);
    jw_key(&w, "rate_per_s");
    jw_double(&w, rate_of(b));
    jw_kcstr(&w, "priority", inv_priority_name(b->priority));
    jw_key(&w, "max_concurrency");
    if (b->max_concurrency > 0)
        jw_int(&w, b->max_concurrency);
    else
        jw_null(&w);
    jw_key(&w, "metadata");
    jw_raw(&w, b->metadata.n > 0 ? b->metadata : STR("{}"));
    jw_kcstr(&w, "results_url", results);
    jw_ktime(&w, "created_at", uuid_time(b->first));
    jw_ktime(&w, "ended_at", b->ended_at);
    jw_object_end(&w);
}
