/* What callers say of webhooks: URLs and secrets, read, checked and sealed. A secret is in clear here, for
 * the time of the request, and nowhere after it. */
#ifndef GATEWAY_WEBHOOK_INPUT_H
#define GATEWAY_WEBHOOK_INPUT_H

#include "crypto/seal.h"
#include "http/guard.h"
#include "json/json.h"
#include "settings.h"
#include "store/webhooks.h"

struct webhook_rules {
    struct http_guard guard;
    struct seal_public key;
    bool has_key; /* without it webhooks are refused */
};

int webhook_rules_init(struct webhook_rules *r, const struct settings *s, struct err *err);

/* Reads `v` ("whsec_…"; absent: a new one is made) and seals it. text is the secret in clear, the caller's to
 * wipe. -1 and *err: ERR_NOT_CONFIGURED, ERR_BAD_FIELD. */
int webhook_read_secret(const struct webhook_rules *r, const struct json_value *v, struct webhook_sealed *out,
                        char text[WEBHOOK_SECRET_TEXT_BYTES], struct err *err);

/* Checks v as a receiver's URL. *out is a view into the document. */
int webhook_read_url(const struct webhook_rules *r, const struct json_value *v, struct str *out,
                     struct err *err);

/* A hook that comes with a submission or a batch: {"url", "secret"}. The url stays a view into the document.
 * secret holds what was made up when the caller gave none, to be shown once; else it is empty. */
struct webhook_input {
    struct webhook_hook hook;
    char secret[WEBHOOK_SECRET_TEXT_BYTES];
};
/* The same without the secret: who is told, and the lane to it. */
int webhook_read_receiver(const struct webhook_rules *r, int32_t tenant, const struct json_value *v,
                          struct webhook_hook *out, struct err *err);
int webhook_read_hook(const struct webhook_rules *r, int32_t tenant, const struct json_value *v,
                      struct webhook_input *out, struct err *err);

/* The answer's header that shows a secret which was made up. */
#define WEBHOOK_SECRET_HEADER "Sandpiper-Webhook-Secret"

#endif
