/* Agents: names, the manifest with its defaults, the command that runs them. */
#include "model/agent.h"

#include <stdio.h>
#include <string.h>

#include "json/json.h"

const char *agent_status_name(enum agent_status s)
{
    switch (s) {
    case AGENT_BUILDING:
        return "building";
    case AGENT_READY:
        return "ready";
    case AGENT_FAILED:
        return "failed";
    }
    return "unknown";
}

static bool slug_char(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '-' && !first);
}

bool agent_slug_valid(struct str s)
{
    if (s.n == 0 || s.n >= AGENT_SLUG_BYTES)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!slug_char(s.p[i], i == 0))
            return false;
    return true;
}

bool agent_ref_parse(struct str s, struct str *slug_out, int32_t *version_out)
{
    struct str rest = s;
    *version_out = 0;
    if (!str_split(&rest, '@', slug_out) || !agent_slug_valid(*slug_out))
        return false;
    if (rest.p == NULL)
        return true;
    uint64_t v;
    if (!str_to_u64(rest, &v) || v == 0 || v > INT32_MAX)
        return false;
    *version_out = (int32_t)v;
    return true;
}

/* A text member into a fixed field; absent leaves it alone. */
static int text_member(const struct json_value *root, const char *key, char *out, size_t out_bytes,
                       struct err *err)
{
    const struct json_value *v = json_get(root, key);
    struct str s;
    if (v == NULL)
        return 0;
    if (!json_str(v, &s) || !str_copy(s, out, out_bytes) || memchr(s.p, '\n', s.n) != NULL)
        return err_set(err, ERR_BAD_MANIFEST,
                       "agent.json: \"%s\" must be one line of text of at most %zu bytes", key,
                       out_bytes - 1);
    return 0;
}

static int limits_member(const struct json *doc, const struct json_value *root, struct agent_manifest *out,
                         struct err *err)
{
    int64_t sec;
    const struct json_value *v = json_get(root, "timeout_s");
    if (v == NULL)
        return 0;
    if (!json_int(doc, v, &sec) || sec < 1 || sec > 3600)
        return err_set(err, ERR_BAD_MANIFEST,
                       "agent.json: \"timeout_s\" must be a whole number from 1 to 3600");
    out->timeout_ms = (int32_t)(sec * 1000);
    return 0;
}

static int read_members(const struct json *doc, struct agent_manifest *out, bool *install_set,
                        struct err *err)
{
    static const char *const known[] = {"name",      "runtime",     "entry", "install",
                                        "timeout_s", "description", NULL};
    const struct json_value *root = json_root(doc);
    if (json_type_of(root) != JSON_OBJECT)
        return err_set(err, ERR_BAD_MANIFEST, "agent.json must hold a JSON object");
    if (json_known_fields(root, known, err) != 0) {
        err_wrap(err, "agent.json");
        if (err != NULL)
            err->code = ERR_BAD_MANIFEST;
        return -1;
    }
    *install_set = json_get(root, "install") != NULL;
    if (text_member(root, "name", out->name, sizeof out->name, err) != 0 ||
        text_member(root, "runtime", out->runtime, sizeof out->runtime, err) != 0 ||
        text_member(root, "entry", out->entry, sizeof out->entry, err) != 0 ||
        text_member(root, "install", out->install, sizeof out->install, err) != 0)
        return -1;
    return limits_member(doc, root, out, err);
}

static void guess_runtime(const struct agent_tree *tree, struct agent_manifest *out)
{
    const char *runtime = tree->package_json || tree->index_js || tree->agent_js      ? "node"
                          : tree->requirements_txt || tree->main_py || tree->agent_py ? "python"
                          : tree->run_sh                                              ? "command"
                                                                                      : "";
    snprintf(out->runtime, sizeof out->runtime, "%s", runtime);
}

static const char *default_entry(const struct agent_tree *tree, const char *runtime)
{
    if (strcmp(runtime, "node") == 0)
        return tree->index_js ? "index.js" : tree->agent_js ? "agent.js" : "";
    if (strcmp(runtime, "python") == 0)
        return tree->main_py ? "main.py" : tree->agent_py ? "agent.py" : "";
    return tree->run_sh ? "sh run.sh" : "";
}

static const char *default_install(const struct agent_tree *tree, const char *runtime)
{
    if (strcmp(runtime, "node") == 0 && tree->package_json)
        return "npm install --no-audit --no-fund";
    if (strcmp(runtime, "python") == 0 && tree->requirements_txt)
        return "python3 -m pip install --user --break-system-packages -r requirements.txt";
    return "";
}

static int fill_defaults(const struct agent_tree *tree, bool install_set, struct agent_manifest *out,
                         struct err *err)
{
    if (out->runtime[0] == '\0')
        guess_runtime(tree, out);
    if (out->runtime[0] == '\0')
        return err_set(
            err, ERR_BAD_MANIFEST,
            "there is no program that can be recognised: add an index.js, main.py or run.sh at the top, "
            "or an agent.json that has \"runtime\" and \"entry\"");
    if (strcmp(out->runtime, "node") != 0 && strcmp(out->runtime, "python") != 0 &&
        strcmp(out->runtime, "command") != 0)
        return err_set(err, ERR_BAD_MANIFEST, "agent.json: \"runtime\" must be node, python or command");
    if (out->entry[0] == '\0')
        snprintf(out->entry, sizeof out->entry, "%s", default_entry(tree, out->runtime));
    if (out->entry[0] == '\0')
        return err_set(
            err, ERR_BAD_MANIFEST,
            "the agent has no entry: add index.js (node), main.py (python), or \"entry\" in agent.json");
    if (!install_set)
        snprintf(out->install, sizeof out->install, "%s", default_install(tree, out->runtime));
    return 0;
}

int agent_manifest_parse(struct str text, const struct agent_tree *tree, struct agent_manifest *out,
                         struct err *err)
{
    *out = (struct agent_manifest){0};
    bool install_set = false;
    if (text.n > 0) {
        struct json *doc = json_parse(text, err);
        if (doc == NULL) {
            err_wrap(err, "agent.json");
            if (err != NULL)
                err->code = ERR_BAD_MANIFEST;
            return -1;
        }
        int rc = read_members(doc, out, &install_set, err);
        json_free(&doc);
        if (rc != 0)
            return -1;
    }
    if (out->name[0] != '\0' && !agent_slug_valid(str_of(out->name)))
        return err_set(err, ERR_BAD_MANIFEST,
                       "agent.json: \"name\" must be lower-case letters, digits and hyphens, at most 63");
    return fill_defaults(tree, install_set, out, err);
}

/* Single-quoted for a POSIX shell. */
static bool quote(struct str s, char *out, size_t out_bytes, size_t *at)
{
    for (size_t i = 0; i < s.n; i++) {
        const char *piece = s.p[i] == '\'' ? "'\\''" : NULL;
        size_t n = piece != NULL ? 4 : 1;
        if (*at + n + 2 > out_bytes)
            return false;
        memcpy(out + *at, piece != NULL ? piece : s.p + i, n);
        *at += n;
    }
    return true;
}

bool agent_run_command(const char *runtime, const char *entry, char *out, size_t out_bytes)
{
    const char *interpreter = strcmp(runtime, "node") == 0     ? "node"
                              : strcmp(runtime, "python") == 0 ? "python3"
                                                               : NULL;
    if (interpreter == NULL) {
        int n = snprintf(out, out_bytes, "%s", entry);
        return n >= 0 && (size_t)n < out_bytes;
    }
    int n = snprintf(out, out_bytes, "exec %s '", interpreter);
    if (n < 0 || (size_t)n >= out_bytes)
        return false;
    size_t at = (size_t)n;
    if (!quote(str_of(entry), out, out_bytes, &at))
        return false;
    out[at++] = '\'';
    out[at] = '\0';
    return true;
}
