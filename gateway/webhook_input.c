/* URLs and secrets of webhooks. */
#include "webhook_input.h"

#include <string.h>

#include "crypto/crypto.h"

int webhook_rules_init(struct webhook_rules *r, const struct settings *s, struct err *err)
{
    r->has_key = s->webhook_public_key != NULL;
    if (guard_read_ports(str_of(s->webhook_ports), &r->guard, err) != 0 ||
        guard_read_allowed(str_of(s->webhook_allow), &r->guard, err) != 0)
        return -1;
    return r->has_key ? seal_public_read(secret_reveal(s->webhook_public_key), &r->key, err) : 0;
}

static bool seal(const struct webhook_rules *r, const struct webhook_secret *secret,
                 struct webhook_sealed *out)
{
    struct buf sealed;
    buf_init(&sealed, sizeof out->b);
    bool fine = seal_value(&r->key, str_make((const char *)secret->b, secret->n), &sealed);
    if (fine) {
        memcpy(out->b, sealed.data, sealed.len);
        out->n = sealed.len;
        memcpy(out->key_id, r->key.id, sizeof out->key_id);
    }
    buf_deinit(&sealed);
    return fine;
}

int webhook_read_secret(const struct webhook_rules *r, const struct json_value *v, struct webhook_sealed *out,
                        char text[WEBHOOK_SECRET_TEXT_BYTES], struct err *err)
{
    struct webhook_secret secret;
    struct str given;
    if (!r->has_key)
        return err_set(err, ERR_NOT_CONFIGURED,
                       "webhooks are not set up here: 'sandpiper secrets init' makes a pair of keys; "
                       "SANDPIPER_WEBHOOK_PUBLIC_KEY_FILE names the public one to gateways");
    if (v == NULL)
        webhook_secret_new(text);
    else if (!json_str(v, &given) || !str_copy(given, text, WEBHOOK_SECRET_TEXT_BYTES))
        text[0] = '\0';
    if (!webhook_secret_read(str_of(text), &secret))
        return err_set(err, ERR_BAD_FIELD,
                       "secret must be \"whsec_\" and the base64 of %d to %d random bytes",
                       WEBHOOK_SECRET_MIN_BYTES, WEBHOOK_SECRET_MAX_BYTES);
    bool fine = seal(r, &secret, out);
    crypto_wipe(&secret, sizeof secret);
    return fine ? 0 : err_set(err, ERR_OVERLOADED, "no memory");
}

int webhook_read_url(const struct webhook_rules *r, const struct json_value *v, struct str *out,
                     struct err *err)
{
    if (v == NULL)
        return err_set(err, ERR_MISSING_FIELD, "url is required");
    if (!json_str(v, out))
        return err_set(err, ERR_BAD_FIELD, "url must be a string");
    return guard_url(&r->guard, *out, err);
}

int webhook_read_receiver(const struct webhook_rules *r, int32_t tenant, const struct json_value *v,
                          struct webhook_hook *out, struct err *err)
{
    static const char *const known[] = {"url", "secret", NULL};
    char origin[GUARD_URL_MAX_BYTES + 16];
    if (json_type_of(v) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "webhook must be an object: {\"url\": …, \"secret\": …}");
    if (json_known_fields(v, known, err) != 0 || webhook_read_url(r, json_get(v, "url"), &out->url, err) != 0)
        return err_wrap(err, "webhook");
    if (!guard_origin(out->url, origin, sizeof origin))
        return err_set(err, ERR_BAD_FIELD, "webhook.url cannot be read");
    out->lane = webhook_lane_of_origin(tenant, str_of(origin));
    return 0;
}

int webhook_read_hook(const struct webhook_rules *r, int32_t tenant, const struct json_value *v,
                      struct webhook_input *out, struct err *err)
{
    const struct json_value *secret = json_get(v, "secret");
    if (webhook_read_receiver(r, tenant, v, &out->hook, err) != 0)
        return -1;
    if (webhook_read_secret(r, secret, &out->hook.secret, out->secret, err) != 0)
        return err_wrap(err, "webhook");
    if (secret != NULL)
        crypto_wipe(out->secret, sizeof out->secret);
    return 0;
}
