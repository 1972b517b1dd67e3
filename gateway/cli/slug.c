/* Names of agents. */
#include "slug.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

bool cli_is_slug(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n <= CLI_SLUG_MAX && s[0] != '-' &&
           strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* The last part of a path; "." and the like are looked up. */
static const char *last_part(const char *dir, char real[PATH_MAX])
{
    if (realpath(dir, real) == NULL && !str_copy(str_of(dir), real, PATH_MAX))
        return dir;
    for (size_t n = strlen(real); n > 1 && real[n - 1] == '/'; n--)
        real[n - 1] = '\0';
    const char *slash = strrchr(real, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : real;
}

int cli_slug_of(const char *dir, char out[CLI_SLUG_MAX + 1])
{
    char real[PATH_MAX];
    const char *name = last_part(dir, real);
    snprintf(out, CLI_SLUG_MAX + 1, "%.*s", CLI_SLUG_MAX, name);
    for (char *p = out; *p != '\0'; p++)
        *p = *p == '_' || *p == '.' ? '-' : *p >= 'A' && *p <= 'Z' ? (char)(*p | 32) : *p;
    if (cli_is_slug(out))
        return 0;
    return cli_error("the name that it has, %s, is no agent's: those are of lower-case letters, digits and "
                     "hyphens.\nGive --name, or \"name\" in agent.json",
                     name);
}
