/* Files' names. */
#include "model/file_path.h"

/* At most so much of a path that is refused is shown. */
enum { SHOWN_BYTES = 80 };

static int refuse(struct str path, const char *why, struct err *err)
{
    char shown[SHOWN_BYTES + 1];
    size_t n = path.n < SHOWN_BYTES ? path.n : SHOWN_BYTES;
    for (size_t i = 0; i < n; i++)
        shown[i] = path.p[i] >= ' ' && path.p[i] <= '~' ? path.p[i] : '?';
    shown[n] = '\0';
    return err_set(err, ERR_BAD_FILE, "the path \"%s%s\" cannot be used: %s", shown, n < path.n ? "..." : "",
                   why);
}

static const char *fault_of_name(struct str name)
{
    if (name.n == 0)
        return "it must be relative, without empty components";
    if (str_eq_c(name, ".") || str_eq_c(name, ".."))
        return "components \".\" and \"..\" are not allowed";
    return name.n > FILE_NAME_MAX ? "a component has more than 255 bytes" : NULL;
}

int file_path_check(struct str path, struct err *err)
{
    struct str rest = path, name;
    const char *fault = NULL;
    if (path.n == 0)
        return err_set(err, ERR_BAD_FILE, "a file has no path");
    if (path.n > FILE_PATH_MAX)
        return refuse(path, "it has more than 1024 bytes", err);
    if (!str_is_utf8(path))
        return refuse(path, "it is not UTF-8", err);
    for (size_t i = 0; i < path.n; i++)
        if ((unsigned char)path.p[i] < ' ' || path.p[i] == 0x7F)
            return refuse(path, "it holds a control character", err);
    while (fault == NULL && str_split(&rest, '/', &name))
        fault = fault_of_name(name);
    return fault != NULL ? refuse(path, fault, err) : 0;
}

bool file_paths_clash(struct str a, struct str b)
{
    if (a.n > b.n)
        return file_paths_clash(b, a);
    return str_starts(b, a) && (b.n == a.n || b.p[a.n] == '/');
}
