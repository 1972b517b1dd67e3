/* The files of a submission. They are stored under an id of their own before the submission is committed, so
 * a 2xx stands for them, too; one that comes to nothing takes them along (file_intake.h).
 *
 * A form is read as it comes. After a fault of the caller's the rest of it is swallowed before the answer:
 * who is still sending does not look for one. */
#include "submit_files.h"

#include <stdlib.h>

#include "http/multipart.h"
#include "json/json.h"

enum { FORM_OVERHEAD_BYTES = 1024 * 1024 /* boundaries and headers of parts */ };

/* ---- what both kinds have in common ---- */

static void resolve(struct submit *s)
{
    target_resolve(s->c->g->targets, s->c, s->agent.slug, s->agent.version, submit_target);
}

static void on_stored(void *arg)
{
    resolve(arg);
}

static void on_failed(void *arg, const struct err *err)
{
    struct submit *s = arg;
    call_fail(s->c, err);
}

static void on_room(void *arg)
{
    struct submit *s = arg;
    if (s->form != NULL && s->c->req != NULL)
        http_body_resume(s->c->req);
}

static const struct file_intake_events intake_events = {on_room, on_stored, on_failed};

static int begin_intake(struct submit *s, struct err *err)
{
    if (s->files == NULL)
        s->files = file_intake_new(s->c, &intake_events, s, err);
    return s->files != NULL ? 0 : -1;
}

/* ---- in the document ---- */

static int read_mode(const struct json_value *v, int *mode, struct err *err)
{
    struct str text;
    *mode = FILE_MODE_PLAIN;
    if (v == NULL)
        return 0;
    if (!json_str(v, &text) || !(str_eq_c(text, "0644") || str_eq_c(text, "0755")))
        return err_set(err, ERR_BAD_FIELD, "mode of a file must be \"0644\" or \"0755\"");
    *mode = str_eq_c(text, "0755") ? FILE_MODE_PROGRAM : FILE_MODE_PLAIN;
    return 0;
}

/* Its content, into `bytes` when it has to be decoded. */
static int read_content(const struct json_value *file, struct buf *bytes, size_t *total, struct str *out,
                        struct err *err)
{
    const struct json_value *text = json_get(file, "content"), *base64 = json_get(file, "content_base64");
    if ((text == NULL) == (base64 == NULL))
        return err_set(err, ERR_BAD_FIELD, "a file has either content or content_base64");
    if (!json_str(text != NULL ? text : base64, out))
        return err_set(err, ERR_BAD_FIELD, "the content of a file must be a string");
    *total += out->n;
    if (*total > FILES_INLINE_MAX_BYTES)
        return err_set(
            err, ERR_FILES_TOO_LARGE,
            "files in the document exceed 1 MiB together; send larger ones as multipart/form-data");
    if (base64 == NULL)
        return 0;
    buf_clear(bytes);
    if (!crypto_unbase64(*out, bytes))
        return err_set(err, ERR_BAD_FIELD, "content_base64 of a file is not base64");
    *out = buf_view(bytes);
    return 0;
}

static int take_inline(struct submit *s, const struct json_value *file, struct buf *bytes, size_t *total,
                       struct err *err)
{
    static const char *const known[] = {"path", "content", "content_base64", "mode", NULL};
    struct str path, content;
    int mode;
    if (json_type_of(file) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "files must be an array of objects");
    if (json_known_fields(file, known, err) != 0)
        return err_wrap(err, "files");
    if (!json_str(json_get(file, "path"), &path))
        return err_set(err, ERR_MISSING_FIELD, "a file needs a path");
    if (read_mode(json_get(file, "mode"), &mode, err) != 0 ||
        read_content(file, bytes, total, &content, err) != 0 ||
        file_intake_begin(s->files, path, mode, err) != 0 || file_intake_put(s->files, content, err) != 0)
        return -1;
    file_intake_end(s->files);
    return 0;
}

void submit_inline_files(struct submit *s)
{
    const struct json_value *files = json_get(json_root(s->doc), "files");
    struct err err = ERR_INIT;
    struct buf bytes;
    size_t total = 0;
    int rc = 0;
    if (json_type_of(files) != JSON_ARRAY) {
        call_fail_code(s->c, ERR_BAD_FIELD, "files must be an array");
        return;
    }
    if (json_count(files) == 0) {
        resolve(s);
        return;
    }
    buf_init(&bytes, FILES_INLINE_MAX_BYTES);
    rc = begin_intake(s, &err);
    for (const struct json_value *f = json_first(files); rc == 0 && f != NULL; f = json_next(f))
        rc = take_inline(s, f, &bytes, &total, &err);
    buf_deinit(&bytes);
    if (rc == 0)
        file_intake_finish(s->files);
    else
        call_fail(s->c, &err);
}

/* ---- as a form ---- */

enum part { PART_NONE, PART_INVOCATION, PART_FILE };

struct form {
    struct submit *s;
    struct multipart *parser;
    enum part part;
    bool has_invocation;
    struct buf text; /* of the part `invocation`; the document's views lead into it */
    struct crypto_sha256_state hash;
    struct err err; /* the first fault; what follows is swallowed */
};

void submit_form_free(struct form **form)
{
    struct form *f = *form;
    *form = NULL;
    if (f == NULL)
        return;
    if (f->parser != NULL)
        multipart_free(&f->parser);
    buf_deinit(&f->text);
    free(f);
}

static bool on_part(void *arg, struct str name, struct str filename)
{
    struct form *f = arg;
    if (!f->has_invocation && !str_eq_c(name, "invocation"))
        return err_set(&f->err, ERR_BAD_REQUEST,
                       "the form's first part must be \"invocation\", the submission as JSON") == 0;
    if (!f->has_invocation) {
        f->has_invocation = true;
        f->part = PART_INVOCATION;
        return true;
    }
    if (!str_eq_c(name, "files"))
        return err_set(
                   &f->err, ERR_BAD_REQUEST,
                   "after the part \"invocation\" there may be parts \"files\" only, each with a filename") ==
               0;
    f->part = PART_FILE;
    return file_intake_begin(f->s->files, filename, FILE_MODE_PLAIN, &f->err) == 0;
}

static bool on_part_data(void *arg, struct str piece)
{
    struct form *f = arg;
    if (f->part == PART_FILE)
        return file_intake_put(f->s->files, piece, &f->err) == 0;
    return buf_str(&f->text, piece) ||
           err_set(&f->err, ERR_BODY_TOO_LARGE, "the part \"invocation\" exceeds %d bytes",
                   INV_BODY_MAX_BYTES) == 0;
}

static bool read_invocation(struct form *f)
{
    struct submit *s = f->s;
    s->doc = json_parse(buf_view(&f->text), &f->err);
    if (s->doc == NULL || submit_read(s, &f->err) != 0)
        return false;
    if (json_get(json_root(s->doc), "files") != NULL)
        return err_set(&f->err, ERR_BAD_FIELD,
                       "the files of a form are its parts: leave out \"files\" of the document") == 0;
    return true;
}

static bool on_part_end(void *arg)
{
    struct form *f = arg;
    enum part part = f->part;
    f->part = PART_NONE;
    if (part == PART_INVOCATION)
        return read_invocation(f);
    file_intake_end(f->s->files);
    return true;
}

static const struct multipart_events form_events = {on_part, on_part_data, on_part_end};

static bool on_data(void *arg, struct http_request *req, struct str piece)
{
    (void)req;
    struct form *f = arg;
    if (f->s->key != NULL)
        crypto_sha256_update(&f->hash, piece);
    if (f->err.code != ERR_NONE)
        return true;
    if (!multipart_feed(f->parser, piece) && f->err.code == ERR_NONE)
        err_set(&f->err, ERR_BAD_REQUEST, "the form is malformed");
    return f->err.code != ERR_NONE || !file_intake_waits(f->s->files);
}

static void on_end(void *arg, struct http_request *req)
{
    (void)req;
    struct form *f = arg;
    struct submit *s = f->s;
    crypto_sha256_final(&f->hash, s->sub.fingerprint);
    if (f->err.code == ERR_NONE && !multipart_complete(f->parser))
        err_set(&f->err, ERR_BAD_REQUEST, "the form ends too early: its closing boundary is missing");
    if (f->err.code == ERR_NONE && !f->has_invocation)
        err_set(&f->err, ERR_MISSING_FIELD, "the form has no part \"invocation\"");
    if (f->err.code != ERR_NONE) {
        call_fail(s->c, &f->err);
    } else if (file_intake_count(s->files) > 0) {
        file_intake_finish(s->files);
    } else {
        file_intake_free(&s->files);
        resolve(s);
    }
}

bool submit_is_form(const struct call *c)
{
    struct str type, form = STR("multipart/form-data");
    return http_header(c->req, "Content-Type", &type) && type.n >= form.n &&
           str_eq_nocase(str_make(type.p, form.n), form);
}

static int begin_form(struct submit *s, struct err *err)
{
    struct str type, boundary;
    struct form *f = calloc(1, sizeof *f);
    s->form = f;
    if (f == NULL)
        return err_set(err, ERR_OVERLOADED, "no memory");
    f->s = s;
    f->err = ERR_INIT;
    buf_init(&f->text, INV_BODY_MAX_BYTES);
    crypto_sha256_init(&f->hash);
    crypto_sha256_update(&f->hash, STR("POST /v1/invocations\n"));
    if (!http_header(s->c->req, "Content-Type", &type) || !multipart_boundary(type, &boundary))
        return err_set(err, ERR_MEDIA_TYPE, "multipart/form-data needs a boundary");
    f->parser = multipart_new(boundary, &form_events, f);
    return f->parser != NULL ? begin_intake(s, err) : err_set(err, ERR_OVERLOADED, "no memory");
}

void submit_form(struct submit *s)
{
    struct err err = ERR_INIT;
    if (begin_form(s, &err) != 0) {
        call_fail(s->c, &err);
        return;
    }
    const struct http_body_stream stream = {.on_data = on_data, .on_end = on_end, .arg = s->form};
    int64_t max = s->c->g->settings->max_files_bytes + INV_BODY_MAX_BYTES + FORM_OVERHEAD_BYTES;
    http_stream_body(s->c->req, (size_t)max, &stream);
}
