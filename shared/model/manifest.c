/* agent.json read: every key has one reader, every fault names its line. */
#include "model/manifest.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json/json.h"
#include "model/agent_tree.h"
#include "model/environment.h"
#include "model/invocation.h"

const char *const manifest_keys[] = {
    "$schema",   "name",          "description", "template",  "runtime",
    "entry",     "install",       "check",       "env",       "secrets",
    "timeout_s", "cpus",          "memory_mb",   "warm_pool", "egress",
    "retry",     "redact_output", "artifacts",   "usage",     "output_max_bytes",
    NULL};

enum { FAULT_BYTES = 200, SHOWN_BYTES = 60 };

struct reading {
    const struct json *doc;
    const struct json_value *root;
    struct manifest *out;
    const char *of; /* what is read, for errors */
    bool install_stated;
    struct err *err;
};

/* ---- faults ---- */

static int fault(const struct reading *r, const struct json_value *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int fault(const struct reading *r, const struct json_value *at, const char *fmt, ...)
{
    char text[FAULT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(r->err, ERR_BAD_MANIFEST, "%s: line %u: %s", r->of, json_line(r->doc, at), text);
}

/* of: what holds the object, with its dot; "" at the top. */
static int check_keys(const struct reading *r, const struct json_value *object, const char *const *known,
                      const char *of)
{
    const struct json_value *m = json_unknown_field(object, known);
    if (m == NULL)
        return 0;
    struct str name = json_key(m);
    const char *meant = str_nearest(name, known);
    int shown = name.n < SHOWN_BYTES ? (int)name.n : SHOWN_BYTES;
    while (shown > 0 && (size_t)shown < name.n && ((unsigned char)name.p[shown] & 0xC0) == 0x80)
        shown--; /* not inside a character */
    if (meant != NULL)
        return fault(r, m, "unknown key \"%s%.*s\"; did you mean \"%s%s\"?", of, shown, name.p, of, meant);
    return fault(r, m, "unknown key \"%s%.*s\"", of, shown, name.p);
}

/* ---- kinds of values ---- */

/* Absent leaves out alone. */
static int read_text(const struct reading *r, const char *key, char *out, size_t out_bytes)
{
    const struct json_value *v = json_get(r->root, key);
    struct str s;
    if (v == NULL)
        return 0;
    if (!json_str(v, &s) || !str_copy(s, out, out_bytes) || memchr(s.p, '\n', s.n) != NULL)
        return fault(r, v, "\"%s\" must be one line of text of at most %zu bytes", key, out_bytes - 1);
    return 0;
}

static int read_whole(const struct reading *r, const struct json_value *v, const char *name, int64_t min,
                      int64_t max, int64_t *out)
{
    if (v == NULL)
        return 0;
    if (!json_int(r->doc, v, out) || *out < min || *out > max)
        return fault(r, v, "\"%s\" must be a whole number from %lld to %lld", name, (long long)min,
                     (long long)max);
    return 0;
}

/* One of two words: 0, 1; absent leaves out alone. */
static int read_word(const struct reading *r, const char *key, const char *first, const char *second,
                     int *out)
{
    const struct json_value *v = json_get(r->root, key);
    struct str s;
    if (v == NULL)
        return 0;
    if (!json_str(v, &s) || !(str_eq_c(s, first) || str_eq_c(s, second)))
        return fault(r, v, "\"%s\" must be \"%s\" or \"%s\"", key, first, second);
    *out = str_eq_c(s, second);
    return 0;
}

static int check_variable(const struct reading *r, const struct json_value *at, struct str name,
                          const char *key)
{
    struct err why;
    return env_name_check(name, &why) == 0 ? 0 : fault(r, at, "\"%s\": %s", key, why.msg);
}

/* ---- keys ---- */

static int put_variable(struct reading *r, const struct json_value *v)
{
    struct manifest *m = r->out;
    struct str name = json_key(v), value;
    if (check_variable(r, v, name, "env") != 0)
        return -1;
    if (!json_str(v, &value))
        return fault(r, v, "\"env.%.*s\" must be a string", STR_ARG(name));
    size_t bytes = name.n + 1 + value.n + 1;
    if (m->env_count == MANIFEST_ENV_MAX || bytes > sizeof m->env - m->env_bytes)
        return fault(r, v, "\"env\" holds at most %d variables and %d bytes in all", MANIFEST_ENV_MAX,
                     MANIFEST_ENV_BYTES);
    char *at = m->env + m->env_bytes;
    memcpy(at, name.p, name.n);
    at[name.n] = '=';
    memcpy(at + name.n + 1, value.p, value.n);
    at[bytes - 1] = '\0';
    m->env_bytes += bytes;
    m->env_count++;
    return 0;
}

static int read_env(struct reading *r)
{
    const struct json_value *env = json_get(r->root, "env");
    if (env != NULL && json_type_of(env) != JSON_OBJECT)
        return fault(r, env, "\"env\" must be an object of strings");
    for (const struct json_value *v = json_first(env); v != NULL; v = json_next(v))
        if (put_variable(r, v) != 0)
            return -1;
    return 0;
}

static int put_secret(struct reading *r, const struct json_value *v)
{
    struct manifest *m = r->out;
    struct str name;
    char key[MANIFEST_VARIABLE_BYTES];
    if (!json_str(v, &name))
        return fault(r, v, "\"secrets\" must be an array of names");
    if (check_variable(r, v, name, "secrets") != 0)
        return -1;
    str_copy(name, key, sizeof key);
    if (json_get(json_get(r->root, "env"), key) != NULL)
        return fault(r, v, "\"secrets\": %s stands in \"env\", too", key);
    for (int i = 0; i < m->secret_count; i++)
        if (strcmp(m->secrets[i], key) == 0)
            return fault(r, v, "\"secrets\" names %s twice", key);
    if (m->secret_count == MANIFEST_SECRETS_MAX)
        return fault(r, v, "\"secrets\" holds at most %d names", MANIFEST_SECRETS_MAX);
    memcpy(m->secrets[m->secret_count++], key, sizeof key);
    return 0;
}

static int read_secrets(struct reading *r)
{
    const struct json_value *secrets = json_get(r->root, "secrets"),
                            *redact = json_get(r->root, "redact_output");
    if (secrets != NULL && json_type_of(secrets) != JSON_ARRAY)
        return fault(r, secrets, "\"secrets\" must be an array of names");
    for (const struct json_value *v = json_first(secrets); v != NULL; v = json_next(v))
        if (put_secret(r, v) != 0)
            return -1;
    if (redact != NULL && !json_bool(redact, &r->out->redact_output))
        return fault(r, redact, "\"redact_output\" must be true or false");
    return 0;
}

static int read_limits(struct reading *r)
{
    int64_t sec = 0, memory = 0, cpus = 0, output = 0;
    if (read_whole(r, json_get(r->root, "timeout_s"), "timeout_s", 1, INV_TIMEOUT_MAX_MS / 1000, &sec) != 0 ||
        read_whole(r, json_get(r->root, "memory_mb"), "memory_mb", MANIFEST_MEMORY_MIN_MB,
                   MANIFEST_MEMORY_MAX_MB, &memory) != 0 ||
        read_whole(r, json_get(r->root, "cpus"), "cpus", 1, MANIFEST_CPUS_MAX, &cpus) != 0 ||
        read_whole(r, json_get(r->root, "output_max_bytes"), "output_max_bytes", 1, INV_OUTPUT_MAX_BYTES,
                   &output) != 0)
        return -1;
    r->out->timeout_ms = (int32_t)(sec * 1000);
    r->out->memory_mb = (int32_t)memory;
    r->out->cpus = (int32_t)cpus;
    r->out->output_max_bytes = output;
    return 0;
}

static int read_pool(struct reading *r)
{
    static const char *const known[] = {"min", "max", NULL};
    const struct json_value *v = json_get(r->root, "warm_pool"), *min = v, *max = v;
    struct manifest_pool *p = &r->out->warm_pool;
    struct str word;
    int64_t least = 0, most = 0;
    p->stated = v != NULL;
    p->automatic = json_str(v, &word) && str_eq_c(word, "auto");
    if (v == NULL || p->automatic)
        return 0;
    if (json_type_of(v) == JSON_OBJECT) {
        min = json_get(v, "min");
        max = json_get(v, "max");
        if (check_keys(r, v, known, "warm_pool.") != 0)
            return -1;
    }
    if (!json_int(r->doc, min, &least) || !json_int(r->doc, max, &most) || least < 0 || most < least ||
        most > MANIFEST_POOL_MAX)
        return fault(r, v,
                     "\"warm_pool\" must be a whole number from 0 to %d, \"auto\", or {\"min\": …, \"max\": "
                     "…} of such numbers, min not above max",
                     MANIFEST_POOL_MAX);
    p->min = (int32_t)least;
    p->max = (int32_t)most;
    return 0;
}

static int read_retry_on(struct reading *r, const struct json_value *on)
{
    for (const struct json_value *v = json_first(on); v != NULL; v = json_next(v)) {
        struct str name = str_of(NULL);
        bool text = json_str(v, &name);
        int bit = text && str_eq_c(name, "failed")      ? INV_RETRY_FAILED
                  : text && str_eq_c(name, "timed_out") ? INV_RETRY_TIMED_OUT
                                                        : 0;
        if (bit == 0)
            return fault(r, v, "\"retry.on\" may hold \"failed\" and \"timed_out\"");
        r->out->retry_on = (int16_t)(r->out->retry_on | bit);
    }
    return 0;
}

static int read_retry(struct reading *r)
{
    static const char *const known[] = {"max_attempts", "on", NULL};
    const struct json_value *v = json_get(r->root, "retry"), *on = json_get(v, "on");
    int64_t max = 1;
    if (v == NULL)
        return 0;
    if (json_type_of(v) != JSON_OBJECT)
        return fault(r, v, "\"retry\" must be an object");
    if (check_keys(r, v, known, "retry.") != 0 ||
        read_whole(r, json_get(v, "max_attempts"), "retry.max_attempts", 1, INV_MAX_ATTEMPTS, &max) != 0)
        return -1;
    r->out->max_attempts = (int16_t)max;
    if (on == NULL)
        r->out->retry_on = INV_RETRY_FAILED | INV_RETRY_TIMED_OUT;
    else if (json_type_of(on) != JSON_ARRAY)
        return fault(r, on, "\"retry.on\" must be an array");
    return read_retry_on(r, on);
}

static bool path_ok(struct str path)
{
    struct str part;
    if (path.n > 1 && path.p[path.n - 1] == '/')
        path.n--;
    if (path.n == 0)
        return false;
    while (str_split(&path, '/', &part)) {
        if (part.n == 0 || str_eq_c(part, ".") || str_eq_c(part, ".."))
            return false;
        for (size_t i = 0; i < part.n; i++)
            if ((unsigned char)part.p[i] < ' ')
                return false;
    }
    return true;
}

static int read_artifacts(struct reading *r)
{
    const struct json_value *v = json_get(r->root, "artifacts");
    struct str path;
    if (v == NULL)
        return 0;
    if (!json_str(v, &path) || !path_ok(path) || !str_copy(path, r->out->artifacts, sizeof r->out->artifacts))
        return fault(r, v, "\"artifacts\" must be a directory inside the agent's, such as \"out\"");
    if (path.p[path.n - 1] == '/')
        r->out->artifacts[path.n - 1] = '\0';
    return 0;
}

static int read_policies(struct reading *r)
{
    int deny = 0, usage = -1;
    if (read_word(r, "egress", "allow", "deny", &deny) != 0 ||
        read_word(r, "usage", "file", "stream-json", &usage) != 0)
        return -1;
    r->out->egress = deny != 0 ? EGRESS_DENY : EGRESS_ALLOW;
    r->out->usage = usage < 0 ? USAGE_NONE : usage == 0 ? USAGE_FILE : USAGE_STREAM_JSON;
    return 0;
}

static int read_template(const struct reading *r)
{
    const struct json_value *v = json_get(r->root, "template");
    struct str name;
    if (v == NULL)
        return 0;
    if (!json_str(v, &name) || !template_valid(name))
        return fault(r, v, "\"template\" must be " TEMPLATE_FORM);
    str_copy(name, r->out->template, sizeof r->out->template);
    return 0;
}

/* `$schema` is for editors: it may name any. */
static int read_texts(struct reading *r)
{
    struct manifest *m = r->out;
    const struct json_value *schema = json_get(r->root, "$schema"), *name = json_get(r->root, "name"),
                            *runtime = json_get(r->root, "runtime");
    if (schema != NULL && json_type_of(schema) != JSON_STRING)
        return fault(r, schema, "\"$schema\" must be a string");
    if (read_text(r, "name", m->name, sizeof m->name) != 0 ||
        read_text(r, "description", m->description, sizeof m->description) != 0 ||
        read_text(r, "runtime", m->runtime, sizeof m->runtime) != 0 ||
        read_text(r, "entry", m->entry, sizeof m->entry) != 0 ||
        read_text(r, "install", m->install, sizeof m->install) != 0 ||
        read_text(r, "check", m->check, sizeof m->check) != 0)
        return -1;
    r->install_stated = json_get(r->root, "install") != NULL;
    if (name != NULL && !agent_slug_valid(str_of(m->name)))
        return fault(r, name, "\"name\" must be lower-case letters, digits and hyphens, at most 63");
    if (runtime != NULL && strcmp(m->runtime, "node") != 0 && strcmp(m->runtime, "python") != 0 &&
        strcmp(m->runtime, "command") != 0)
        return fault(r, runtime, "\"runtime\" must be node, python or command");
    return 0;
}

static int read_all(struct reading *r)
{
    if (json_type_of(r->root) != JSON_OBJECT)
        return err_set(r->err, ERR_BAD_MANIFEST, "%s must hold a JSON object", r->of);
    if (check_keys(r, r->root, manifest_keys, "") != 0 || read_texts(r) != 0 || read_template(r) != 0 ||
        read_env(r) != 0 || read_secrets(r) != 0 || read_limits(r) != 0 || read_pool(r) != 0 ||
        read_policies(r) != 0 || read_retry(r) != 0)
        return -1;
    return read_artifacts(r);
}

static int read_document(struct str text, struct manifest *out, bool *install_stated, struct err *err)
{
    struct json *doc = json_parse(text, err);
    if (doc == NULL) {
        err_wrap(err, "agent.json");
        if (err != NULL && err->code != ERR_NO_MEMORY)
            err->code = ERR_BAD_MANIFEST;
        return -1;
    }
    struct reading r = {.doc = doc, .root = json_root(doc), .out = out, .of = "agent.json", .err = err};
    int rc = read_all(&r);
    *install_stated = r.install_stated;
    json_free(&doc);
    return rc;
}

int manifest_parse(struct str text, const struct agent_tree *tree, struct manifest *out, struct err *err)
{
    bool install_stated = false;
    *out = (struct manifest){0};
    if (text.n > 0 && read_document(text, out, &install_stated, err) != 0)
        return -1;
    return agent_tree_defaults(tree, install_stated, out, err);
}

int manifest_of_template(const struct json *doc, const struct json_value *value, struct str template,
                         struct manifest *out, struct err *err)
{
    struct reading r = {.doc = doc, .root = value, .out = out, .of = "manifest", .err = err};
    *out = (struct manifest){0};
    if (value != NULL && read_all(&r) != 0)
        return -1;
    if (out->template[0] != '\0' && !str_eq_c(template, out->template))
        return err_set(err, ERR_BAD_MANIFEST,
                       "manifest: \"template\" is another one than the deploy's: leave it out");
    if (!str_copy(template, out->template, sizeof out->template))
        return err_set(err, ERR_BAD_FIELD, "template must be " TEMPLATE_FORM);
    if (out->runtime[0] == '\0')
        str_copy(STR("command"), out->runtime, sizeof out->runtime);
    if (out->entry[0] != '\0')
        return 0;
    return err_set(err, ERR_BAD_MANIFEST,
                   "a template does not say what is to run: give \"entry\" in the manifest, such as "
                   "{\"entry\": \"my-program\"}");
}

int manifest_read(struct str text, struct manifest *out, struct err *err)
{
    bool install_stated;
    *out = (struct manifest){0};
    return read_document(text, out, &install_stated, err);
}

/* ---- what cannot be done ---- */

int manifest_check(const struct manifest *m, struct err *err)
{
    static const char size[] =
        "cannot be kept: sandboxes have what their template was made with. Make a template "
        "that has it, and name that one as \"template\"";
    const struct {
        bool stated;
        const char *key, *why;
    } rows[] = {
        {m->memory_mb > 0, "memory_mb", size},
        {m->cpus > 0, "cpus", size},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].stated)
            return err_set(err, ERR_UNSUPPORTED, "agent.json: \"%s\" %s", rows[i].key, rows[i].why);
    return 0;
}
