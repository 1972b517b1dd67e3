/* Cuts a stream into its items: the lines of NDJSON, or the elements of a JSON array, in constant memory.
 *
 * For arrays the document may be the array itself, or an object with one as its member `items`: the rest of
 * that object (the frame, with [] in the array's place) is kept, and parsed by its reader in the end.
 *
 * Only the places of cuts are found here. What an item holds is for the strict scan (json.h) to judge; what
 * stands between items is judged here. */
#ifndef JSON_CUT_H
#define JSON_CUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum json_cut_form {
    JSON_CUT_LINES, /* one value a line; empty lines are passed over */
    JSON_CUT_ARRAY,
};

/* number: of the item, from 1; line: on which it begins, from 1. text: valid during the call; an item longer
 * than the limit has text.p NULL and text.n its bytes so far. False: stop, json_cut_put returns -1 with *err
 * untouched. */
typedef bool json_cut_fn(void *arg, uint64_t number, uint64_t line, struct str text);

struct json_cut {
    enum json_cut_form form;
    json_cut_fn *fn;
    void *arg;
    size_t item_max;
    uint64_t number, line;
    struct buf item; /* the begun item */
    struct buf frame;
    /* the machine */
    int step;
    int depth;      /* of brackets open in the item or the frame */
    size_t skipped; /* bytes of an item that was too long */
    uint64_t began; /* its line */
    bool in_string, escaped, framed;
};

void json_cut_init(struct json_cut *c, enum json_cut_form form, size_t item_max, json_cut_fn *fn, void *arg);
void json_cut_deinit(struct json_cut *c);

/* The next bytes. -1 and *err (ERR_BAD_JSON, with the line): what stands between items is no JSON; nothing
 * more can be cut. */
int json_cut_put(struct json_cut *c, struct str piece, struct err *err);
/* The stream's end. */
int json_cut_end(struct json_cut *c, struct err *err);

/* The frame; empty when the document was an array, or lines. Valid after json_cut_end. */
struct str json_cut_frame(const struct json_cut *c);

#endif
