/* Templates that agents name, against the snapshots of versions: those are templates, too, to the provider.
 */
#ifndef STORE_TEMPLATES_H
#define STORE_TEMPLATES_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "postgres/pg.h"

/* ours: it is a snapshot that a version of this deployment, of any tenant, starts from, or has this
 * deployment's id in its name, as all its snapshots have. */
typedef void template_ours_fn(void *arg, bool ours, const struct err *err);
int template_ours(struct pg *pg, struct str name, int64_t deadline_ms, template_ours_fn *fn, void *arg,
                  struct err *err);

#endif
