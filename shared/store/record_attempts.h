/* Inside the store only: the attempts of a record, those that have ended.
 *
 * Most invocations have one, and the result and usage that a record is read with tell all of it. Only where a
 * second one was allocated does the query gather them, each as an array of its own. */
#ifndef STORE_RECORD_ATTEMPTS_H
#define STORE_RECORD_ATTEMPTS_H

#include "json/writer.h"
#include "store/records.h"

/* The column struct record.attempts is read from. Within a query that has w (the wanted id), r (the result),
 * a (the newest attempt) and the bounds of ids $3 and $4. Attempt n ended when there is one after it (x tells
 * why), when the result is its, or when its usage came late (v).
 * The newest 50 at most: provider failures before the start may make far more. */
#define RECORD_ATTEMPTS_SQL                                                                             \
    "CASE WHEN a.attempt > 1 THEN (SELECT json_agg(json_build_array(s.n, "                              \
    "coalesce(v.boot, x.executor, CASE WHEN r.attempt = s.n THEN r.executor END), v.sandbox, "          \
    "(extract(epoch FROM coalesce(v.started_at, CASE WHEN r.attempt = s.n THEN r.started_at END)) * "   \
    "1000000)::int8, "                                                                                  \
    "(extract(epoch FROM CASE WHEN r.attempt = s.n THEN r.finished_at ELSE x.ended_at END) * "          \
    "1000000)::int8, "                                                                                  \
    "CASE WHEN r.attempt = s.n THEN r.status END, x.reason, v.queue_ms, v.sandbox_start_ms, v.run_ms, " \
    "v.sandbox_ms, v.cpu_ms, v.peak_memory_bytes) ORDER BY s.n)::text "                                 \
    "FROM generate_series(greatest(a.attempt - 49, 1), a.attempt) AS s (n) "                            \
    "LEFT JOIN LATERAL (SELECT * FROM usage v WHERE v.id = w.id AND v.attempt = s.n AND "               \
    "v.id BETWEEN $3 AND $4 OFFSET 0) v ON true "                                                       \
    "LEFT JOIN LATERAL (SELECT * FROM attempts x WHERE x.id = w.id AND x.attempt = s.n + 1 AND "        \
    "x.id BETWEEN $3 AND $4 OFFSET 0) x ON true "                                                       \
    "WHERE x.id IS NOT NULL OR v.id IS NOT NULL OR (r.attempt = s.n AND r.executor IS NOT NULL)) END"

/* Writes the array. */
void record_attempts_write(const struct record *r, struct json_writer *w);

#endif
