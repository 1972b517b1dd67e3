/* API keys: what each may do. Pure.
 *
 *   read    look at everything but keys: records, outputs, lists, usage
 *   invoke  submit, cancel and retry invocations, batches and schedules, and look at those
 *   deploy  agents, their versions and secrets, and look at those
 *   admin   everything, webhooks and keys among it
 *
 * Which of them an operation asks for stands in the contract (gateway/api/openapi.json, `security`). */
#ifndef MODEL_API_KEY_H
#define MODEL_API_KEY_H

#include <stdbool.h>

#include "base/str.h"

/* Bits, as api_keys.scopes has them. */
enum {
    KEY_READ = 1,
    KEY_INVOKE = 2,
    KEY_DEPLOY = 4,
    KEY_ADMIN = 8,
    KEY_SCOPES_ALL = KEY_READ | KEY_INVOKE | KEY_DEPLOY | KEY_ADMIN
};
enum { KEY_NAME_MAX_BYTES = 100, KEY_SCOPES_TEXT_BYTES = 40 };

/* "invoke" -> KEY_INVOKE; 0: there is no such scope. */
unsigned key_scope_parse(struct str name);
/* "read, invoke": a list of them, commas in between, spaces allowed; 0: empty, or one is none. */
unsigned key_scopes_parse(struct str list);
/* Of one bit; NULL: there is none. */
const char *key_scope_name(unsigned bit);
/* All of them, in the order above, sep in between. */
void key_scopes_text(unsigned scopes, const char *sep, char out[KEY_SCOPES_TEXT_BYTES]);

/* Whether a key that has these scopes may do what any of those allows. */
static inline bool key_may(unsigned has, unsigned any_of)
{
    return (has & (any_of | KEY_ADMIN)) != 0;
}

/* A name is for people: 1 to KEY_NAME_MAX_BYTES of UTF-8 without control characters. */
bool key_name_valid(struct str name);

#endif
