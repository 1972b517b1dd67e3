/* A manifest written down, in agent.json's own form. */
#include <string.h>

#include "model/invocation.h"
#include "model/manifest.h"

static void write_text(struct json_writer *w, const char *key, const char *text)
{
    if (text[0] != '\0')
        jw_kcstr(w, key, text);
}

static void write_count(struct json_writer *w, const char *key, int64_t n)
{
    if (n > 0)
        jw_kint(w, key, n);
}

static void write_env(struct json_writer *w, const struct manifest *m)
{
    const char *env[MANIFEST_ENV_MAX];
    int n = manifest_env(m, env, MANIFEST_ENV_MAX);
    if (n == 0)
        return;
    jw_key(w, "env");
    jw_object(w);
    for (int i = 0; i < n; i++) {
        struct str value = str_of(env[i]), name;
        str_split(&value, '=', &name);
        jw_key_str(w, name);
        jw_str(w, value);
    }
    jw_object_end(w);
}

static void write_secrets(struct json_writer *w, const struct manifest *m)
{
    if (m->secret_count == 0)
        return;
    jw_key(w, "secrets");
    jw_array(w);
    for (int i = 0; i < m->secret_count; i++)
        jw_cstr(w, m->secrets[i]);
    jw_array_end(w);
}

static void write_pool(struct json_writer *w, const struct manifest_pool *p)
{
    if (!p->stated)
        return;
    jw_key(w, "warm_pool");
    if (p->automatic) {
        jw_cstr(w, "auto");
        return;
    }
    jw_object(w);
    jw_kint(w, "min", p->min);
    jw_kint(w, "max", p->max);
    jw_object_end(w);
}

static void write_retry(struct json_writer *w, const struct manifest *m)
{
    if (m->max_attempts == 0)
        return;
    jw_key(w, "retry");
    jw_object(w);
    jw_kint(w, "max_attempts", m->max_attempts);
    jw_key(w, "on");
    jw_array(w);
    if ((m->retry_on & INV_RETRY_FAILED) != 0)
        jw_cstr(w, inv_state_name(INV_FAILED));
    if ((m->retry_on & INV_RETRY_TIMED_OUT) != 0)
        jw_cstr(w, inv_state_name(INV_TIMED_OUT));
    jw_array_end(w);
    jw_object_end(w);
}

void manifest_write(const struct manifest *m, struct json_writer *w)
{
    jw_object(w);
    write_text(w, "name", m->name);
    write_text(w, "description", m->description);
    write_text(w, "template", m->template);
    jw_kcstr(w, "runtime", m->runtime);
    jw_kcstr(w, "entry", m->entry);
    jw_kcstr(w, "install", m->install);
    write_text(w, "check", m->check);
    write_env(w, m);
    write_secrets(w, m);
    if (m->redact_output)
        jw_kbool(w, "redact_output", true);
    write_count(w, "timeout_s", m->timeout_ms / 1000);
    write_count(w, "memory_mb", m->memory_mb);
    write_count(w, "cpus", m->cpus);
    write_pool(w, &m->warm_pool);
    jw_kcstr(w, "egress", m->egress == EGRESS_DENY ? "deny" : "allow");
    write_count(w, "output_max_bytes", m->output_max_bytes);
    write_retry(w, m);
    write_text(w, "artifacts", m->artifacts);
    if (m->usage != USAGE_NONE)
        jw_kcstr(w, "usage", m->usage == USAGE_FILE ? "file" : "stream-json");
    jw_object_end(w);
}

int manifest_env(const struct manifest *m, const char **out, int max)
{
    const char *at = m->env;
    int n = 0;
    for (; n < m->env_count && n < max; n++) {
        out[n] = at;
        at += strlen(at) + 1;
    }
    return n;
}
