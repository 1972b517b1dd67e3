/* Users and paths as the sandbox sees them. A static program: no NSS, the files are read directly. */
#include <pwd.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>

#include "init.h"

static bool take(const struct passwd *p, struct user *out)
{
    if (strlen(p->pw_name) >= sizeof out->name || strlen(p->pw_dir) >= sizeof out->home)
        return false;
    snprintf(out->name, sizeof out->name, "%s", p->pw_name);
    snprintf(out->home, sizeof out->home, "%s", p->pw_dir);
    out->uid = p->pw_uid;
    out->gid = p->pw_gid;
    return true;
}

bool user_find(const char *name, struct user *out)
{
    if (name[0] == '\0')
        name = "user";
    FILE *f = fopen("/etc/passwd", "re");
    bool found = false;
    const struct passwd *p;
    while (f != NULL && !found && (p = fgetpwent(f)) != NULL)
        if (strcmp(p->pw_name, name) == 0)
            found = take(p, out);
    if (f != NULL)
        fclose(f);
    return found;
}

void user_name(uid_t uid, char *out, size_t out_bytes)
{
    FILE *f = fopen("/etc/passwd", "re");
    const struct passwd *p;
    snprintf(out, out_bytes, "%u", uid);
    while (f != NULL && (p = fgetpwent(f)) != NULL) {
        if (p->pw_uid != uid)
            continue;
        snprintf(out, out_bytes, "%s", p->pw_name);
        break;
    }
    if (f != NULL)
        fclose(f);
}

void user_group_name(gid_t gid, char *out, size_t out_bytes)
{
    FILE *f = fopen("/etc/group", "re");
    const struct group *g;
    snprintf(out, out_bytes, "%u", gid);
    while (f != NULL && (g = fgetgrent(f)) != NULL) {
        if (g->gr_gid != gid)
            continue;
        snprintf(out, out_bytes, "%s", g->gr_name);
        break;
    }
    if (f != NULL)
        fclose(f);
}

/* Takes "." and ".." out of an absolute path by its text alone, as Go's filepath.Join does. */
static void clean(char *path)
{
    char *out = path; /* the end of what is kept; always before the part being read */
    const char *in = path;
    while (*in != '\0') {
        while (*in == '/')
            in++;
        size_t n = strcspn(in, "/");
        if (n == 2 && in[0] == '.' && in[1] == '.') {
            while (out > path && *--out != '/') {
            }
        } else if (n > 0 && !(n == 1 && in[0] == '.')) {
            *out++ = '/';
            memmove(out, in, n);
            out += n;
        }
        in += n;
    }
    if (out == path)
        *out++ = '/';
    *out = '\0';
}

bool user_path(const struct user *u, const char *path, char out[PATH_MAX])
{
    int n;
    if (path[0] == '~' && path[1] != '\0' && path[1] != '/')
        return false;
    if (path[0] == '~')
        path += path[1] == '/' ? 2 : 1;
    else if (path[0] == '/')
        return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
    n = snprintf(out, PATH_MAX, "%s/%s", u->home, path);
    if (n >= PATH_MAX)
        return false;
    clean(out);
    return true;
}
