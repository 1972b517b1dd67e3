/* Snapshots (snapshot.h).
 *
 * <data_dir>/snapshots/<id>/layer is the copy of a sandbox's upper layer, <id>/meta.json says what lies under
 * it. The copy is made under <id>.new, forced to disk and renamed, so what has its final name is whole. The
 * sandbox is frozen while cp runs: files are of one moment. Memory and processes are not captured.
 *
 * A deleted snapshot is `hidden` (no name, not listed) until nothing builds on its layer; then its directory
 * goes. */
#include "snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base_image.h"
#include "json/json.h"
#include "json/writer.h"
#include "tool.h"

enum { PATH_BYTES = 512, META_MAX = 65536, COLLECT_MS = 30000, TAKES_MAX = 16 };

struct snapshot {
    struct snapshot *prev, *next;
    char id[SNAPSHOT_ID_CHARS + 1], name[SNAPSHOT_NAME_BYTES];
    wall_t created_at;
    bool hidden;
    int below_count;
    char below[CELL_MAX_LAYERS]
              [SNAPSHOT_ID_CHARS + 1]; /* ids of the layers under it, uppermost first; base is implied */
};

enum take_step { TAKE_COPY, TAKE_SYNC };

/* One under way. */
struct take {
    struct take *prev, *next;
    struct snapshots *owner;
    struct snapshot *made;
    enum take_step step;
    char sandbox[SANDBOX_ID_CHARS + 1];
    snapshot_fn *fn;
    void *arg;
};

struct snapshots {
    struct cell_works *works;
    struct host *host;
    char dir[PATH_BYTES / 2];
    struct snapshot *list; /* newest first */
    struct take *takes;
    int take_count;
    struct loop_timer *collect;
};

static void path_of(const struct snapshots *t, const char *id, const char *rest, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/%s%s", t->dir, id, rest);
}

/* ---- meta.json ---- */

static int meta_write(const struct snapshots *t, const struct snapshot *s, const char *suffix,
                      struct err *err)
{
    char dir[PATH_BYTES], path[PATH_BYTES + 16];
    struct buf out;
    buf_init(&out, META_MAX);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_kcstr(&w, "id", s->id);
    jw_kcstr(&w, "name", s->name);
    jw_ktime(&w, "createdAt", s->created_at);
    jw_kbool(&w, "hidden", s->hidden);
    jw_key(&w, "below");
    jw_array(&w);
    for (int i = 0; i < s->below_count; i++)
        jw_cstr(&w, s->below[i]);
    jw_array_end(&w);
    jw_object_end(&w);
    path_of(t, s->id, suffix, dir);
    snprintf(path, sizeof path, "%s/meta.json", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && !out.failed && write(fd, out.data, out.len) == (ssize_t)out.len;
    if (fd >= 0)
        close(fd);
    buf_deinit(&out);
    return ok ? 0 : err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
}

static bool meta_parse(const struct json *doc, struct snapshot *s)
{
    const struct json_value *root = json_root(doc);
    struct str text;
    if (!json_str(json_get(root, "id"), &text) || !str_copy(text, s->id, sizeof s->id))
        return false;
    if (!json_str(json_get(root, "name"), &text) || !str_copy(text, s->name, sizeof s->name))
        return false;
    if (!json_str(json_get(root, "createdAt"), &text) || !wall_parse(text, &s->created_at))
        return false;
    if (!json_bool(json_get(root, "hidden"), &s->hidden))
        return false;
    for (const struct json_value *v = json_first(json_get(root, "below")); v != NULL; v = json_next(v)) {
        if (s->below_count == CELL_MAX_LAYERS || !json_str(v, &text))
            return false;
        if (!str_copy(text, s->below[s->below_count++], sizeof s->below[0]))
            return false;
    }
    return true;
}

static struct snapshot *meta_read(const struct snapshots *t, const char *id)
{
    char path[PATH_BYTES], text[META_MAX];
    struct err err = ERR_INIT;
    path_of(t, id, "/meta.json", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        close(fd);
    struct json *doc = n > 0 ? json_parse(str_make(text, (size_t)n), &err) : NULL;
    struct snapshot *s = doc != NULL ? calloc(1, sizeof *s) : NULL;
    if (s != NULL && (!meta_parse(doc, s) || strcmp(s->id, id) != 0)) {
        free(s);
        s = NULL;
    }
    json_free(&doc);
    return s;
}

/* ---- what is there ---- */

static int newest_first(const struct snapshot *a, const struct snapshot *b)
{
    return a->created_at.us < b->created_at.us ? 1 : a->created_at.us > b->created_at.us ? -1 : 0;
}

static void load_one(struct snapshots *t, const char *name)
{
    char path[PATH_BYTES];
    if (strchr(name, '.') != NULL) { /* <id>.new: half made, <id>.old: half removed */
        path_of(t, name, "", path);
        if (tool_remove_tree(path, NULL) != 0)
            log_warn("a half-made snapshot stays behind", LF_STR("path", path));
        return;
    }
    struct snapshot *s = meta_read(t, name);
    if (s == NULL)
        log_warn("a snapshot cannot be read", LF_STR("snapshot", name));
    else
        DL_APPEND(t->list, s);
}

static int load(struct snapshots *t, struct err *err)
{
    const struct dirent *e;
    if (mkdir(t->dir, 0700) < 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "%s: %s", t->dir, strerror(errno));
    DIR *d = opendir(t->dir);
    if (d == NULL)
        return err_set(err, ERR_IO, "%s: %s", t->dir, strerror(errno));
    while ((e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            load_one(t, e->d_name);
    closedir(d);
    DL_SORT(t->list, newest_first);
    return 0;
}

static struct snapshot *find(const struct snapshots *t, struct str name)
{
    struct snapshot *s;
    struct str head = name;
    str_split(&name, ':', &head);
    DL_FOREACH(t->list, s)
    if (!s->hidden && head.n > 0 && (str_eq_c(head, s->id) || str_eq_c(head, s->name)))
        return s;
    return NULL;
}

static bool add_layer(struct sandbox_spec *spec, const char *id)
{
    char text[PATH_BYTES];
    if (spec->layer_count == CELL_MAX_LAYERS)
        return false;
    snprintf(text, sizeof text, id[0] != '\0' ? "snapshots/%s/layer" : BASE_LAYER, id);
    spec->layers[spec->layer_count] = str_dup(str_of(text));
    return spec->layers[spec->layer_count] != NULL && ++spec->layer_count > 0;
}

bool snapshots_resolve(const struct snapshots *t, struct str name, struct sandbox_spec *spec)
{
    struct str rest = name, head = name;
    str_split(&rest, ':', &head);
    if (str_eq_c(head, BASE_LAYER))
        return add_layer(spec, "");
    const struct snapshot *s = find(t, name);
    bool ok = s != NULL && add_layer(spec, s->id);
    for (int i = 0; ok && i < s->below_count; i++)
        ok = add_layer(spec, s->below[i]);
    return ok && add_layer(spec, "");
}

bool snapshots_next(const struct snapshots *t, size_t *cursor, struct snapshot_info *out)
{
    const struct snapshot *s;
    size_t i = 0;
    DL_FOREACH(t->list, s)
    {
        if (s->hidden || i++ < *cursor)
            continue;
        *cursor = i;
        *out = (struct snapshot_info){s->id, s->name, s->created_at};
        return true;
    }
    return false;
}

/* ---- taking ---- */

static void thaw(const struct take *k)
{
    struct sandbox *s = host_find(k->owner->host, str_of(k->sandbox));
    if (s != NULL)
        cell_freeze(sandbox_cell(s), false);
}

static void take_over(struct take *k, const struct err *err)
{
    struct snapshots *t = k->owner;
    struct snapshot *s = k->made;
    struct snapshot_info info = {s->id, s->name, s->created_at};
    char path[PATH_BYTES];
    DL_DELETE(t->takes, k);
    t->take_count--;
    if (err != NULL) {
        path_of(t, s->id, ".new", path);
        tool_remove_tree(path, NULL);
    } else {
        DL_PREPEND(t->list, s);
        log_info("snapshot taken", LF_STR("snapshot", s->id), LF_STR("sandbox", k->sandbox));
    }
    if (k->fn != NULL)
        k->fn(k->arg, err == NULL ? &info : NULL, err);
    if (err != NULL)
        free(s);
    free(k);
}

static void take_failed(struct take *k, const char *what)
{
    struct err err = ERR_INIT;
    thaw(k);
    err_set(&err, ERR_IO, "the snapshot failed: %s", what);
    log_error("a snapshot failed", LF_STR("sandbox", k->sandbox), LF_ERR(&err));
    take_over(k, &err);
}

static void take_publish(struct take *k)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    path_of(k->owner, k->made->id, ".new", from);
    path_of(k->owner, k->made->id, "", to);
    if (rename(from, to) < 0)
        take_failed(k, strerror(errno));
    else
        take_over(k, NULL);
}

static void on_tool_end(void *arg, int status);

static int take_tool(struct take *k, const char *const *argv, struct err *err)
{
    pid_t pid = tool_spawn(argv, err);
    if (pid < 0)
        return -1;
    if (reaper_watch(k->owner->works->reaper, pid, on_tool_end, k) == 0)
        return 0;
    return err_set(err, ERR_NO_MEMORY, "snapshot");
}

static void take_sync(struct take *k)
{
    char path[PATH_BYTES];
    struct err err = ERR_INIT;
    thaw(k);
    path_of(k->owner, k->made->id, ".new", path);
    k->step = TAKE_SYNC;
    if (meta_write(k->owner, k->made, ".new", &err) != 0 ||
        take_tool(k, (const char *const[]){"sync", "-f", path, NULL}, &err) != 0)
        take_failed(k, err.msg);
}

static void on_tool_end(void *arg, int status)
{
    struct take *k = arg;
    if (status != 0)
        take_failed(k, k->step == TAKE_COPY ? "cp failed" : "sync failed");
    else if (k->step == TAKE_COPY)
        take_sync(k);
    else
        take_publish(k);
}

static void make_id(char out[SNAPSHOT_ID_CHARS + 1])
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    uint8_t random[SNAPSHOT_ID_CHARS];
    random_bytes(random, sizeof random);
    for (int i = 0; i < SNAPSHOT_ID_CHARS; i++)
        out[i] = alphabet[random[i] % (i == 0 ? 26 : 36)];
    out[SNAPSHOT_ID_CHARS] = '\0';
}

/* The ids in the layers of the sandbox, which end with the base. */
static void note_below(struct snapshot *made, const struct sandbox_spec *spec)
{
    for (int i = 0; i + 1 < spec->layer_count; i++) {
        struct str rest = str_of(spec->layers[i]), id;
        str_split(&rest, '/', &id);
        str_split(&rest, '/', &id);
        str_copy(id, made->below[made->below_count++], sizeof made->below[0]);
    }
}

static int take_copy(struct take *k, struct sandbox *s, struct err *err)
{
    char dir[PATH_BYTES], from[PATH_BYTES], to[PATH_BYTES + 8], upper[PATH_BYTES - 8];
    path_of(k->owner, k->made->id, ".new", dir);
    snprintf(to, sizeof to, "%s/layer", dir);
    if (mkdir(dir, 0700) < 0 || mkdir(to, 0755) < 0)
        return err_set(err, ERR_IO, "%s: %s", dir, strerror(errno));
    cell_upper_path(sandbox_cell(s), upper, sizeof upper);
    snprintf(from, sizeof from, "%s/.", upper);
    cell_freeze(sandbox_cell(s), true);
    return take_tool(k, (const char *const[]){"cp", "-a", "--", from, to, NULL}, err);
}

int snapshots_take(struct snapshots *t, struct sandbox *s, struct str name, snapshot_fn *fn, void *arg,
                   struct err *err)
{
    const struct sandbox_spec *spec = sandbox_spec_of(s);
    if (t->take_count >= TAKES_MAX)
        return err_set(err, ERR_OVERLOADED, "too many snapshots are being taken");
    if (spec->layer_count >= CELL_MAX_LAYERS)
        return err_set(err, ERR_BAD_REQUEST, "snapshots are stacked at most %d high", CELL_MAX_LAYERS - 1);
    struct take *k = calloc(1, sizeof *k);
    if (k != NULL)
        k->made = calloc(1, sizeof *k->made);
    if (k == NULL || k->made == NULL) {
        free(k);
        return err_set(err, ERR_NO_MEMORY, "snapshot");
    }
    k->owner = t;
    k->fn = fn;
    k->arg = arg;
    k->made->created_at = wall_now();
    make_id(k->made->id);
    str_copy(str_of(sandbox_id(s)), k->sandbox, sizeof k->sandbox);
    str_copy(name, k->made->name, sizeof k->made->name);
    note_below(k->made, spec);
    DL_APPEND(t->takes, k);
    t->take_count++;
    if (take_copy(k, s, err) == 0)
        return 0;
    k->fn = NULL;
    take_failed(k, err->msg);
    return -1;
}

void snapshots_forget(struct snapshots *t, const void *arg)
{
    struct take *k;
    DL_FOREACH(t->takes, k)
    if (k->arg == arg)
        k->fn = NULL;
}

/* ---- deleting ---- */

static bool below_has(const struct snapshot *s, const char *id)
{
    for (int i = 0; i < s->below_count; i++)
        if (strcmp(s->below[i], id) == 0)
            return true;
    return false;
}

static bool sandbox_has(const struct sandbox_spec *spec, const char *id)
{
    for (int i = 0; i < spec->layer_count; i++)
        if (strstr(spec->layers[i], id) != NULL)
            return true;
    return false;
}

static bool in_use(const struct snapshots *t, const char *id)
{
    const struct snapshot *s;
    const struct take *k;
    DL_FOREACH(t->list, s)
    if (below_has(s, id))
        return true;
    DL_FOREACH(t->takes, k)
    if (below_has(k->made, id))
        return true;
    return host_any(t->host, sandbox_has, id);
}

static void remove_files(const struct snapshots *t, const struct snapshot *s)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    struct err err = ERR_INIT;
    path_of(t, s->id, "", from);
    path_of(t, s->id, ".old", to);
    if (rename(from, to) < 0 || tool_spawn((const char *const[]){"rm", "-rf", "--", to, NULL}, &err) < 0)
        log_warn("a snapshot's files stay behind", LF_STR("path", from));
}

/* Removes hidden snapshots that nothing builds on; one may free the next, so until nothing changes. */
static void collect(void *arg)
{
    struct snapshots *t = arg;
    struct snapshot *s, *next;
    bool changed = true;
    while (changed) {
        changed = false;
        DL_FOREACH_SAFE(t->list, s, next)
        {
            if (!s->hidden || in_use(t, s->id))
                continue;
            remove_files(t, s);
            DL_DELETE(t->list, s);
            free(s);
            changed = true;
        }
    }
}

bool snapshots_delete(struct snapshots *t, struct str name)
{
    struct err err = ERR_INIT;
    struct snapshot *s = find(t, name);
    if (s == NULL)
        return false;
    s->hidden = true;
    if (meta_write(t, s, "", &err) != 0)
        log_warn("a deleted snapshot may come back", LF_ERR(&err));
    collect(t);
    return true;
}

/* ---- life ---- */

struct snapshots *snapshots_open(struct cell_works *works, struct err *err)
{
    struct snapshots *t = calloc(1, sizeof *t);
    if (t == NULL) {
        err_set(err, ERR_NO_MEMORY, "snapshots");
        return NULL;
    }
    t->works = works;
    snprintf(t->dir, sizeof t->dir, "%s/snapshots", works->options->data_dir);
    t->collect = loop_timer_new(works->loop, collect, t);
    if (t->collect == NULL || load(t, err) != 0)
        snapshots_close(&t);
    return t;
}

void snapshots_watch(struct snapshots *t, struct host *host)
{
    t->host = host;
    loop_timer_every(t->collect, COLLECT_MS);
}

void snapshots_close(struct snapshots **table)
{
    struct snapshots *t = *table;
    if (t == NULL)
        return;
    while (t->takes != NULL) {
        struct take *k = t->takes;
        DL_DELETE(t->takes, k);
        free(k->made);
        free(k);
    }
    while (t->list != NULL) {
        struct snapshot *s = t->list;
        DL_DELETE(t->list, s);
        free(s);
    }
    loop_timer_free(&t->collect);
    free(t);
    *table = NULL;
}
