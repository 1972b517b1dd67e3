/* Calls: lifetime and answers. */
#include "call.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "json/writer.h"

enum { PROBLEM_BYTES = 4096, RETRY_AFTER_SEC = 1 };

struct call *call_new(struct gateway *g, struct http_request *req)
{
    struct call *c = calloc(1, sizeof *c);
    if (c != NULL)
        *c = (struct call){.g = g, .req = req};
    return c;
}

static void call_free_if_done(struct call *c)
{
    if (!c->ended || c->pending > 0)
        return;
    if (c->free_data != NULL)
        c->free_data(c->data);
    free(c);
}

void call_enter(struct call *c)
{
    c->pending++;
}

bool call_leave(struct call *c)
{
    INVARIANT(c->pending > 0);
    c->pending--;
    bool alive = !c->ended;
    call_free_if_done(c);
    return alive;
}

static void count(struct call *c, int status)
{
    int row = status < 400 ? M_REQUESTS_2XX : status < 500 ? M_REQUESTS_4XX : M_REQUESTS_5XX;
    metric_add(&c->g->metrics.row[row], 1);
}

static void end(struct call *c)
{
    c->req = NULL;
    c->ended = true;
    call_free_if_done(c);
}

void call_reply_bytes(struct call *c, int status, const char *type, struct str body)
{
    count(c, status);
    if (c->req != NULL)
        http_reply(c->req, status, type, body);
    end(c);
}

void call_reply_json(struct call *c, int status, struct buf *body)
{
    if (body->failed) {
        buf_deinit(body);
        call_fail_code(c, ERR_INTERNAL, "the answer exceeds its limit");
        return;
    }
    buf_byte(body, '\n');
    call_reply_bytes(c, status, "application/json", buf_view(body));
    buf_deinit(body);
}

void call_streamed(struct call *c, int status)
{
    count(c, status);
    end(c);
}

const char *problem_body(enum err_code code, const char *detail, struct buf *out)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_key(&w, "type");
    jw_raw(&w, str_of("\"/problems/"));
    buf_cstr_append(out, err_code_name(code));
    buf_byte(out, '"');
    jw_kcstr(&w, "title", err_public_text(code));
    jw_kint(&w, "status", err_http_status(code));
    jw_kcstr(&w, "code", err_code_name(code));
    if (detail != NULL && detail[0] != '\0')
        jw_kcstr(&w, "detail", detail);
    jw_object_end(&w);
    buf_byte(out, '\n');
    return "application/problem+json";
}

void call_fail_code(struct call *c, enum err_code code, const char *detail)
{
    struct buf body;
    buf_init(&body, PROBLEM_BYTES);
    const char *type = problem_body(code, detail, &body);
    if (c->req != NULL && err_http_status(code) == 401)
        http_set_header(c->req, "WWW-Authenticate", STR("Bearer realm=\"sandpiper\""));
    if (c->req != NULL && err_retry_class(code) == RETRY_LATER)
        http_set_header_int(c->req, "Retry-After", RETRY_AFTER_SEC);
    call_reply_bytes(c, err_http_status(code), type, buf_view(&body));
    buf_deinit(&body);
}

void call_fail_unknown(struct call *c, const char *where)
{
    char detail[400];
    snprintf(detail, sizeof detail, "the database did not confirm the commit; look at %s", where);
    if (c->req != NULL) {
        http_set_header(c->req, "Location", str_of(where));
        http_set_header_int(c->req, "Retry-After", RETRY_AFTER_SEC);
    }
    call_fail_code(c, ERR_OUTCOME_UNKNOWN, detail);
}

static void fail_unknown_here(struct call *c, const struct err *err)
{
    char path[256] = "";
    if (c->req != NULL)
        str_copy(http_path(c->req), path, sizeof path);
    log_warn("whether a request was committed is not known", LF_ERR(err));
    call_fail_unknown(c, path);
}

/* What a library says of its peers is for logs; callers get the public text of what it means for them. */
void call_fail(struct call *c, const struct err *err)
{
    switch ((int)err->code) {
    case ERR_PG:
    case ERR_REDIS:
    case ERR_TIMEOUT:
    case ERR_IO:
    case ERR_PROTOCOL:
        log_warn("request failed on a dependency", LF_ERR(err));
        call_fail_code(c, ERR_UNAVAILABLE, NULL);
        return;
    case ERR_OUTCOME_UNKNOWN:
        fail_unknown_here(c, err);
        return;
    case ERR_NO_MEMORY:
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    case ERR_PG_DATA:
        log_warn("the database refused a request's values", LF_ERR(err));
        call_fail_code(c, ERR_BAD_REQUEST, "a value cannot be stored");
        return;
    case ERR_LIMIT:
    case ERR_CANCELED:
    case ERR_CONFIG:
        log_error("request failed on an unexpected error", LF_ERR(err));
        call_fail_code(c, ERR_INTERNAL, NULL);
        return;
    default:
        call_fail_code(c, err->code, err->msg);
    }
}

void call_fail_query(struct call *c, const struct err *err)
{
    struct err known = *err;
    if (known.code == ERR_OUTCOME_UNKNOWN)
        known.code = ERR_PG;
    call_fail(c, &known);
}

int call_json_type(const struct call *c, struct err *err)
{
    struct str type;
    if (!http_header(c->req, "Content-Type", &type))
        return 0; /* what curl -d and many clients leave out or get wrong is only checked when it is another
                     format */
    struct str rest = type, media;
    str_split(&rest, ';', &media);
    media = str_trim(media);
    if (str_eq_nocase(media, STR("application/json")) ||
        str_eq_nocase(media, STR("application/x-www-form-urlencoded")))
        return 0;
    return err_set(err, ERR_MEDIA_TYPE, "the body must be application/json");
}

void call_client_gone(struct call *c)
{
    c->req = NULL;
    if (c->gone != NULL)
        c->gone(c);
    end(c);
}
