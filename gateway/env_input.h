/* Values that callers entrust to programs: secrets of agents, `env` of submissions; read, checked and sealed.
 * They are in clear here for the time of the request, and nowhere after it. */
#ifndef GATEWAY_ENV_INPUT_H
#define GATEWAY_ENV_INPUT_H

#include "base/buf.h"
#include "crypto/place.h"
#include "json/json.h"
#include "settings.h"

struct env_rules {
    struct seal_public key;
    bool has_key; /* without it both are refused */
};

int env_rules_init(struct env_rules *r, const struct settings *s, struct err *err);

/* A secret's value, sealed for (tenant, agent, name), appended to out. *bytes_out: the value's length. -1 and
 * *err: ERR_NOT_CONFIGURED, ERR_MISSING_FIELD, ERR_BAD_FIELD, ERR_SECRET_TOO_LARGE. */
int env_read_secret(const struct env_rules *r, const struct seal_place *place, const struct json_value *v,
                    struct buf *out, int32_t *bytes_out, struct err *err);

/* An object of strings, packed (model/environment.h) and sealed for (tenant, agent), appended to out; nothing
 * when it has no members. -1 and *err likewise. */
int env_read_object(const struct env_rules *r, int32_t tenant, struct str agent, const struct json_value *v,
                    struct buf *out, struct err *err);

#endif
