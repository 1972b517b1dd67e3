/* Cloning as a step of a build: what runs in the sandbox, and what it brings back. Nothing of a repository is
 * ever on the host. */
#ifndef EXECUTOR_BUILD_GIT_H
#define EXECUTOR_BUILD_GIT_H

#include "base/err.h"
#include "base/str.h"
#include "model/git_source.h"
#include "model/manifest.h"

/* A shell script with the arguments URL and REF. It leaves the tree in the agent's directory and an account
 * of it in BUILD_GIT_ACCOUNT. */
extern const char build_git_script[];
#define BUILD_GIT_ACCOUNT "/tmp/.sandpiper-source"
enum { BUILD_GIT_ACCOUNT_BYTES = 512 * 1024 };

/* What an exit code other than 0 of the script means, as a message. */
void build_git_failed(const struct git_source *git, int code, char *out, size_t out_bytes);

/* Reads the account: the commit, and agent.json with the defaults that the files give. ERR_BAD_MANIFEST,
 * ERR_UNSUPPORTED. */
int build_git_read(struct str account, struct manifest *manifest_out, char commit_out[GIT_COMMIT_BYTES],
                   struct err *err);

#endif
