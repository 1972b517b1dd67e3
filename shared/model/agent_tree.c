/* Defaults by the files. */
#include "model/agent_tree.h"

#include <stdio.h>
#include <string.h>

#include "json/json.h"

/* ---- what there is ---- */

/* Of letters that a shell takes as they are: the entry of a command is shell text. */
static bool is_word(struct str name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == '\0' || strchr(plain, name.p[i]) == NULL)
            return false;
    return name.n > 0 && name.n < AGENT_FILE_BYTES;
}

void agent_tree_note(struct agent_tree *t, struct str name, bool executable)
{
    const struct {
        const char *name;
        bool *seen;
    } files[] = {
        {"package.json", &t->package_json},
        {"requirements.txt", &t->requirements_txt},
        {"pyproject.toml", &t->pyproject_toml},
        {"index.js", &t->index_js},
        {"main.py", &t->main_py},
        {"run.sh", &t->run_sh},
        {"agent.js", &t->agent_js},
        {"agent.py", &t->agent_py},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (str_eq_c(name, files[i].name))
            *files[i].seen = true;
    if (!executable || !is_word(name))
        return;
    if (t->executables++ == 0 || str_eq_c(name, "agent"))
        str_copy(name, t->executable, sizeof t->executable);
}

static bool take_main(struct agent_tree *t, const struct json_value *v)
{
    struct str path;
    if (!json_str(v, &path))
        return false;
    if (str_starts(path, STR("./")))
        path = str_make(path.p + 2, path.n - 2);
    return path.n > 0 && memchr(path.p, '\n', path.n) == NULL &&
           str_copy(path, t->package_main, sizeof t->package_main);
}

void agent_tree_package(struct agent_tree *t, struct str text)
{
    struct json *doc = json_parse(text, NULL);
    const struct json_value *root = json_root(doc), *bin = json_get(root, "bin");
    struct str start;
    if (!take_main(t, json_get(root, "main")) && !take_main(t, bin))
        take_main(t, json_first(bin));
    t->start_script = json_str(json_get(json_get(root, "scripts"), "start"), &start) && start.n > 0;
    json_free(&doc);
}

/* ---- what follows from it ---- */

static bool one_executable(const struct agent_tree *t)
{
    return t->executables == 1 || strcmp(t->executable, "agent") == 0;
}

static const char *guess_runtime(const struct agent_tree *t)
{
    if (t->package_json || t->index_js || t->agent_js)
        return "node";
    if (t->requirements_txt || t->pyproject_toml || t->main_py || t->agent_py)
        return "python";
    return t->run_sh || one_executable(t) ? "command" : "";
}

static void guess_entry(const struct agent_tree *t, struct manifest *out)
{
    const char *entry = "";
    /* what `npm init` writes, whatever there is */
    bool absent = strcmp(t->package_main, "index.js") == 0 && !t->index_js && t->agent_js;
    if (strcmp(out->runtime, "node") == 0)
        entry = t->package_main[0] != '\0' && !absent ? t->package_main
                : t->index_js                         ? "index.js"
                : t->agent_js                         ? "agent.js"
                                                      : "";
    else if (strcmp(out->runtime, "python") == 0)
        entry = t->main_py ? "main.py" : t->agent_py ? "agent.py" : "";
    else if (t->run_sh)
        entry = "sh run.sh";
    snprintf(out->entry, sizeof out->entry, "%s", entry);
    if (strcmp(out->runtime, "command") == 0 && entry[0] == '\0' && one_executable(t))
        snprintf(out->entry, sizeof out->entry, "exec ./%s", t->executable);
}

static const char *default_install(const struct agent_tree *t, bool node, bool python)
{
    if (node && t->package_json)
        return "npm install --no-audit --no-fund";
    if (python && t->requirements_txt)
        return "python3 -m pip install --user --break-system-packages -r requirements.txt";
    if (python && t->pyproject_toml)
        return "python3 -m pip install --user --break-system-packages .";
    return "";
}

int agent_tree_defaults(const struct agent_tree *t, bool install_stated, struct manifest *out,
                        struct err *err)
{
    bool stated = out->runtime[0] != '\0';
    if (!stated)
        snprintf(out->runtime, sizeof out->runtime, "%s", guess_runtime(t));
    if (out->runtime[0] == '\0')
        return err_set(
            err, ERR_BAD_MANIFEST,
            "there is no program that can be recognised: add an index.js, main.py or run.sh at the top, "
            "or an agent.json that has \"runtime\" and \"entry\"");
    bool node = strcmp(out->runtime, "node") == 0, python = strcmp(out->runtime, "python") == 0;
    if (!install_stated)
        snprintf(out->install, sizeof out->install, "%s", default_install(t, node, python));
    if (out->entry[0] == '\0')
        guess_entry(t, out);
    if (out->entry[0] == '\0' && node && !stated && t->start_script) {
        snprintf(out->runtime, sizeof out->runtime, "command");
        snprintf(out->entry, sizeof out->entry, "npm start --silent");
    }
    if (out->entry[0] != '\0')
        return 0;
    return err_set(
        err, ERR_BAD_MANIFEST,
        "the agent has no entry: add index.js (node), main.py (python), or \"entry\" in agent.json");
}
