/* One file being written into a sandbox: bytes go down a pipe to a helper of the supervisor. */
#ifndef SANDBOXD_SINK_H
#define SANDBOXD_SINK_H

#include "sandbox.h"

struct sink;

struct sink_events {
    /* What waited has gone down the pipe. */
    void (*on_drain)(void *arg);
    /* The file is complete (entry set, valid during the call) or it failed (status and text). Called once. */
    void (*on_done)(void *arg, const struct wire_entry *entry, int http_status, const char *text);
};

struct sink *sink_open(struct sandbox *s, struct str user, struct str path, const struct sink_events *events,
                       void *arg, struct err *err);

/* Takes all of piece. False: some of it waits; write no more until on_drain. */
bool sink_write(struct sink *k, struct str piece);
bool sink_waits(const struct sink *k);

/* The file ends here, once all has gone; on_done follows. */
void sink_end(struct sink *k);

/* Frees, whatever its state; no callback. NULL is fine. */
void sink_free(struct sink **k);

/* The HTTP status that /files answers for a fault. */
int sink_status(enum wire_fault fault);

#endif
