/* POST /files: the body goes into one sink, or one for each part of a form. The body is read only as fast as
 * the sinks take it. After a failure the rest of the body is dropped and then the failure is answered: a
 * client that is still sending does not look for an answer. Files already complete stay, as on E2B. */
#include <stdio.h>
#include <stdlib.h>

#include "entry.h"
#include "files.h"
#include "http/multipart.h"
#include "sink.h"

enum { MAX_FILES = 256 };

struct upload;

struct file {
    struct upload *upload;
    struct sink *sink; /* NULL once done */
    char *asked;       /* the path as the client wrote it */
    struct wire_entry entry;
    char *path, *name;
};

struct upload {
    struct api_pending pending;
    struct http_request *req;
    struct sandbox *sandbox;
    struct str user, path;  /* in the request's arena */
    struct multipart *form; /* NULL: the body is the file */
    struct file *files[MAX_FILES];
    int count, done;
    struct file *current; /* the part that is being read */
    bool ended;           /* the body is complete */
    int failure;          /* 0, or the HTTP status to answer, with: */
    char failure_text[240];
};

static void upload_free(struct upload *u)
{
    for (int i = 0; i < u->count; i++) {
        sink_free(&u->files[i]->sink);
        free(u->files[i]->asked);
        free(u->files[i]->path);
        free(u->files[i]->name);
        free(u->files[i]);
    }
    multipart_free(&u->form);
    free(u);
}

static void upload_gone(struct api_pending *self)
{
    upload_free((struct upload *)self);
}

static void answer(struct upload *u, int status, const char *text)
{
    http_set_data(u->req, NULL);
    api_error(u->req, status, "%s", text);
    upload_free(u);
}

static void fail(struct upload *u, int status, const char *text)
{
    if (u->failure == 0) {
        u->failure = status;
        snprintf(u->failure_text, sizeof u->failure_text, "%s", text);
    }
    for (int i = 0; i < u->count; i++)
        sink_free(&u->files[i]->sink);
    u->current = NULL;
    if (u->ended)
        answer(u, u->failure, u->failure_text);
    else
        http_body_resume(u->req);
}

static void finish(struct upload *u)
{
    struct buf body;
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    jw_array(&w);
    for (int i = 0; i < u->count; i++)
        entry_put_written(&w, &u->files[i]->entry);
    jw_array_end(&w);
    http_set_data(u->req, NULL);
    api_json(u->req, 200, &body);
    upload_free(u);
}

static void on_sink_drain(void *arg)
{
    struct file *f = arg;
    for (int i = 0; i < f->upload->count; i++)
        if (f->upload->files[i]->sink != NULL && sink_waits(f->upload->files[i]->sink))
            return;
    http_body_resume(f->upload->req);
}

static void on_sink_done(void *arg, const struct wire_entry *entry, int status, const char *text)
{
    struct file *f = arg;
    struct upload *u = f->upload;
    if (entry != NULL) {
        f->path = str_dup(str_of(entry->path));
        f->name = str_dup(str_of(entry->name));
    }
    if (entry == NULL || f->path == NULL || f->name == NULL) {
        fail(u, entry == NULL ? status : 503, entry == NULL ? text : "no memory");
        return;
    }
    f->entry = (struct wire_entry){.path = f->path, .name = f->name};
    sink_free(&f->sink);
    u->done++;
    if (u->ended && u->done == u->count)
        finish(u);
}

static const struct sink_events sink_events = {on_sink_drain, on_sink_done};

/* A new file. NULL and *err. */
static struct file *file_add(struct upload *u, struct str path, struct err *err)
{
    for (int i = 0; i < u->count; i++)
        if (str_eq_c(path, u->files[i]->asked)) {
            err_set(err, ERR_BAD_REQUEST,
                    "you cannot upload multiple files to the same path '%.*s' in one request", STR_ARG(path));
            return NULL;
        }
    struct file *f = u->count < MAX_FILES ? calloc(1, sizeof *f) : NULL;
    if (f == NULL) {
        err_set(err, ERR_BAD_REQUEST, "at most %d files in one request", MAX_FILES);
        return NULL;
    }
    f->upload = u;
    f->asked = str_dup(path);
    u->files[u->count++] = f;
    f->sink = f->asked != NULL ? sink_open(u->sandbox, u->user, path, &sink_events, f, err) : NULL;
    return f->sink != NULL ? f : NULL;
}

/* ---- the body as a form ---- */

static struct err form_error; /* of the part that failed, until multipart_feed returns */

static bool on_part(void *arg, struct str name, struct str filename)
{
    struct upload *u = arg;
    u->current = NULL;
    if (!str_eq_c(name, "file"))
        return true; /* other fields are ignored */
    struct str path = u->path.n > 0 ? u->path : filename;
    if (u->path.n > 0 && u->count > 0)
        return err_set(&form_error, ERR_BAD_REQUEST,
                       "with a path in the query there must be exactly one file") == 0;
    if (path.n == 0)
        return err_set(&form_error, ERR_BAD_REQUEST, "a file has no path") == 0;
    u->current = file_add(u, path, &form_error);
    return u->current != NULL;
}

static bool on_part_data(void *arg, struct str piece)
{
    struct upload *u = arg;
    if (u->current != NULL && u->current->sink != NULL)
        sink_write(u->current->sink, piece);
    return true;
}

static bool on_part_end(void *arg)
{
    struct upload *u = arg;
    if (u->current != NULL && u->current->sink != NULL)
        sink_end(u->current->sink);
    u->current = NULL;
    return true;
}

static const struct multipart_events form_events = {on_part, on_part_data, on_part_end};

/* ---- the body ---- */

static bool any_waits(const struct upload *u)
{
    for (int i = 0; i < u->count; i++)
        if (u->files[i]->sink != NULL && sink_waits(u->files[i]->sink))
            return true;
    return false;
}

static bool on_data(void *arg, struct http_request *req, struct str piece)
{
    struct upload *u = http_data(req);
    (void)arg;
    form_error = ERR_INIT;
    if (u->failure != 0)
        return true;
    if (u->form == NULL)
        on_part_data(u, piece);
    else if (!multipart_feed(u->form, piece)) {
        fail(u, form_error.code != ERR_NONE ? err_http_status(form_error.code) : 400,
             form_error.code != ERR_NONE ? form_error.msg : "malformed multipart body");
        return true;
    }
    return !any_waits(u);
}

static void on_end(void *arg, struct http_request *req)
{
    struct upload *u = http_data(req);
    (void)arg;
    u->ended = true;
    if (u->failure != 0)
        answer(u, u->failure, u->failure_text);
    else if (u->form == NULL)
        on_part_end(u);
    else if (!multipart_complete(u->form))
        answer(u, 400, "the multipart body ends too early");
    else if (u->done == u->count)
        finish(u);
}

static bool prepare(struct upload *u, struct http_request *r, struct err *err)
{
    struct str type = STR(""), boundary;
    http_header(r, "Content-Type", &type);
    if (http_header(r, "Content-Encoding", &boundary) && !str_eq_nocase(boundary, STR("identity")))
        return err_set(err, ERR_MEDIA_TYPE, "Content-Encoding is not supported here") == 0;
    if (multipart_boundary(type, &boundary)) {
        u->form = multipart_new(boundary, &form_events, u);
        return u->form != NULL || err_set(err, ERR_NO_MEMORY, "upload") == 0;
    }
    if (u->path.n == 0)
        return err_set(err, ERR_BAD_QUERY, "path is required") == 0;
    u->current = file_add(u, u->path, err);
    return u->current != NULL;
}

void files_upload(struct api *a, struct http_request *r, struct sandbox *s, struct str path)
{
    struct err err = ERR_INIT;
    struct upload *u = calloc(1, sizeof *u);
    if (u == NULL) {
        api_error(r, 503, "no memory");
        return;
    }
    *u = (struct upload){
        .pending.on_gone = upload_gone, .req = r, .sandbox = s, .user = api_user(r), .path = path};
    if (!prepare(u, r, &err)) {
        upload_free(u);
        api_error_of(r, &err);
        return;
    }
    http_set_data(r, &u->pending);
    const struct http_body_stream stream = {.on_data = on_data, .on_end = on_end};
    /* More than fits is a full disk (507), far more is not even read (413). */
    http_stream_body(r, 2 * (size_t)a->options->disk_bytes, &stream);
}
