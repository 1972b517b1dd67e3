/* What is said of a batch as a whole: as query parameters, or as members beside `items`. */
#ifndef GATEWAY_BATCH_OPTIONS_H
#define GATEWAY_BATCH_OPTIONS_H

#include "base/buf.h"
#include "base/err.h"
#include "http/server.h"
#include "model/agent.h"
#include "model/invocation.h"

struct batch_options {
    enum inv_priority priority; /* low, unless it is said */
    int32_t max_concurrency;    /* 0: none */
    int32_t timeout_ms;         /* for items without; 0: their agent's */
    int64_t queue_timeout_ms;
    char agent[AGENT_SLUG_BYTES]; /* for items without; "": they must have one */
    int32_t agent_version;        /* 0: the serving one */
    struct buf metadata;          /* JSON; empty: none */
    struct buf webhook;           /* a hook's JSON, unchecked; empty: none */
};

void batch_options_init(struct batch_options *o);
void batch_options_deinit(struct batch_options *o);

/* The query's parameters; all of them are checked. */
extern const char *const batch_options_query_names[];
int batch_options_query(struct batch_options *o, struct http_request *req, struct err *err);
/* The frame of a document with items; what it says goes before the query. */
int batch_options_frame(struct batch_options *o, struct str frame, struct err *err);

#endif
