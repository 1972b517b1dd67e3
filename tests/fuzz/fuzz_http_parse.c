/* A request's head and chunked body. What the scan and the parser accept must be one request: the head ends
 * at the first empty line, and the chunked body ends at the same byte however its bytes are divided. */
#include "http/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads a body in pieces of at most `step`; returns where it ended, or -1. */
static long body_end(struct http_parser p, struct str in, size_t step, size_t *bytes)
{
    size_t at = 0;
    p.ll.data = &p;
    *bytes = 0;
    while (at < in.n) {
        struct str part = str_make(in.p + at, in.n - at < step ? in.n - at : step);
        size_t given = part.n;
        enum http_chunk_result got;
        do {
            got = http_chunk_next(&p, &part);
            *bytes += got == HTTP_CHUNK_PIECE ? p.piece.n : 0;
        } while (got == HTTP_CHUNK_PIECE);
        at += given - part.n;
        if (got == HTTP_CHUNK_END)
            return (long)at;
        if (got == HTTP_CHUNK_BAD)
            return -1;
    }
    return -2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_make((const char *)data, size);
    struct http_scan scan = {0};
    struct http_parser parser = {0};
    struct http_head head;
    size_t n = 0;
    const char *what = NULL;
    if (http_head_scan(&scan, in, &n, &what) != HTTP_SCAN_DONE)
        return 0;
    INVARIANT(memmem(in.p, in.n, "\r\n\r\n", 4) == in.p + n - 4);
    enum err_code code = http_head_parse(&parser, str_make(in.p, n), scan.lines, 100, &head, &what);
    if (code == ERR_NONE && head.chunked) {
        INVARIANT(head.content_length < 0);
        struct str body = str_make(in.p + n, in.n - n);
        size_t whole_bytes, single_bytes;
        long whole = body_end(parser, body, SIZE_MAX, &whole_bytes),
             single = body_end(parser, body, 1, &single_bytes);
        INVARIANT(whole == single && (whole < 0 || whole_bytes == single_bytes));
    }
    http_head_deinit(&head);
    return 0;
}
