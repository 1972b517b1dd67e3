/* The template that a version is built on. */
#include "build_template.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/templates.h"

enum { STORE_MS = 30000 };

struct check {
    struct executor *x;
    struct uuid job;
    char name[TEMPLATE_BYTES];
    build_template_fn *fn;
};

static void on_ours(void *arg, bool ours, const struct err *err)
{
    struct check *k = arg;
    struct err refused = ERR_INIT;
    if (err == NULL && ours) {
        err_set(&refused, ERR_TEMPLATE,
                "template %s is a version of an agent: only templates of your own making may be named",
                k->name);
        err = &refused;
    }
    k->fn(k->x, k->job, err);
    free(k);
}

int build_template_check(struct executor *x, struct uuid job, const char *name, build_template_fn *fn,
                         struct err *err)
{
    if (!template_allowed(x->settings->templates, str_of(name)))
        return err_set(err, ERR_TEMPLATE, "template %s is none of those that SANDPIPER_TEMPLATES allows",
                       name);
    struct check *k = malloc(sizeof *k);
    INVARIANT(k != NULL); /* bounded by the builds of this process */
    *k = (struct check){.x = x, .job = job, .fn = fn};
    str_copy(str_of(name), k->name, sizeof k->name);
    if (template_ours(x->read, str_of(name), STORE_MS, on_ours, k, err) == 0)
        return 0;
    free(k);
    return -1;
}

bool build_template_refused(const struct manifest *m, const struct sandbox_failure *f, char *out,
                            size_t out_bytes)
{
    if (m->template[0] == '\0' || f->retry != RETRY_NEVER)
        return false;
    snprintf(out, out_bytes, "template %s cannot be used: %s", m->template, f->err.msg);
    return true;
}
