/* Variables in clear, "NAME=VALUE" each, in guarded memory: locked when the limit allows, in no core dump,
 * wiped when the last owner lets go. */
#ifndef EXECUTOR_VARS_H
#define EXECUTOR_VARS_H

#include <stdbool.h>

#include "base/str.h"

struct vars;

/* Room for `count` variables whose names and values have `bytes` together. NULL without memory. */
struct vars *vars_new(size_t count, size_t bytes);
struct vars *vars_keep(struct vars *v); /* one owner more; NULL is fine */
void vars_free(struct vars **v);
/* False when there is no room. */
bool vars_add(struct vars *v, struct str name, struct str value);

size_t vars_count(const struct vars *v); /* 0 of NULL */
const char *vars_pair(const struct vars *v, size_t i);
struct str vars_name(const struct vars *v, size_t i);
struct str vars_value(const struct vars *v, size_t i);
bool vars_has(const struct vars *v, struct str name);

#endif
