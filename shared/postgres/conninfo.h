/* Where to connect and as whom: a url with the project's own settings over it (private to shared/postgres).
 */
#ifndef POSTGRES_CONNINFO_H
#define POSTGRES_CONNINFO_H

#include <libpq-fe.h>

#include "base/err.h"

struct pg_conninfo;

/* ERR_CONFIG when libpq cannot read the url (the message never holds its password). */
struct pg_conninfo *pg_conninfo_new(const char *url, const char *application, struct err *err);
void pg_conninfo_free(struct pg_conninfo **info);

/* PQconnectStartParams with it; resolves host names synchronously. NULL without memory. */
PGconn *pg_conninfo_start(const struct pg_conninfo *info);

#endif
