/* Secrets and environments, read and sealed. */
#include "env_input.h"

#include "model/environment.h"

int env_rules_init(struct env_rules *r, const struct settings *s, struct err *err)
{
    r->has_key = s->env_public_key != NULL;
    return r->has_key ? seal_public_read(secret_reveal(s->env_public_key), &r->key, err) : 0;
}

static int check_key(const struct env_rules *r, struct err *err)
{
    if (r->has_key)
        return 0;
    return err_set(err, ERR_NOT_CONFIGURED,
                   "secrets and env are not set up here: 'sandpiper secrets init' makes a pair of keys; "
                   "SANDPIPER_ENV_PUBLIC_KEY_FILE names the public one to gateways");
}

static int seal(const struct env_rules *r, const struct seal_place *place, struct str plain, struct buf *out,
                struct err *err)
{
    return seal_to_place(&r->key, place, plain, out) ? 0 : err_set(err, ERR_OVERLOADED, "no memory");
}

int env_read_secret(const struct env_rules *r, const struct seal_place *place, const struct json_value *v,
                    struct buf *out, int32_t *bytes_out, struct err *err)
{
    struct str value;
    if (check_key(r, err) != 0)
        return -1;
    if (v == NULL)
        return err_set(err, ERR_MISSING_FIELD, "value is required: {\"value\": \"…\"}");
    if (!json_str(v, &value) || value.n == 0)
        return err_set(err, ERR_BAD_FIELD,
                       "value must be a string that is not empty; DELETE takes a secret away");
    if (value.n > SECRET_VALUE_MAX_BYTES)
        return err_set(err, ERR_SECRET_TOO_LARGE, "the value has %zu bytes; the limit is %d", value.n,
                       SECRET_VALUE_MAX_BYTES);
    *bytes_out = (int32_t)value.n;
    return seal(r, place, value, out, err);
}

static int pack(const struct json_value *v, struct buf *out, struct err *err)
{
    size_t bytes = 0, n = 0;
    struct str value;
    for (const struct json_value *m = json_first(v); m != NULL; m = json_next(m)) {
        struct str name = json_key(m);
        if (env_name_check(name, err) != 0)
            return err_wrap(err, "env");
        if (!json_str(m, &value))
            return err_set(err, ERR_BAD_FIELD, "env.%.*s must be a string", STR_ARG(name));
        bytes += name.n + value.n;
        if (++n > SUBMISSION_ENV_MAX)
            return err_set(err, ERR_BAD_FIELD, "env has more than %d variables", SUBMISSION_ENV_MAX);
        if (bytes > SUBMISSION_ENV_MAX_BYTES)
            return err_set(err, ERR_SECRET_TOO_LARGE,
                           "env is too large: its names and values may have %d bytes together",
                           SUBMISSION_ENV_MAX_BYTES);
        if (!env_pack(name, value, out))
            return err_set(err, ERR_OVERLOADED, "no memory");
    }
    return 0;
}

int env_read_object(const struct env_rules *r, int32_t tenant, struct str agent, const struct json_value *v,
                    struct buf *out, struct err *err)
{
    const struct seal_place place = {.tenant = tenant, .agent = agent};
    struct buf plain;
    if (check_key(r, err) != 0)
        return -1;
    if (json_type_of(v) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "env must be an object of strings: {\"NAME\": \"value\"}");
    buf_init_secret(&plain, SUBMISSION_ENV_MAX_BYTES + SUBMISSION_ENV_MAX * 8);
    int rc = pack(v, &plain, err);
    if (rc == 0 && plain.len > 0)
        rc = seal(r, &place, buf_view(&plain), out, err);
    buf_deinit(&plain);
    return rc;
}
