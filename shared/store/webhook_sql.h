/* Inside the store only: the part of a statement that puts webhooks into the outbox. */
#ifndef STORE_WEBHOOK_SQL_H
#define STORE_WEBHOOK_SQL_H

/* For every statement that inserts results: of those that won (`r` with id, tenant, status), one row for each
 * enabled endpoint of the tenant that wants the event, and one for the hook that came with the submission.
 * Results only ever win once, so this happens once, whoever writes them. low and high: parameters that bound
 * the ids. The hook's probe is fenced with OFFSET 0: one look at the one partition that can hold it. */
#define WEBHOOK_OUTBOX_SQL(low, high)                                                                       \
    "w AS (INSERT INTO outbox (id, endpoint, tenant, event, lane) "                                         \
    "SELECT r.id, e.id, r.tenant, r.status, e.lane FROM r JOIN webhook_endpoints e ON e.tenant = r.tenant " \
    "WHERE e.enabled AND e.events & (1 << r.status) <> 0 "                                                  \
    "UNION ALL SELECT r.id, r.id, r.tenant, r.status, h.lane FROM r, LATERAL (SELECT lane FROM "            \
    "webhook_hooks h WHERE h.id = r.id AND h.id BETWEEN " low " AND " high " OFFSET 0) h "                  \
    "ORDER BY 1, 2 ON CONFLICT DO NOTHING RETURNING 1), "

#endif
