/* Agents: names, states of versions, the command that runs one. */
#include "model/agent.h"

#include <stdio.h>
#include <string.h>

const char *agent_status_name(enum agent_status s)
{
    switch (s) {
    case AGENT_BUILDING:
        return "building";
    case AGENT_READY:
        return "ready";
    case AGENT_FAILED:
        return "failed";
    case AGENT_RETIRED:
        return "retired";
    }
    return "unknown";
}

static bool slug_char(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c == '-' && !first);
}

bool agent_slug_valid(struct str s)
{
    if (s.n == 0 || s.n >= AGENT_SLUG_BYTES)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!slug_char(s.p[i], i == 0))
            return false;
    return true;
}

bool agent_ref_parse(struct str s, struct str *slug_out, int32_t *version_out)
{
    struct str rest = s;
    *version_out = 0;
    if (!str_split(&rest, '@', slug_out) || !agent_slug_valid(*slug_out))
        return false;
    if (rest.p == NULL)
        return true;
    uint64_t v;
    if (!str_to_u64(rest, &v) || v == 0 || v > INT32_MAX)
        return false;
    *version_out = (int32_t)v;
    return true;
}

/* Single-quoted for a POSIX shell. */
static bool quote(struct str s, char *out, size_t out_bytes, size_t *at)
{
    for (size_t i = 0; i < s.n; i++) {
        const char *piece = s.p[i] == '\'' ? "'\\''" : NULL;
        size_t n = piece != NULL ? 4 : 1;
        if (*at + n + 2 > out_bytes)
            return false;
        memcpy(out + *at, piece != NULL ? piece : s.p + i, n);
        *at += n;
    }
    return true;
}

bool agent_run_command(const char *runtime, const char *entry, char *out, size_t out_bytes)
{
    const char *interpreter = strcmp(runtime, "node") == 0     ? "node"
                              : strcmp(runtime, "python") == 0 ? "python3"
                                                               : NULL;
    if (interpreter == NULL) {
        int n = snprintf(out, out_bytes, "%s", entry);
        return n >= 0 && (size_t)n < out_bytes;
    }
    int n = snprintf(out, out_bytes, "exec %s '", interpreter);
    if (n < 0 || (size_t)n >= out_bytes)
        return false;
    size_t at = (size_t)n;
    if (!quote(str_of(entry), out, out_bytes, &at))
        return false;
    out[at++] = '\'';
    out[at] = '\0';
    return true;
}
