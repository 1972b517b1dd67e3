/* The strict scan and what it notes down for the parser (private to shared/json). */
#ifndef JSON_SCAN_H
#define JSON_SCAN_H

#include "base/err.h"
#include "base/str.h"

/* cJSON copies a number into 64 bytes before it converts it; longer ones are rewritten for it (json.c). */
enum { JSON_CJSON_NUMBER_BYTES = 63 };

struct json_number {
    int64_t value;
    bool exact; /* written as an integer and within 64 bits */
};

/* In document order; the strings are slices of the scanned text. */
struct json_facts {
    struct json_number *numbers;
    size_t number_count, number_cap;
    struct str *members; /* the values of the root object */
    size_t member_count, member_cap;
    struct str *longs; /* numbers that are too long for cJSON */
    size_t long_count, long_cap;
};

/* Checks text; with facts (zeroed), fills them. The caller frees them in either case. */
int json_scan_facts(struct str text, struct json_facts *facts, struct err *err);
void json_facts_deinit(struct json_facts *facts);

/* The line, from 1, of the nth value (from 0) of a text that has passed the scan; of its key, if it has one.
 */
unsigned json_nth_line(struct str text, size_t nth);

#endif
