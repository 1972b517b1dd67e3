/* A git repository as an agent's source: where it may be, and what of it. Pure. */
#ifndef MODEL_GIT_SOURCE_H
#define MODEL_GIT_SOURCE_H

#include "base/err.h"
#include "base/str.h"

enum { GIT_URL_BYTES = 1025, GIT_REF_BYTES = 201, GIT_COMMIT_BYTES = 65 };

/* Plain values. */
struct git_source {
    char url[GIT_URL_BYTES];
    char ref[GIT_REF_BYTES]; /* a branch, a tag or a commit; "" for what the repository's HEAD is */
};

/* https, http and git alone: others run programs or read files where git runs. No user or password in the
 * URL: it is shown, logged and kept. ref may be empty. -1 and ERR_BAD_FIELD. */
int git_source_read(struct str url, struct str ref, struct git_source *out, struct err *err);

#endif
