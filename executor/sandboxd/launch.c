/* What a start is made of (launch.h). */
#include "launch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "json/writer.h"

void launch_describe(struct buf *out, const struct process_spec *spec)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_kstr(&w, "cmd", spec->argv[0]);
    if (spec->argc > 1) {
        jw_key(&w, "args");
        jw_array(&w);
        for (size_t i = 1; i < spec->argc; i++)
            jw_str(&w, spec->argv[i]);
        jw_array_end(&w);
    }
    if (spec->cwd.n > 0)
        jw_kstr(&w, "cwd", spec->cwd);
    jw_object_end(&w);
}

/* An environment may hold secrets: no copy stays behind. */
static void put_env(struct wire_writer *w, const struct pairs *env)
{
    for (size_t i = 0; i < env->count; i++) {
        char *pair = NULL;
        int n = asprintf(&pair, "%s=%s", env->items[i].name, env->items[i].value);
        if (n < 0) {
            w->bad = true;
            return;
        }
        wire_put_str(w, pair, (size_t)n);
        crypto_wipe(pair, (size_t)n);
        free(pair);
    }
}

void launch_put(struct wire_writer *w, const struct sandbox *s, const struct process_spec *spec)
{
    const struct pairs *global = &sandbox_spec_of(s)->env;
    wire_put_str(w, spec->user.p, spec->user.n);
    wire_put_str(w, spec->cwd.p, spec->cwd.n);
    wire_put_u32(w, spec->pty ? WIRE_START_PTY : 0);
    wire_put_u32(w, spec->cols);
    wire_put_u32(w, spec->rows);
    wire_put_u32(w, (uint32_t)spec->argc);
    for (size_t i = 0; i < spec->argc; i++)
        wire_put_str(w, spec->argv[i].p, spec->argv[i].n);
    wire_put_u32(w, (uint32_t)(global->count + spec->env.count));
    put_env(w, global);
    put_env(w, &spec->env); /* the later one wins */
}

void launch_pipes_close(struct launch_pipes *p)
{
    for (int i = 0; i < 3; i++) {
        if (p->ours[i] >= 0)
            close(p->ours[i]);
        if (p->theirs[i] >= 0)
            close(p->theirs[i]);
    }
}

int launch_pipes_open(struct launch_pipes *p, bool stdin_open, struct err *err)
{
    *p = (struct launch_pipes){{-1, -1, -1}, {-1, -1, -1}};
    bool ok = true;
    for (int i = 0; i < 3 && ok; i++) {
        int pair[2];
        if (i == 0 && !stdin_open) {
            p->theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            ok = p->theirs[0] >= 0;
            continue;
        }
        ok = pipe2(pair, O_CLOEXEC) == 0;
        if (!ok)
            break;
        p->ours[i] = pair[i == 0];
        p->theirs[i] = pair[i != 0];
    }
    if (ok)
        return 0;
    launch_pipes_close(p);
    return err_set(err, ERR_OVERLOADED, "no descriptors for another process");
}
