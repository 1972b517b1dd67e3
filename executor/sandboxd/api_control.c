/* The control plane: sandboxes, snapshots, templates. Both generations of paths are served: an SDK since 2.51
 * uses /v2/…, older ones the bare paths. What E2B has and this host has not answers 501 rather than
 * pretending. */
#include <stdlib.h>
#include <string.h>

#include "control.h"

enum {
    V1_TTL_SEC = 15,
    V2_TTL_SEC = 300,
    REFRESH_MIN_SEC = 15,
    REFRESH_MAX_SEC = 3600,
    METRICS_MAX = 100,
    MAX_PAIRS = 256,
};

bool control_cut_path(struct http_request *r, struct route *out)
{
    struct str rest = http_path(r), part;
    *out = (struct route){.version = 1};
    while (str_split(&rest, '/', &part)) {
        if (part.n == 0)
            continue;
        if (out->count == 0 && part.n == 2 && part.p[0] == 'v' && part.p[1] >= '1' && part.p[1] <= '9') {
            out->version = part.p[1] - '0';
            continue;
        }
        if (out->count == MAX_SEGMENTS || !http_decode(r, part, false, &out->seg[out->count++]))
            return false;
    }
    return true;
}

static bool route_is(const struct route *t, int count, const char *first, const char *third)
{
    return t->count == count && str_eq_c(t->seg[0], first) && (third == NULL || str_eq_c(t->seg[2], third));
}

/* ---- descriptions ---- */

static void put_created(struct json_writer *w, const struct sandbox *s)
{
    const struct sandbox_spec *spec = sandbox_spec_of(s);
    jw_object(w);
    jw_kcstr(w, "templateID", spec->template_id);
    jw_kcstr(w, "sandboxID", sandbox_id(s));
    jw_kcstr(w, "clientID", "sandpiper");
    jw_kcstr(w, "alias", spec->template_id);
    jw_kcstr(w, "envdVersion", API_ENVD_VERSION);
    if (sandbox_token(s)[0] != '\0')
        jw_kcstr(w, "envdAccessToken", sandbox_token(s));
    jw_knull(w, "trafficAccessToken");
    jw_knull(w, "domain");
    jw_object_end(w);
}

static void put_pairs(struct json_writer *w, const char *key, const struct pairs *p)
{
    jw_key(w, key);
    jw_object(w);
    for (size_t i = 0; i < p->count; i++) {
        jw_key_str(w, str_of(p->items[i].name));
        jw_cstr(w, p->items[i].value);
    }
    jw_object_end(w);
}

void control_put_listed(struct json_writer *w, const struct api *a, const struct sandbox *s)
{
    const struct sandbox_spec *spec = sandbox_spec_of(s);
    jw_object(w);
    jw_kcstr(w, "templateID", spec->template_id);
    jw_kcstr(w, "alias", spec->template_id);
    jw_kcstr(w, "sandboxID", sandbox_id(s));
    jw_kcstr(w, "clientID", "sandpiper");
    jw_ktime(w, "startedAt", sandbox_started_at(s));
    jw_ktime(w, "endAt", sandbox_ends_at(s));
    jw_kint(w, "cpuCount", a->options->cpus);
    jw_kint(w, "memoryMB", a->options->memory_bytes >> 20);
    jw_kint(w, "diskSizeMB", a->options->disk_bytes >> 20);
    jw_kcstr(w, "state", "running");
    jw_kcstr(w, "envdVersion", API_ENVD_VERSION);
    put_pairs(w, "metadata", &spec->metadata);
}

static void put_detail(struct json_writer *w, const struct api *a, const struct sandbox *s)
{
    control_put_listed(w, a, s);
    if (sandbox_token(s)[0] != '\0')
        jw_kcstr(w, "envdAccessToken", sandbox_token(s));
    jw_knull(w, "domain");
    jw_kbool(w, "allowInternetAccess", sandbox_spec_of(s)->network);
    jw_key(w, "lifecycle");
    jw_object(w);
    jw_kbool(w, "autoResume", false);
    jw_kcstr(w, "onTimeout", "kill");
    jw_object_end(w);
    jw_object_end(w);
}

/* ---- create ---- */

struct creation {
    struct api_pending pending;
    struct http_request *req;
    struct sandbox *sandbox;
};

static void creation_gone(struct api_pending *self)
{
    struct creation *c = (struct creation *)self;
    sandbox_abandon(c->sandbox);
    free(c);
}

static void on_created(void *arg, struct sandbox *s, const struct err *err)
{
    struct creation *c = arg;
    struct http_request *r = c->req;
    struct buf body;
    http_set_data(r, NULL);
    free(c);
    if (s == NULL) {
        api_error(r, 503, "Failed to place sandbox: %s", err->msg);
        return;
    }
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    put_created(&w, s);
    api_json(r, 201, &body);
}

static bool read_pairs(const struct json_value *object, struct pairs *out)
{
    struct str value;
    if (object == NULL || json_type_of(object) == JSON_NULL)
        return true;
    if (json_type_of(object) != JSON_OBJECT || json_count(object) > MAX_PAIRS)
        return false;
    for (const struct json_value *v = json_first(object); v != NULL; v = json_next(v))
        if (!json_str(v, &value) || !pairs_add(out, json_key(v), value))
            return false;
    return true;
}

/* A field that asks for something this host has not: true, {…} or […]; false, null and empty ones are fine.
 */
static bool asks(const struct json_value *root, const char *key)
{
    const struct json_value *v = json_get(root, key);
    bool yes = false;
    json_bool(v, &yes);
    return yes || ((json_type_of(v) == JSON_OBJECT || json_type_of(v) == JSON_ARRAY) && json_count(v) > 0);
}

static const char *unsupported(const struct json_value *root)
{
    static const char *const keys[] = {"autoPause", "network", "mcp", "iam", "volumeMounts"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (asks(root, keys[i]))
            return keys[i];
    return NULL;
}

/* Fills the spec; answers and returns false when it cannot. */
static bool read_create(struct api *a, struct http_request *r, const struct json *doc, int version,
                        struct sandbox_spec *spec)
{
    const struct json_value *root = json_root(doc);
    int64_t ttl_sec = version >= 2 ? V2_TTL_SEC : V1_TTL_SEC;
    struct str template;
    const char *missing = unsupported(root);
    spec->network = true;
    spec->secure = version >= 2;
    if (missing != NULL) {
        api_error(r, 501, "%s is not available on this host", missing);
    } else if (!json_str(json_get(root, "templateID"), &template) || template.n == 0 || template.n > 256) {
        api_error(r, 400, "validation error: templateID is required");
    } else if (json_get(root, "timeout") != NULL &&
               (!json_int(doc, json_get(root, "timeout"), &ttl_sec) || ttl_sec <= 0)) {
        api_error(r, 400, "validation error: timeout: a positive integer is expected");
    } else if (ttl_sec > a->options->max_ttl_ms / 1000) {
        api_error(r, 400, "Timeout cannot be greater than %lld hours",
                  (long long)a->options->max_ttl_ms / 3600000);
    } else if (!read_pairs(json_get(root, "metadata"), &spec->metadata) ||
               !read_pairs(json_get(root, "envVars"), &spec->env)) {
        api_error(r, 400, "validation error: metadata, envVars: objects of strings are expected");
    } else if (!snapshots_resolve(a->snapshots, template, spec)) {
        api_error(r, 404, "template '%.*s' not found", STR_ARG(template));
    } else {
        if (version < 2)
            json_bool(json_get(root, "secure"), &spec->secure);
        json_bool(json_get(root, "allow_internet_access"), &spec->network);
        spec->ttl_ms = ttl_sec * 1000;
        spec->template_id = str_dup(template);
        return spec->template_id != NULL;
    }
    return false;
}

static void start_creation(struct api *a, struct http_request *r, struct sandbox_spec *spec)
{
    struct err err = ERR_INIT;
    struct creation *c = calloc(1, sizeof *c);
    if (c == NULL) {
        sandbox_spec_free(spec);
        api_error(r, 503, "no memory");
        return;
    }
    *c = (struct creation){.pending.on_gone = creation_gone, .req = r};
    if (sandbox_create(a->host, spec, on_created, c, &c->sandbox, &err) == 0) {
        http_set_data(r, &c->pending);
        return;
    }
    free(c);
    api_error_of(r, &err);
}

static void create(void *arg, struct http_request *r, struct str body)
{
    struct api *a = arg;
    struct err err = ERR_INIT;
    struct route route;
    struct sandbox_spec spec = {0};
    struct json *doc = json_parse(body, &err);
    if (doc == NULL) {
        api_error(r, 400, "validation error: %s", err.msg);
        return;
    }
    control_cut_path(r, &route);
    if (read_create(a, r, doc, route.version, &spec))
        start_creation(a, r, &spec);
    else
        sandbox_spec_free(&spec);
    json_free(&doc);
}

/* ---- one sandbox ---- */

static struct sandbox *find(struct api *a, struct http_request *r, struct str id)
{
    struct sandbox *s = host_find(a->host, id);
    if (s == NULL)
        api_error(r, 404, "Sandbox \"%.*s\" doesn't exist or you don't have access to it", STR_ARG(id));
    return s;
}

static void read_one(struct api *a, struct http_request *r, struct str id)
{
    struct sandbox *s = find(a, r, id);
    struct buf body;
    if (s == NULL)
        return;
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    put_detail(&w, a, s);
    api_json(r, 200, &body);
}

static void kill_one(struct api *a, struct http_request *r, struct str id)
{
    struct sandbox *s = find(a, r, id);
    if (s == NULL)
        return;
    sandbox_kill(&s, "killed by its client");
    api_empty(r, 204);
}

/* An integer member of a small body; dflt when absent. Answers and returns false when it is something else.
 */
static bool read_number(struct http_request *r, struct str body, const char *key, int64_t dflt, int64_t *out)
{
    struct err err = ERR_INIT;
    struct json *doc = json_parse(body.n > 0 ? body : STR("{}"), &err);
    const struct json_value *v = doc != NULL ? json_get(json_root(doc), key) : NULL;
    bool ok = doc != NULL && (v == NULL ? dflt >= 0 : json_int(doc, v, out));
    if (v == NULL)
        *out = dflt;
    json_free(&doc);
    if (!ok)
        api_error(r, 400, "validation error: %s: an integer is expected", key);
    return ok;
}

struct sandbox *control_named(struct api *a, struct http_request *r, struct route *route)
{
    return control_cut_path(r, route) && route->count >= 2 ? find(a, r, route->seg[1]) : NULL;
}

static bool within_max(struct api *a, struct http_request *r, int64_t sec)
{
    if (sec <= a->options->max_ttl_ms / 1000)
        return true;
    api_error(r, 400, "Timeout cannot be greater than %lld hours",
              (long long)a->options->max_ttl_ms / 3600000);
    return false;
}

static void set_timeout(void *arg, struct http_request *r, struct str body)
{
    struct route route;
    int64_t sec;
    if (!read_number(r, body, "timeout", -1, &sec))
        return;
    struct sandbox *s = control_named(arg, r, &route);
    if (s == NULL || !within_max(arg, r, sec))
        return;
    sandbox_set_ttl(s, sec > 0 ? sec * 1000 : 0);
    api_empty(r, 204);
}

/* Never shortens. */
static void extend(struct sandbox *s, int64_t sec)
{
    if (wall_now().us + sec * 1000000 > sandbox_ends_at(s).us)
        sandbox_set_ttl(s, sec * 1000);
}

static void refresh(void *arg, struct http_request *r, struct str body)
{
    struct route route;
    int64_t sec;
    if (!read_number(r, body, "duration", REFRESH_MIN_SEC, &sec))
        return;
    struct sandbox *s = control_named(arg, r, &route);
    if (s == NULL)
        return;
    extend(s, sec < REFRESH_MIN_SEC ? REFRESH_MIN_SEC : sec > REFRESH_MAX_SEC ? REFRESH_MAX_SEC : sec);
    api_empty(r, 204);
}

static void connect_one(void *arg, struct http_request *r, struct str body)
{
    struct route route;
    struct buf out;
    int64_t sec;
    if (!read_number(r, body, "timeout", V2_TTL_SEC, &sec))
        return;
    struct sandbox *s = control_named(arg, r, &route);
    if (s == NULL || !within_max(arg, r, sec))
        return;
    extend(s, sec > 0 ? sec : 0);
    buf_init(&out, API_MAX_ANSWER);
    struct json_writer w = json_writer(&out);
    put_created(&w, s);
    api_json(r, 200, &out);
}

/* ---- metrics: one sample, of now ---- */

static void put_metrics(struct json_writer *w, const struct api *a, struct sandbox *s)
{
    struct cgroup_usage usage;
    wall_t now = wall_now();
    int64_t age_us = now.us - sandbox_started_at(s).us;
    cell_usage(sandbox_cell(s), &usage);
    jw_object(w);
    jw_ktime(w, "timestamp", now);
    jw_kint(w, "timestampUnix", now.us / 1000000);
    jw_kint(w, "cpuCount", a->options->cpus);
    jw_key(w, "cpuUsedPct");
    jw_double(w, age_us > 0 && usage.cpu_us >= 0 ? 100.0 * (double)usage.cpu_us / (double)age_us : 0);
    jw_kint(w, "memUsed", usage.memory_bytes >= 0 ? usage.memory_bytes : 0);
    jw_kint(w, "memTotal", a->options->memory_bytes);
    jw_kint(w, "memCache", 0);
    int64_t disk = cell_disk_used(sandbox_cell(s));
    jw_kint(w, "diskUsed", disk >= 0 ? disk : 0);
    jw_kint(w, "diskTotal", a->options->disk_bytes);
    jw_kint(w, "cpuUsedMs", usage.cpu_us >= 0 ? usage.cpu_us / 1000 : 0);
    jw_kint(w, "memoryPeakBytes", usage.memory_peak_bytes >= 0 ? usage.memory_peak_bytes : 0);
    jw_kint(w, "oomKills", usage.oom_kills >= 0 ? usage.oom_kills : 0);
    jw_object_end(w);
}

static void metrics_one(struct api *a, struct http_request *r, struct str id)
{
    struct sandbox *s = find(a, r, id);
    struct buf body;
    if (s == NULL)
        return;
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    jw_array(&w);
    put_metrics(&w, a, s);
    jw_array_end(&w);
    api_json(r, 200, &body);
}

static void metrics_many(struct api *a, struct http_request *r)
{
    struct str ids = STR(""), id;
    struct buf body;
    http_query_get(r, "sandbox_ids", &ids, NULL);
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_key(&w, "sandboxes");
    jw_object(&w);
    for (int i = 0; i < METRICS_MAX && str_split(&ids, ',', &id); i++) {
        struct sandbox *s = host_find(a->host, id);
        if (s == NULL)
            continue;
        jw_key_str(&w, id);
        put_metrics(&w, a, s);
    }
    jw_object_end(&w);
    jw_object_end(&w);
    api_json(r, 200, &body);
}

/* ---- routing ---- */

static void logs(struct api *a, struct http_request *r, struct str id, int version)
{
    if (find(a, r, id) == NULL)
        return;
    http_reply(r, 200, "application/json",
               version >= 2 ? STR("{\"logs\":[]}") : STR("{\"logs\":[],\"logEntries\":[]}"));
}

static bool route_get(struct api *a, struct http_request *r, const struct route *t)
{
    if (route_is(t, 1, "sandboxes", NULL))
        control_list(a, r, t->version);
    else if (route_is(t, 2, "sandboxes", NULL) && str_eq_c(t->seg[1], "metrics"))
        metrics_many(a, r);
    else if (route_is(t, 2, "sandboxes", NULL))
        read_one(a, r, t->seg[1]);
    else if (route_is(t, 3, "sandboxes", "metrics"))
        metrics_one(a, r, t->seg[1]);
    else if (route_is(t, 3, "sandboxes", "logs"))
        logs(a, r, t->seg[1], t->version);
    else if (route_is(t, 1, "snapshots", NULL))
        control_list_snapshots(a, r);
    else
        return false;
    return true;
}

static bool route_post(struct api *a, struct http_request *r, const struct route *t)
{
    http_body_fn *fn = NULL;
    if (route_is(t, 1, "sandboxes", NULL))
        fn = create;
    else if (route_is(t, 3, "sandboxes", "timeout"))
        fn = set_timeout;
    else if (route_is(t, 3, "sandboxes", "refreshes"))
        fn = refresh;
    else if (route_is(t, 3, "sandboxes", "connect"))
        fn = connect_one;
    else if (route_is(t, 3, "sandboxes", "snapshots"))
        fn = control_take_snapshot;
    if (fn != NULL)
        http_read_body(r, API_MAX_BODY, fn, a);
    return fn != NULL;
}

static bool route_delete(struct api *a, struct http_request *r, const struct route *t)
{
    if (route_is(t, 2, "sandboxes", NULL))
        kill_one(a, r, t->seg[1]);
    else if (route_is(t, 2, "templates", NULL))
        control_delete_template(a, r, t->seg[1]);
    else
        return false;
    return true;
}

/* Parts of E2B that exist there but not here. */
static bool is_elsewhere(const struct route *t)
{
    static const char *const firsts[] = {"sandboxes", "templates", "snapshots", "teams",
                                         "events",    "volumes",   "secrets"};
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++)
        if (t->count > 0 && str_eq_c(t->seg[0], firsts[i]))
            return true;
    return false;
}

void control_request(struct api *a, struct http_request *r)
{
    struct route t;
    enum http_method m = http_method_of(r);
    bool done = false;
    if (!control_cut_path(r, &t)) {
        api_error(r, 400, "malformed path");
        return;
    }
    if (m == HTTP_M_GET || m == HTTP_M_HEAD)
        done = route_get(a, r, &t);
    else if (m == HTTP_M_POST)
        done = route_post(a, r, &t);
    else if (m == HTTP_M_DELETE)
        done = route_delete(a, r, &t);
    if (done)
        return;
    if (is_elsewhere(&t))
        api_error(r, 501, "this call is not available on this host");
    else
        api_error(r, 404, "not found");
}
