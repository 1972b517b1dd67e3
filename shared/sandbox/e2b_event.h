/* What a process stream says: ProcessEvent and the end-stream message, in protobuf's JSON. Pure. */
#ifndef SANDBOX_E2B_EVENT_H
#define SANDBOX_E2B_EVENT_H

#include "base/buf.h"
#include "sandbox/provider.h"

enum e2b_event_kind {
    E2B_EVENT_OTHER, /* keepalive, or something newer than we are: counts as a sign of life */
    E2B_EVENT_START,
    E2B_EVENT_STDOUT,
    E2B_EVENT_STDERR,
    E2B_EVENT_END,
};

struct e2b_event {
    enum e2b_event_kind kind;
    int64_t pid;              /* START */
    struct str bytes;         /* STDOUT, STDERR: in `scratch` */
    struct sandbox_exit exit; /* END */
};

/* Decodes one message; scratch is cleared and holds the decoded bytes. -1 and *err (ERR_PROTOCOL). */
int e2b_event_decode(struct str json, struct buf *scratch, struct e2b_event *out, struct err *err);

/* How a stream ended: code "" is success. */
struct e2b_stream_end {
    char code[32]; /* Connect's name: "deadline_exceeded" … */
    char message[160];
};

int e2b_stream_end_decode(struct str json, struct e2b_stream_end *out, struct err *err);

/* "signal: killed", "signal: segmentation fault (core dumped)", "signal 34" -> "KILL", "SEGV", "34". False
 * when it names no signal. */
bool e2b_signal_name(struct str status, char *out, size_t out_bytes);

#endif
