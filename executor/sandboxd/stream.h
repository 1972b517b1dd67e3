/* The answer to Start and Connect: a process's events as a Connect RPC stream. */
#ifndef SANDBOXD_STREAM_H
#define SANDBOXD_STREAM_H

#include "api.h"
#include "process.h"

struct stream;

/* A stream on a request, which it owns from here on (http_set_data). NULL without memory. */
struct stream *stream_new(struct api *a, struct http_request *r);
/* Lets go of a stream that has said nothing; the request stays unanswered. */
void stream_free(struct stream *t);

/* What to give to process_start or process_follow; the stream answers and frees itself from then on. */
struct process_watch *stream_watch(struct stream *t);

/* For Connect: says `start` at once and, when the process has ended already, its end (the stream is then
 * gone). */
void stream_begin(struct stream *t, int64_t pid, const struct process_exit *exit);
/* Ends the stream, not the process, after ms; 0: never. */
void stream_limit(struct stream *t, int64_t ms);

/* A streaming call that fails before it begins. */
void stream_error(struct http_request *r, const char *code, const char *text);

#endif
