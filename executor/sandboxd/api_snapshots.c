/* Snapshots as the control plane shows them: they are E2B's templates of another kind. */
#include <stdlib.h>

#include "control.h"

struct snapshot_wait {
    struct api_pending pending;
    struct http_request *req;
    struct snapshots *snapshots;
};

static void snapshot_gone(struct api_pending *self)
{
    struct snapshot_wait *w = (struct snapshot_wait *)self;
    snapshots_forget(w->snapshots, w);
    free(w);
}

static void put_snapshot(struct json_writer *w, const struct snapshot_info *info)
{
    jw_object(w);
    jw_kcstr(w, "snapshotID", info->id);
    jw_key(w, "names");
    jw_array(w);
    if (info->name[0] != '\0')
        jw_cstr(w, info->name);
    jw_array_end(w);
    jw_ktime(w, "createdAt", info->created_at);
    jw_object_end(w);
}

static void on_snapshot(void *arg, const struct snapshot_info *info, const struct err *err)
{
    struct snapshot_wait *wait = arg;
    struct http_request *r = wait->req;
    struct buf body;
    http_set_data(r, NULL);
    free(wait);
    if (info == NULL) {
        api_error_of(r, err);
        return;
    }
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    put_snapshot(&w, info);
    api_json(r, 201, &body);
}

static bool read_name(struct http_request *r, struct str body, struct str *out)
{
    struct err err = ERR_INIT;
    struct json *doc = json_parse(body.n > 0 ? body : STR("{}"), &err);
    const struct json_value *v = doc != NULL ? json_get(json_root(doc), "name") : NULL;
    bool ok = doc != NULL && (v == NULL || json_type_of(v) == JSON_NULL ||
                              (json_str(v, out) && out->n < SNAPSHOT_NAME_BYTES));
    if (ok)
        *out = str_of(arena_dup(http_arena(r), *out));
    json_free(&doc);
    if (!ok)
        api_error(r, 400, "validation error: name: a string of less than %d bytes is expected",
                  SNAPSHOT_NAME_BYTES);
    return ok;
}

void control_take_snapshot(void *arg, struct http_request *r, struct str body)
{
    struct api *a = arg;
    struct route route;
    struct str name = STR("");
    struct err err = ERR_INIT;
    if (!read_name(r, body, &name))
        return;
    struct sandbox *s = control_named(a, r, &route);
    struct snapshot_wait *w = s != NULL ? calloc(1, sizeof *w) : NULL;
    if (s == NULL)
        return;
    if (w == NULL) {
        api_error(r, 503, "no memory");
        return;
    }
    *w = (struct snapshot_wait){.pending.on_gone = snapshot_gone, .req = r, .snapshots = a->snapshots};
    http_set_data(r, &w->pending);
    if (snapshots_take(a->snapshots, s, name, on_snapshot, w, &err) == 0)
        return;
    http_set_data(r, NULL);
    free(w);
    api_error_of(r, &err);
}

void control_list_snapshots(struct api *a, struct http_request *r)
{
    struct snapshot_info info;
    struct str name = STR("");
    struct buf body;
    size_t cursor = 0;
    http_query_get(r, "name", &name, NULL);
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    jw_array(&w);
    while (snapshots_next(a->snapshots, &cursor, &info))
        if (name.n == 0 || str_eq_c(name, info.name))
            put_snapshot(&w, &info);
    jw_array_end(&w);
    api_json(r, 200, &body);
}

void control_delete_template(struct api *a, struct http_request *r, struct str id)
{
    if (snapshots_delete(a->snapshots, id))
        api_empty(r, 204);
    else
        api_error(r, 404, "template '%.*s' not found", STR_ARG(id));
}
