/* /healthz, /readyz, /metrics. */
#include "health.h"

#include "handoff.h"
#include "http/server.h"
#include "json/writer.h"

void health_live(struct call *c)
{
    struct buf body;
    buf_init(&body, 256);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kcstr(&w, "status", "ok");
    jw_kcstr(&w, "version", SP_VERSION);
    jw_object_end(&w);
    call_reply_json(c, 200, &body);
}

void health_ready(struct call *c)
{
    struct err why = ERR_INIT;
    bool ready = handoff_ready(c->g->handoff, &why);
    struct buf body;
    buf_init(&body, 1024);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kcstr(&w, "status", ready ? "ready" : "not_ready");
    jw_kbool(&w, "postgres", pg_connected(c->g->read) && pg_connected(c->g->write_small));
    jw_kbool(&w, "redis", redis_connected(c->g->redis));
    if (!ready)
        jw_kcstr(&w, "reason", why.msg);
    jw_object_end(&w);
    call_reply_json(c, ready ? 200 : 503, &body);
}

void health_metrics(struct call *c)
{
    struct buf body;
    struct metrics *m = &c->g->metrics;
    buf_init(&body, 256 * 1024);
    metric_set(&m->row[M_CONNECTIONS], http_server_connections(c->g->server));
    metric_set(&m->row[M_EVICTED], (double)http_server_evicted(c->g->server));
    metric_set(&m->row[M_BODY_BYTES], (double)http_server_body_bytes(c->g->server));
    metric_write(m->row, M_COUNT, &body);
    call_reply_bytes(c, 200, "text/plain; version=0.0.4; charset=utf-8", buf_view(&body));
    buf_deinit(&body);
}
