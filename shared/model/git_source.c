/* A git repository as a source. */
#include "model/git_source.h"

#include <string.h>

/* Visible ASCII without what a shell, a log or a terminal would take for something else. */
static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~' || strchr("\"'`\\<>^{|}", s.p[i]) != NULL)
            return false;
    return true;
}

static bool cut_scheme(struct str *url)
{
    static const char *const schemes[] = {"https://", "http://", "git://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        struct str s = str_of(schemes[i]);
        if (url->n > s.n && str_eq_nocase(str_make(url->p, s.n), s)) {
            *url = str_make(url->p + s.n, url->n - s.n);
            return true;
        }
    }
    return false;
}

static int read_url(struct str url, struct git_source *out, struct err *err)
{
    struct str rest = url, host;
    if (!str_copy(url, out->url, sizeof out->url) || !is_plain(url))
        return err_set(err, ERR_BAD_FIELD, "git_url must be at most %d plain characters", GIT_URL_BYTES - 1);
    if (!cut_scheme(&rest))
        return err_set(err, ERR_BAD_FIELD, "git_url must begin with https://, http:// or git://");
    str_split(&rest, '/', &host);
    if (host.n > 0 && memchr(host.p, '@', host.n) != NULL)
        return err_set(err, ERR_BAD_FIELD,
                       "git_url must hold no user or password: it is shown and kept. Only repositories that "
                       "anybody may read can be cloned; send the archive of others");
    if (host.n == 0 || rest.n == 0 || host.p[0] == '-' || host.p[0] == ':')
        return err_set(err, ERR_BAD_FIELD, "git_url must name a host and a repository");
    return 0;
}

/* After git-check-ref-format(1), and no more than that. */
static bool ref_ok(struct str ref)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/+@#";
    if (ref.n == 0)
        return true;
    if (ref.p[0] == '-' || ref.p[0] == '/' || ref.p[ref.n - 1] == '/' || ref.p[ref.n - 1] == '.')
        return false;
    for (size_t i = 0; i < ref.n; i++)
        if (ref.p[i] == '\0' || strchr(plain, ref.p[i]) == NULL ||
            (i > 0 && ref.p[i] == ref.p[i - 1] && (ref.p[i] == '.' || ref.p[i] == '/')))
            return false;
    return true;
}

int git_source_read(struct str url, struct str ref, struct git_source *out, struct err *err)
{
    if (read_url(url, out, err) != 0)
        return -1;
    if (!ref_ok(ref) || !str_copy(ref, out->ref, sizeof out->ref))
        return err_set(err, ERR_BAD_FIELD, "ref must be a branch, a tag or a commit of at most %d characters",
                       GIT_REF_BYTES - 1);
    return 0;
}
