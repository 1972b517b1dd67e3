/* The bytes of a request: finding the end of its head, reading the head, reading a chunked body. Pure: no
 * sockets, no clock; the connection feeds it, the fuzzer too.
 *
 * A head is read in one piece. http_head_scan looks, line by line and never twice, for the first CRLF CRLF
 * and refuses on the way what must not even get near the parser (NUL, bare CR, bare LF, folded lines); only
 * then llhttp reads the whole of it and must stop exactly where the scan stopped. So there is one
 * interpretation of where a request ends or none at all. llhttp reads chunked bodies, too, paused after each
 * piece; bodies with a length need no parser. */
#ifndef HTTP_PARSE_H
#define HTTP_PARSE_H

#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Where the scan stands; zeroed for each head. */
struct http_scan {
    size_t line; /* where the unfinished line begins */
    int lines;   /* complete lines, the request line included */
};

enum http_scan_result { HTTP_SCAN_MORE, HTTP_SCAN_DONE, HTTP_SCAN_BAD };

/* Looks at in, which begins with the head and grows between calls. DONE: *head_bytes_out has its length, the
 * empty line included. BAD: *what_out says why. */
enum http_scan_result http_head_scan(struct http_scan *s, struct str in, size_t *head_bytes_out,
                                     const char **what_out);

struct http_field {
    struct str name, value;
};

/* A head that was read. The views point into `block`, one allocation that holds the bytes and the table. */
struct http_head {
    void *block; /* owned */
    struct str method, target;
    struct http_field *fields;
    int count;
    int minor; /* HTTP/1.minor */
    bool keep_alive, chunked, expect_continue;
    int64_t content_length; /* -1: none */
};

struct http_parser {
    llhttp_t ll;
    struct http_head *head; /* while its callbacks fill it */
    bool in_value;
    struct str piece; /* the part of a chunked body that was just read */
    size_t extras;    /* bytes of chunk extensions and trailers seen */
    char last;        /* the last byte of the input before */
    char trailer[20]; /* the beginning of a trailer's name */
    size_t trailer_bytes;
    bool trailer_bad; /* one that speaks of framing */
    bool trailing;    /* behind the last chunk's line */
    bool complete;
};

/* Reads a head of `lines` lines (as the scan counted). ERR_NONE, or the code to answer with; *what_out says
 * why. */
enum err_code http_head_parse(struct http_parser *p, struct str bytes, int lines, int max_fields,
                              struct http_head *h, const char **what_out);
void http_head_deinit(struct http_head *h);

enum http_chunk_result {
    HTTP_CHUNK_MORE,  /* all input was eaten */
    HTTP_CHUNK_PIECE, /* p->piece has a part of the body (a view into in) */
    HTTP_CHUNK_END,   /* the body is complete; what is left of in belongs to the next request */
    HTTP_CHUNK_BAD,
};

/* Reads on in the body whose head p has read; eats from *in. */
enum http_chunk_result http_chunk_next(struct http_parser *p, struct str *in);
/* What the chunk that is being read has announced and not yet brought. */
uint64_t http_chunk_left(const struct http_parser *p);

#endif
