/* For the commands that talk to PostgreSQL themselves. */
#ifndef CLI_DATABASE_H
#define CLI_DATABASE_H

/* given (an option's value) or SANDPIPER_DATABASE_URL; NULL, and told, without either. */
const char *database_url(const char *given);

#endif
