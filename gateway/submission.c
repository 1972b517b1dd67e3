/* A submission's fields: read, checked, and nothing else. A field of a submission is added here. */
#include "submission.h"

#include <string.h>

#include "model/agent.h"

enum { KNOWN_MAX = 24 };

struct reading {
    const struct json *doc;
    struct submission *sub;
    struct submission_agent *agent;
};

static const char *const known_fields[] = {"agent",      "prompt", "timeout_s",       "priority",
                                           "metadata",   "retry",  "queue_timeout_s", "webhook",
                                           "not_before", "env",    "files",           NULL};
static const char *const coming_fields[] = {"webhook", "not_before", "env", "files"};

static int read_whole(const struct json *doc, const struct json_value *v, const char *name, int64_t min,
                      int64_t max, int64_t *out, struct err *err)
{
    if (v == NULL)
        return 0;
    if (!json_int(doc, v, out) || *out < min || *out > max)
        return err_set(err, ERR_BAD_FIELD, "%s must be a whole number from %lld to %lld", name,
                       (long long)min, (long long)max);
    return 0;
}

static int read_prompt(struct reading *r, const struct json_value *root, struct err *err)
{
    const struct json_value *v = json_get(root, "prompt");
    if (v == NULL)
        return err_set(err, ERR_MISSING_FIELD, "prompt is required");
    if (!json_str(v, &r->sub->prompt))
        return err_set(err, ERR_BAD_FIELD, "prompt must be a string");
    if (r->sub->prompt.n > INV_PROMPT_MAX_BYTES)
        return err_set(err, ERR_PROMPT_TOO_LARGE, "the prompt has %zu bytes; the limit is %d",
                       r->sub->prompt.n, INV_PROMPT_MAX_BYTES);
    return 0;
}

static int read_agent(struct reading *r, const struct json_value *root, struct err *err)
{
    struct str ref;
    const struct json_value *v = json_get(root, "agent");
    if (v == NULL && r->agent->slug.n > 0)
        return 0; /* the default stands */
    if (v == NULL)
        return err_set(err, ERR_MISSING_FIELD, "agent is required");
    if (!json_str(v, &ref) || !agent_ref_parse(ref, &r->agent->slug, &r->agent->version))
        return err_set(err, ERR_BAD_FIELD, "agent must be a name, or name@version");
    return 0;
}

static int read_priority(struct reading *r, const struct json_value *root, struct err *err)
{
    struct str name;
    const struct json_value *v = json_get(root, "priority");
    r->sub->priority = INV_NORMAL;
    if (v != NULL && (!json_str(v, &name) || !inv_priority_parse(name, &r->sub->priority)))
        return err_set(err, ERR_BAD_FIELD, "priority must be high, normal or low");
    return 0;
}

static int read_metadata(struct reading *r, const struct json_value *root, struct err *err)
{
    const struct json_value *v = json_get(root, "metadata");
    if (v == NULL)
        return 0;
    if (json_type_of(v) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "metadata must be an object");
    struct str source = json_member_source(r->doc, "metadata");
    if (source.n > INV_METADATA_MAX_BYTES)
        return err_set(err, ERR_METADATA_TOO_LARGE, "metadata has %zu bytes; the limit is %d", source.n,
                       INV_METADATA_MAX_BYTES);
    r->sub->metadata = source;
    return 0;
}

static int read_retry_on(struct submission *sub, const struct json_value *on, struct err *err)
{
    for (const struct json_value *v = json_first(on); v != NULL; v = json_next(v)) {
        struct str name = str_of(NULL);
        bool text = json_str(v, &name);
        int bit = text && str_eq_c(name, "failed")      ? INV_RETRY_FAILED
                  : text && str_eq_c(name, "timed_out") ? INV_RETRY_TIMED_OUT
                                                        : 0;
        if (bit == 0)
            return err_set(err, ERR_BAD_FIELD, "retry.on may hold \"failed\" and \"timed_out\"");
        sub->retry_on = (int16_t)(sub->retry_on | bit);
    }
    return 0;
}

static int read_retry(struct reading *r, const struct json_value *root, struct err *err)
{
    static const char *const known[] = {"max_attempts", "on", NULL};
    const struct json_value *v = json_get(root, "retry"), *on = json_get(v, "on");
    int64_t max = 1;
    if (v == NULL)
        return 0; /* the agent's, or none */
    if (json_type_of(v) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "retry must be an object");
    if (json_known_fields(v, known, err) != 0)
        return err_wrap(err, "retry");
    if (read_whole(r->doc, json_get(v, "max_attempts"), "retry.max_attempts", 1, INV_MAX_ATTEMPTS, &max,
                   err) != 0)
        return -1;
    r->sub->max_attempts = (int16_t)max;
    if (on == NULL)
        r->sub->retry_on = INV_RETRY_FAILED | INV_RETRY_TIMED_OUT;
    else if (json_type_of(on) != JSON_ARRAY)
        return err_set(err, ERR_BAD_FIELD, "retry.on must be an array");
    return read_retry_on(r->sub, on, err);
}

static int read_limits(struct reading *r, const struct json_value *root, struct err *err)
{
    int64_t timeout = 0, queue = INV_QUEUE_TIMEOUT_DEFAULT_MS / 1000;
    if (read_whole(r->doc, json_get(root, "timeout_s"), "timeout_s", 1, INV_TIMEOUT_MAX_MS / 1000, &timeout,
                   err) != 0 ||
        read_whole(r->doc, json_get(root, "queue_timeout_s"), "queue_timeout_s", 1,
                   INV_QUEUE_TIMEOUT_MAX_MS / 1000, &queue, err) != 0)
        return -1;
    r->sub->timeout_ms = (int32_t)(timeout * 1000); /* 0: the agent's, or the system's */
    r->sub->queue_timeout_ms = queue * 1000;
    return 0;
}

static bool is_own(const char *const *own, const char *name)
{
    for (; own != NULL && *own != NULL; own++)
        if (strcmp(*own, name) == 0)
            return true;
    return false;
}

static int read_not_before(struct reading *r, const struct json_value *root, struct err *err)
{
    struct str text;
    wall_t at, now = wall_now();
    const struct json_value *v = json_get(root, "not_before");
    if (v == NULL)
        return 0;
    if (!json_str(v, &text) || !wall_parse(text, &at) || at.us > now.us + INV_NOT_BEFORE_MAX_MS * 1000)
        return err_set(err, ERR_BAD_FIELD,
                       "not_before must be an RFC 3339 time within 30 days, as in 2026-11-21T07:30:00Z");
    if (at.us <= now.us)
        return 0; /* at once */
    r->sub->not_before = at;
    r->sub->queue_timeout_ms += (at.us - now.us) / 1000; /* it begins to wait then */
    return 0;
}

/* The names of the system's fields and of the caller's own. */
static int check_names(const struct json_value *root, const char *const *own, struct err *err)
{
    const char *known[KNOWN_MAX + 1] = {NULL};
    size_t n = 0;
    for (size_t i = 0; known_fields[i] != NULL; i++)
        known[n++] = known_fields[i];
    for (size_t i = 0; own != NULL && own[i] != NULL && n < KNOWN_MAX; i++)
        known[n++] = own[i];
    if (json_known_fields(root, known, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof coming_fields / sizeof *coming_fields; i++)
        if (json_get(root, coming_fields[i]) != NULL && !is_own(own, coming_fields[i]) &&
            strcmp(coming_fields[i], "env") == 0)
            return err_set(
                err, ERR_UNSUPPORTED,
                "env goes with single submissions only: give it to POST /v1/invocations, or make it a "
                "secret of the agent");
        else if (json_get(root, coming_fields[i]) != NULL && !is_own(own, coming_fields[i]))
            return strcmp(coming_fields[i], "files") == 0
                       ? err_set(err, ERR_UNSUPPORTED,
                                 "files come with single submissions only: POST /v1/invocations")
                       : err_set(err, ERR_UNSUPPORTED, "\"%s\" is not available in this version",
                                 coming_fields[i]);
    return 0;
}

int submission_read(const struct json *doc, const char *const *own, struct submission *sub,
                    struct submission_agent *agent, struct err *err)
{
    struct reading r = {.doc = doc, .sub = sub, .agent = agent};
    const struct json_value *root = json_root(doc);
    if (json_type_of(root) != JSON_OBJECT)
        return err_set(err, ERR_BAD_JSON, "the body must be a JSON object");
    if (check_names(root, own, err) != 0 || read_agent(&r, root, err) != 0 ||
        read_prompt(&r, root, err) != 0 || read_limits(&r, root, err) != 0 ||
        read_priority(&r, root, err) != 0 || read_retry(&r, root, err) != 0 ||
        read_not_before(&r, root, err) != 0)
        return -1;
    return read_metadata(&r, root, err);
}
