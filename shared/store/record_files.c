/* The files of a record: rows of sandpiper_files() made members. */
#include "store/record_files.h"

#include <string.h>

#include "json/json.h"
#include "model/file_path.h"

/* A byte of a path takes three at most. */
enum { URL_BYTES = ID_TEXT_BYTES + 64 + 3 * FILE_PATH_MAX };

void record_path_encode(struct str path, struct buf *out)
{
    for (size_t i = 0; i < path.n; i++) {
        unsigned char c = (unsigned char)path.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     (c != '\0' && strchr("-._~/", c) != NULL);
        if (plain)
            buf_byte(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}

static void write_url(const struct record *r, struct str path, struct json_writer *w)
{
    char id[ID_TEXT_BYTES];
    struct buf url;
    buf_init(&url, URL_BYTES);
    id_format("inv", r->id, id);
    buf_printf(&url, "/v1/invocations/%s/artifacts/", id);
    record_path_encode(path, &url);
    jw_kstr(w, "url", buf_view(&url));
    buf_deinit(&url);
}

/* One row: [path, bytes, sha256]. */
static void write_file(const struct record *r, const struct json *doc, const struct json_value *row,
                       bool with_url, struct json_writer *w)
{
    const struct json_value *v = json_first(row);
    struct str path = str_of(NULL), sha256 = str_of(NULL);
    int64_t bytes = 0;
    json_str(v, &path);
    v = json_next(v);
    json_int(doc, v, &bytes);
    json_str(json_next(v), &sha256);
    jw_object(w);
    jw_kstr(w, "path", path);
    jw_kint(w, "bytes", bytes);
    jw_kstr(w, "sha256", sha256);
    if (with_url)
        write_url(r, path, w);
    jw_object_end(w);
}

static void write_list(const struct record *r, const char *key, struct str rows, bool with_url,
                       struct json_writer *w)
{
    struct json *doc = rows.n > 0 ? json_parse(rows, NULL) : NULL;
    jw_key(w, key);
    jw_array(w);
    for (const struct json_value *v = json_first(json_root(doc)); doc != NULL && v != NULL; v = json_next(v))
        write_file(r, doc, v, with_url, w);
    jw_array_end(w);
    json_free(&doc);
}

void record_files_write(const struct record *r, struct json_writer *w)
{
    write_list(r, "files", r->files, false, w);
}

void record_artifacts_write(const struct record *r, struct json_writer *w)
{
    write_list(r, "artifacts", r->artifacts, true, w);
    jw_kbool(w, "artifacts_truncated", r->artifacts_truncated);
}
