/* Commands of a build. */
#include "build_command.h"

#include <stdio.h>

#include "build_git.h"

enum { CLONE_MS = 120000, START_MS = 30000, KILL_AFTER_MS = 10000 };

static const struct {
    const char *name;
    enum err_code code; /* of its failure */
} commands[] = {
    [BUILD_CLONE] = {"clone", ERR_JOB_CLONE},
    [BUILD_INSTALL] = {"install step", ERR_JOB_BUILD},
    [BUILD_ENTRY] = {"look for the entry", ERR_JOB_ENTRY},
    [BUILD_CHECK] = {"check", ERR_JOB_CHECK},
};

int64_t build_command_limit_ms(const struct settings *s, enum build_command c)
{
    const int64_t limits[] = {[BUILD_CLONE] = CLONE_MS,
                              [BUILD_INSTALL] = s->install_ms,
                              [BUILD_ENTRY] = START_MS,
                              [BUILD_CHECK] = s->check_ms};
    return limits[c];
}

struct sandbox_request *build_command_start(struct job *j, enum build_command c, const char *script,
                                            const char *text, const char *more,
                                            const struct sandbox_process_events *events)
{
    const char *const args[] = {"-c", script, text[0] != '\0' ? "build" : NULL, text, more, NULL};
    const char *env[MANIFEST_ENV_MAX + 1] = {NULL};
    manifest_env(j->version.manifest, env, MANIFEST_ENV_MAX);
    const struct sandbox_spawn spec = {.sandbox = &j->sandbox,
                                       .cmd = "/bin/sh",
                                       .args = args,
                                       .env = env,
                                       .kill_after_ms =
                                           build_command_limit_ms(j->x->settings, c) + KILL_AFTER_MS,
                                       .start_deadline_ms = START_MS};
    return sandbox_spawn(j->x->provider, &spec, events);
}

/* An exit code other than 0. */
static void say_failed(const struct job *j, enum build_command c, int code, char message[BUILD_MESSAGE_BYTES])
{
    if (c == BUILD_CLONE)
        build_git_failed(j->version.git, code, message, BUILD_MESSAGE_BYTES);
    else if (c == BUILD_ENTRY)
        snprintf(message, BUILD_MESSAGE_BYTES, "the entry %s is not there after the install step",
                 j->version.manifest->entry);
    else
        snprintf(message, BUILD_MESSAGE_BYTES, "the %s ended with exit code %d", commands[c].name, code);
}

enum err_code build_command_end(const struct job *j, enum build_command c, const struct sandbox_exit *e,
                                char message[BUILD_MESSAGE_BYTES])
{
    if (e->oom_killed) {
        snprintf(message, BUILD_MESSAGE_BYTES, "the %s ran out of memory", commands[c].name);
        return ERR_JOB_OUT_OF_MEMORY;
    }
    if (e->kind == SANDBOX_EXITED && e->code == 0)
        return ERR_NONE;
    if (e->kind == SANDBOX_EXITED)
        say_failed(j, c, e->code, message);
    else
        snprintf(message, BUILD_MESSAGE_BYTES, "the %s was ended by signal %s", commands[c].name, e->signal);
    return commands[c].code;
}

enum err_code build_command_late(const struct job *j, enum build_command c, char message[BUILD_MESSAGE_BYTES])
{
    snprintf(message, BUILD_MESSAGE_BYTES, "the %s exceeded its limit of %lld s", commands[c].name,
             (long long)(build_command_limit_ms(j->x->settings, c) / 1000));
    return commands[c].code;
}
