/* Commands that a build runs in its sandbox: how each is started, and what its end means. */
#ifndef EXECUTOR_BUILD_COMMAND_H
#define EXECUTOR_BUILD_COMMAND_H

#include "job.h"

enum build_command { BUILD_CLONE, BUILD_INSTALL, BUILD_ENTRY, BUILD_CHECK };
enum { BUILD_MESSAGE_BYTES = AGENT_TEXT_BYTES + 96 };

int64_t build_command_limit_ms(const struct settings *s, enum build_command c);

/* script has what it is about as "$1" and "$2", so that nothing is quoted twice. NULL: the provider refused.
 */
struct sandbox_request *build_command_start(struct job *j, enum build_command c, const char *script,
                                            const char *text, const char *more,
                                            const struct sandbox_process_events *events);

/* ERR_NONE: it has succeeded. Else the build has failed with that code, and message says why. */
enum err_code build_command_end(const struct job *j, enum build_command c, const struct sandbox_exit *e,
                                char message[BUILD_MESSAGE_BYTES]);

/* The same of one that exceeded its limit. */
enum err_code build_command_late(const struct job *j, enum build_command c,
                                 char message[BUILD_MESSAGE_BYTES]);

#endif
