/* Ranges of bytes. */
#include "byte_range.h"

#include <stdio.h>
#include <string.h>

/* "bytes=a-b", "bytes=a-", "bytes=-n". */
static bool parse(struct str header, int64_t size, struct byte_range *out)
{
    struct str rest, first;
    int64_t a = 0, b = 0;
    if (!str_starts(header, STR("bytes=")))
        return true;
    rest = str_make(header.p + 6, header.n - 6);
    if (memchr(rest.p, ',', rest.n) != NULL || !str_split(&rest, '-', &first) || rest.p == NULL)
        return true;
    bool has_a = str_to_i64(first, &a) && a >= 0, has_b = str_to_i64(rest, &b) && b >= 0;
    if ((first.n > 0 && !has_a) || (rest.n > 0 && !has_b) || (!has_a && !has_b) || (has_a && has_b && b < a))
        return true;
    if (!has_a && b == 0)
        return false;
    out->from = has_a ? a : size - b > 0 ? size - b : 0;
    out->to = has_a && has_b && b < size ? b : size - 1;
    out->partial = true;
    return out->from < size;
}

bool byte_range_read(const struct http_request *req, int64_t size, const char *etag, struct byte_range *out)
{
    struct str header, only_if;
    *out = (struct byte_range){.to = size - 1};
    if (!http_header(req, "Range", &header))
        return true;
    if (etag != NULL && http_header(req, "If-Range", &only_if) && !str_eq_c(only_if, etag))
        return true;
    return parse(header, size, out);
}

void byte_range_headers(struct http_request *req, const struct byte_range *range, int64_t size)
{
    http_set_header(req, "Accept-Ranges", STR("bytes"));
    http_set_header(req, "X-Content-Type-Options", STR("nosniff"));
    if (!range->partial)
        return;
    char text[80];
    snprintf(text, sizeof text, "bytes %lld-%lld/%lld", (long long)range->from, (long long)range->to,
             (long long)size);
    http_set_header(req, "Content-Range", str_of(text));
}
