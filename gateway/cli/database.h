/* For the commands that talk to PostgreSQL themselves. */
#ifndef CLI_DATABASE_H
#define CLI_DATABASE_H

#include "base/err.h"

/* given (an option's value) or SANDPIPER_DATABASE_URL; NULL, and told, without either. */
const char *database_url(const char *given);

/* What to do about a failure of the database. */
const char *database_advice(const struct err *err);

#endif
