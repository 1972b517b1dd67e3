/* Cloning (build_git.h). Shallow where the server can: a branch or tag always, a commit if it serves commits.
 * Else all branches and tags are fetched, and the commit looked up among them. git asks nobody for a
 * password: a repository that wants one fails at once.
 *
 * The account is text: the commit; the files at the top, one a line, with a star behind what may be executed;
 * an empty line; how long agent.json is, and agent.json; package.json. */
#include "build_git.h"

#include <stdio.h>

#include "model/agent_tree.h"

enum { NO_GIT = 69, BROKEN = 70, UNREACHABLE = 71, PASSWORD = 77, NO_REF = 78 };

const char build_git_script[] =
    "url=$1 ref=${2:-HEAD} said=/tmp/.sandpiper-git account=" BUILD_GIT_ACCOUNT "\n"
    "command -v git >/dev/null 2>&1 || exit 69\n"
    "export LC_ALL=C GIT_TERMINAL_PROMPT=0 GIT_ASKPASS= SSH_ASKPASS= GIT_CONFIG_NOSYSTEM=1\n"
    "export GIT_CONFIG_GLOBAL=/dev/null GIT_ALLOW_PROTOCOL=https:http:git\n"
    "export GIT_HTTP_LOW_SPEED_LIMIT=1000 GIT_HTTP_LOW_SPEED_TIME=30\n"
    "git init -q \"$HOME/agent\" 2>/dev/null && cd \"$HOME/agent\" && git remote add origin \"$url\" || exit "
    "70\n"
    "get() { git fetch -q --no-tags --no-recurse-submodules \"$@\" 2>\"$said\"; }\n"
    "fail() { cat \"$said\" >&2; exit \"$1\"; }\n"
    "at=FETCH_HEAD\n"
    "if ! get --depth 1 origin \"$ref\"; then\n"
    "  case $(cat \"$said\") in *'could not read '*|*'Authentication failed'*) fail 77;; esac\n"
    "  get origin '+refs/heads/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*' || fail 71\n"
    "  at=$(git rev-parse -q --verify \"$ref^{commit}\") || fail 78\n"
    "fi\n"
    "git checkout -q --detach \"$at\" || exit 70\n"
    "git rev-parse HEAD >\"$account\" && rm -rf .git \"$said\" || exit 70\n"
    "x() { if [ -x \"$1\" ]; then printf '%s *\\n' \"$1\"; else printf '%s\\n' \"$1\"; fi; }\n"
    "for f in *; do [ -f \"$f\" ] && x \"$f\"; done | grep -E '^[A-Za-z0-9._-]+( [*])?$' | head -n 1000 "
    ">>\"$account\"\n"
    "part() { if [ -f \"$1\" ]; then head -c \"$2\" \"$1\"; fi; }\n"
    "{ echo; part agent.json 65537 | wc -c; part agent.json 65537; part package.json 262144; } "
    ">>\"$account\"\n";

void build_git_failed(const struct git_source *git, int code, char *out, size_t out_bytes)
{
    switch (code) {
    case NO_GIT:
        snprintf(out, out_bytes, "there is no git in the template that it is built on");
        break;
    case PASSWORD:
        snprintf(out, out_bytes,
                 "the repository asks for a password: only those that anybody may read can be cloned; send "
                 "the archive of others");
        break;
    case NO_REF:
        snprintf(out, out_bytes, "the repository has no branch, tag or commit %s", git->ref);
        break;
    case UNREACHABLE:
        snprintf(out, out_bytes, "the repository cannot be fetched; the log has git's own words");
        break;
    default:
        snprintf(out, out_bytes, "cloning ended with exit code %d; the log may say why", code);
    }
}

static void note(struct agent_tree *tree, struct str line)
{
    bool executable = line.n > 2 && line.p[line.n - 1] == '*';
    agent_tree_note(tree, executable ? str_make(line.p, line.n - 2) : line, executable);
}

int build_git_read(struct str account, struct manifest *manifest_out, char commit_out[GIT_COMMIT_BYTES],
                   struct err *err)
{
    struct agent_tree tree = {0};
    struct str rest = account, line;
    uint64_t bytes;
    if (!str_split(&rest, '\n', &line) || !str_copy(line, commit_out, GIT_COMMIT_BYTES) || line.n == 0)
        return err_set(err, ERR_PROTOCOL, "the clone left no account of itself");
    while (str_split(&rest, '\n', &line) && line.n > 0)
        note(&tree, line);
    if (!str_split(&rest, '\n', &line) || !str_to_u64(str_trim(line), &bytes) || bytes > rest.n)
        return err_set(err, ERR_PROTOCOL, "the clone's account of itself is damaged");
    if (bytes > MANIFEST_BYTES)
        return err_set(err, ERR_BAD_MANIFEST, "agent.json has more than %d bytes", MANIFEST_BYTES);
    agent_tree_package(&tree, str_make(rest.p + bytes, rest.n - bytes));
    return manifest_parse(str_make(rest.p, bytes), &tree, manifest_out, err) == 0
               ? manifest_check(manifest_out, err)
               : -1;
}
