/* Hooks of items. */
#include "batch_hooks.h"

#include <string.h>

#include "crypto/crypto.h"

void batch_hooks_deinit(struct batch_hooks *b)
{
    crypto_wipe(b->made, sizeof b->made);
    crypto_wipe(b->given, sizeof b->given);
}

static int shared_secret(struct batch_hooks *b, const struct webhook_rules *r, struct webhook_sealed *out,
                         struct err *err)
{
    if (b->made[0] == '\0' && webhook_read_secret(r, NULL, &b->made_sealed, b->made, err) != 0) {
        b->made[0] = '\0';
        return -1;
    }
    *out = b->made_sealed;
    return 0;
}

static int given_secret(struct batch_hooks *b, const struct webhook_rules *r, const struct json_value *v,
                        struct webhook_sealed *out, struct err *err)
{
    struct str text;
    bool same = json_str(v, &text) && text.n > 0 && str_eq_c(text, b->given);
    if (!same && webhook_read_secret(r, v, &b->given_sealed, b->given, err) != 0) {
        b->given[0] = '\0';
        return -1;
    }
    *out = b->given_sealed;
    return 0;
}

int batch_hook_read(struct batch_hooks *b, const struct webhook_rules *r, int32_t tenant,
                    const struct json_value *v, struct webhook_hook *out, struct err *err)
{
    const struct json_value *secret = json_get(v, "secret");
    if (webhook_read_receiver(r, tenant, v, out, err) != 0)
        return -1;
    if ((secret != NULL ? given_secret(b, r, secret, &out->secret, err)
                        : shared_secret(b, r, &out->secret, err)) != 0)
        return err_wrap(err, "webhook");
    return 0;
}

void batch_hooks_share(const struct batch_hooks *b, struct webhook_input *own)
{
    if (b->made[0] == '\0' || own->secret[0] == '\0')
        return;
    memcpy(own->secret, b->made, sizeof own->secret);
    own->hook.secret = b->made_sealed;
}
