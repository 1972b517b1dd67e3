/* /files: who may, which file, which direction.
 *
 * A request either carries the sandbox's token or is signed with it (E2B's upload and download URLs). A
 * signed URL opened by a browser names no sandbox; then the one whose token the signature fits is meant. */
#include <stdio.h>
#include <time.h>

#include "crypto/crypto.h"
#include "files.h"

enum { SIGNATURE_BYTES = 128, TEXT_MAX = 8192 };

/* "v1_" + base64 without padding of SHA-256(path:op:user:token[:expiration]). */
static bool signature_fits(const char *token, struct str path, const char *op, struct str user,
                           struct str expiration, struct str given)
{
    uint8_t hash[SHA256_BYTES];
    struct buf text, want;
    buf_init(&text, TEXT_MAX);
    buf_init(&want, SIGNATURE_BYTES);
    buf_printf(&text, "%.*s:%s:%.*s:%s", STR_ARG(path), op, STR_ARG(user), token);
    if (expiration.n > 0)
        buf_printf(&text, ":%.*s", STR_ARG(expiration));
    crypto_sha256(buf_view(&text), hash);
    buf_str(&want, STR("v1_"));
    crypto_base64(str_make((const char *)hash, sizeof hash), &want);
    while (want.len > 0 && want.data[want.len - 1] == '=')
        want.len--;
    bool ok = !text.failed && !want.failed && crypto_equal(buf_view(&want), given);
    buf_deinit(&text);
    buf_deinit(&want);
    return ok;
}

struct signed_query {
    struct str signature, expiration, path, user;
};

static bool read_signed(struct http_request *r, struct signed_query *q)
{
    *q = (struct signed_query){STR(""), STR(""), STR(""), STR("")};
    http_query_get(r, "path", &q->path, NULL);
    http_query_get(r, "username", &q->user, NULL);
    http_query_get(r, "signature_expiration", &q->expiration, NULL);
    return http_query_get(r, "signature", &q->signature, NULL) == 1;
}

static bool is_signed_for(struct http_request *r, const struct signed_query *q, const struct sandbox *s)
{
    uint64_t until;
    const char *op = http_method_of(r) == HTTP_M_POST ? "write" : "read";
    if (sandbox_token(s)[0] == '\0' ||
        !signature_fits(sandbox_token(s), q->path, op, q->user, q->expiration, q->signature))
        return false;
    return q->expiration.n == 0 ||
           (str_to_u64(q->expiration, &until) && (int64_t)until * 1000000 > wall_now().us);
}

bool files_signed_anonymous(struct api *a, struct http_request *r)
{
    struct signed_query q;
    if (!read_signed(r, &q))
        return false;
    for (struct sandbox *s = host_next(a->host, NULL); s != NULL; s = host_next(a->host, s)) {
        if (!is_signed_for(r, &q, s))
            continue;
        files_transfer(a, r, s);
        return true;
    }
    return false;
}

void files_transfer(struct api *a, struct http_request *r, struct sandbox *s)
{
    struct str path = STR("");
    struct err err = ERR_INIT;
    enum http_method m = http_method_of(r);
    if (http_query_get(r, "path", &path, &err) < 0)
        api_error(r, 400, "%s", err.msg);
    else if (m == HTTP_M_GET)
        files_download(a, r, s, path);
    else if (m == HTTP_M_POST)
        files_upload(a, r, s, path);
    else
        api_error(r, 405, "method not allowed");
}

void files_request(struct api *a, struct http_request *r)
{
    struct signed_query q;
    bool has_signature = read_signed(r, &q);
    struct sandbox *s = api_sandbox(a, r, !has_signature);
    if (s == NULL)
        return;
    if (has_signature && !is_signed_for(r, &q, s))
        api_error(r, 401, "invalid signature");
    else
        files_transfer(a, r, s);
}
