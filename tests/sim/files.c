/* Files: what was uploaded last is what a program reads that is given no input on its command line. The
 * newest of a sandbox are kept, in memory. */
#include <stdio.h>
#include <stdlib.h>

#include "http/multipart.h"
#include "sim.h"

static void file_free(struct box *b, struct box_file *f)
{
    b->sim->file_bytes -= f->data.len;
    free(f->path);
    buf_deinit(&f->data);
}

void files_drop(struct box *b)
{
    for (size_t i = 0; i < b->file_count; i++)
        file_free(b, &b->files[i]);
    b->file_count = 0;
}

static void forget(struct box *b, size_t at)
{
    file_free(b, &b->files[at]);
    b->file_count--;
    for (size_t i = at; i < b->file_count; i++)
        b->files[i] = b->files[i + 1];
}

static struct box_file *find(struct box *b, struct str path)
{
    for (size_t i = 0; i < b->file_count; i++)
        if (str_eq_c(path, b->files[i].path))
            return &b->files[i];
    return NULL;
}

/* Takes data over. */
static bool put(struct box *b, struct str path, struct buf *data)
{
    struct box_file *old = find(b, path);
    char *name = str_dup(path);
    if (name == NULL || data->failed || b->sim->file_bytes + data->len > FILES_MAX_BYTES) {
        free(name);
        buf_deinit(data);
        return false;
    }
    if (old != NULL)
        forget(b, (size_t)(old - b->files));
    else if (b->file_count == BOX_FILES)
        forget(b, 0);
    b->files[b->file_count++] = (struct box_file){.path = name, .data = *data};
    b->sim->file_bytes += data->len;
    return true;
}

/* ---- uploads ---- */

struct upload {
    struct box *b;
    struct str path; /* of the query; wins over the part's name */
    char *name;      /* of the part that is being read */
    struct buf data;
    struct json_writer w;
};

static void upload_done(struct upload *u, struct str path)
{
    struct str base = path;
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] == '/')
            base = str_make(path.p + i + 1, path.n - i - 1);
    jw_object(&u->w);
    jw_kstr(&u->w, "path", path);
    jw_kstr(&u->w, "name", base);
    jw_kcstr(&u->w, "type", "file");
    jw_object_end(&u->w);
}

static bool on_part(void *arg, struct str name, struct str filename)
{
    struct upload *u = arg;
    buf_init(&u->data, FILE_MAX_BYTES);
    u->name = str_eq_c(name, "file") ? str_dup(u->path.n > 0 ? u->path : filename) : NULL;
    return true;
}

static bool on_data(void *arg, struct str piece)
{
    struct upload *u = arg;
    return u->name == NULL || buf_str(&u->data, piece);
}

static bool on_part_end(void *arg)
{
    struct upload *u = arg;
    bool kept = true;
    if (u->name != NULL) {
        kept = put(u->b, str_of(u->name), &u->data);
        if (kept)
            upload_done(u, str_of(u->name));
    }
    u->data = (struct buf){0};
    free(u->name);
    u->name = NULL;
    return kept;
}

static bool read_parts(struct upload *u, struct str boundary, struct str body)
{
    const struct multipart_events events = {on_part, on_data, on_part_end};
    struct multipart *m = multipart_new(boundary, &events, u);
    bool good = m != NULL && multipart_feed(m, body) && multipart_complete(m);
    multipart_free(&m);
    free(u->name);
    buf_deinit(&u->data);
    return good;
}

static bool read_raw(struct upload *u, struct str body)
{
    struct buf data;
    buf_init(&data, FILE_MAX_BYTES);
    buf_str(&data, body);
    if (u->path.n == 0 || !put(u->b, u->path, &data))
        return false;
    upload_done(u, u->path);
    return true;
}

void file_post(struct box *b, struct http_request *r, struct str body)
{
    struct upload u = {.b = b};
    struct err err = ERR_INIT;
    struct str type = str_of(NULL), boundary;
    struct buf answer;
    http_query_get(r, "path", &u.path, &err);
    http_header(r, "Content-Type", &type);
    buf_init(&answer, ANSWER_MAX_BYTES);
    u.w = json_writer(&answer);
    jw_array(&u.w);
    bool parts = multipart_boundary(type, &boundary);
    bool good = parts ? read_parts(&u, boundary, body) : read_raw(&u, body);
    jw_array_end(&u.w);
    if (good) {
        api_json(r, 200, &answer);
        return;
    }
    buf_deinit(&answer);
    api_error(r, 400, "the upload is malformed, has no path, or is larger than the simulator keeps");
}

/* "bytes=a-b": what a client asks for that reads a file bit by bit. */
static bool read_range(struct http_request *r, struct str *content)
{
    struct str range, from;
    uint64_t a, b;
    if (!http_header(r, "Range", &range) || !str_starts(range, STR("bytes=")))
        return false;
    range = str_make(range.p + 6, range.n - 6);
    if (!str_split(&range, '-', &from) || !str_to_u64(from, &a) || !str_to_u64(range, &b) || b < a ||
        a >= content->n)
        return false;
    *content = str_make(content->p + a, (size_t)(b < content->n ? b + 1 - a : content->n - a));
    return true;
}

void file_get(struct box *b, struct http_request *r, struct str body)
{
    (void)body;
    struct str path = str_of(NULL);
    struct err err = ERR_INIT;
    http_query_get(r, "path", &path, &err);
    struct box_file *f = find(b, path);
    if (f == NULL) {
        api_error(r, 404, "the simulator has no file but what was uploaded last");
        return;
    }
    struct str content = buf_view(&f->data);
    bool ranged = read_range(r, &content);
    answer(r, ranged ? 206 : 200, "application/octet-stream", content);
}

/* ---- looking ---- */

static void put_entry(struct json_writer *w, struct str path, bool directory, size_t bytes)
{
    char size[24];
    snprintf(size, sizeof size, "%zu", bytes);
    jw_object(w);
    jw_kstr(w, "path", path);
    jw_kcstr(w, "type", directory ? "FILE_TYPE_DIRECTORY" : "FILE_TYPE_FILE");
    if (bytes > 0)
        jw_kcstr(w, "size", size);
    jw_object_end(w);
}

static bool is_below(struct str directory, const char *path)
{
    return str_starts(str_of(path), directory) && path[directory.n] == '/';
}

/* A directory is there when a file is below it. */
void file_stat(struct box *b, struct http_request *r, struct str body)
{
    struct json *doc = json_parse(body, NULL);
    struct str path = str_of(NULL);
    struct buf out;
    bool directory = false;
    json_str(json_get(json_root(doc), "path"), &path);
    const struct box_file *f = find(b, path);
    for (size_t i = 0; i < b->file_count; i++)
        directory = directory || is_below(path, b->files[i].path);
    if (f == NULL && !directory) {
        api_rpc_error(r, "not_found", "the simulator has no such file");
    } else {
        buf_init(&out, ANSWER_MAX_BYTES);
        struct json_writer w = json_writer(&out);
        jw_object(&w);
        jw_key(&w, "entry");
        put_entry(&w, path, f == NULL, f != NULL ? f->data.len : 0);
        jw_object_end(&w);
        api_json(r, 200, &out);
    }
    json_free(&doc);
}

/* Files only, however deep. */
void file_list(struct box *b, struct http_request *r, struct str body)
{
    struct json *doc = json_parse(body, NULL);
    struct str path = str_of(NULL);
    struct buf out;
    json_str(json_get(json_root(doc), "path"), &path);
    buf_init(&out, ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_key(&w, "entries");
    jw_array(&w);
    for (size_t i = 0; i < b->file_count; i++)
        if (is_below(path, b->files[i].path))
            put_entry(&w, str_of(b->files[i].path), false, b->files[i].data.len);
    jw_array_end(&w);
    jw_object_end(&w);
    api_json(r, 200, &out);
    json_free(&doc);
}
