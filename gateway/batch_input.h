/* Reading a batch: its bytes in, as they come; rows in the spool out, or what is wrong with which line.
 * Memory is bounded by one item, not by the batch. */
#ifndef GATEWAY_BATCH_INPUT_H
#define GATEWAY_BATCH_INPUT_H

#include "batch_hooks.h"
#include "batch_options.h"
#include "batch_spool.h"
#include "gateway.h"

/* What is wrong with an item. */
struct batch_fault {
    uint64_t line, item; /* from 1 */
    enum err_code code;
    char detail[200];
};

/* An agent as items name it. */
struct batch_agent {
    char slug[AGENT_SLUG_BYTES]; /* "": the batch's own */
    int32_t version;
    uint64_t line, item; /* where it is first named */
};

struct batch_input_options {
    bool lines; /* NDJSON; else a JSON document */
    bool gzip;
    int32_t tenant;
    struct uuid api_key, batch;
    const struct webhook_rules *hooks;
    struct str trace; /* what items carry on, as text; empty: none. The caller's */
};

struct batch_input;
struct batch_input *batch_input_new(struct gateway *g, const struct batch_input_options *options,
                                    struct err *err);
void batch_input_free(struct batch_input **in);

/* The next bytes of the body. False: the turn's work is done and some of them are left: batch_input_go_on in
 * another turn, until it is true, before more is given. */
bool batch_input_put(struct batch_input *in, struct str piece);
bool batch_input_go_on(struct batch_input *in);
/* The body's end: options are completed by what the document says of the batch. */
void batch_input_end(struct batch_input *in, struct batch_options *options);

/* The fault that concerns no item (the first one); ERR_NONE: none. */
const struct err *batch_input_failed(const struct batch_input *in);
const struct batch_fault *batch_input_faults(const struct batch_input *in, size_t *n, uint64_t *in_all);
void batch_input_fault(struct batch_input *in, uint64_t line, uint64_t item, const struct err *err);

uint32_t batch_input_items(const struct batch_input *in);
const struct batch_agent *batch_input_agents(const struct batch_input *in, size_t *n);
struct batch_spool *batch_input_spool(struct batch_input *in);
const struct batch_hooks *batch_input_hooks(const struct batch_input *in);

#endif
