/* redis://[user:password@]host[:port][/db] and unix://[user:password@]/path[?db=N]; %XX in user and password.
 */
#include "redis/url.h"

#include <stdlib.h>
#include <string.h>

#include "redis/redis.h"

enum { DEFAULT_PORT = 6379, MOST_DB = 1 << 20 };

static int bad(struct err *err, const char *what)
{
    return err_set(err, ERR_CONFIG,
                   "the Redis url %s; expected redis://[user:password@]host[:port][/db] or unix:///path",
                   what);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char low = (char)(c | 32);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* A malloc'd copy with %XX decoded; NULL when malformed, with a NUL in it, or without memory. */
static char *percent_decode(struct str s)
{
    char *out = malloc(s.n + 1);
    size_t n = 0;
    for (size_t i = 0; out != NULL && i < s.n; i++) {
        int c = (unsigned char)s.p[i];
        if (c == '%') {
            int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1,
                low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;
            c = high < 0 || low < 0 ? 0 : high * 16 + low;
            i += 2;
        }
        if (c == 0) {
            free(out);
            return NULL;
        }
        out[n++] = (char)c;
    }
    if (out != NULL)
        out[n] = '\0';
    return out;
}

static int parse_db(struct str text, struct redis_url *u, struct err *err)
{
    uint64_t db;
    if (text.n == 0)
        return 0;
    if (!str_to_u64(text, &db) || db > MOST_DB)
        return bad(err, "names a database that is no number");
    u->db = (int)db;
    return 0;
}

/* Cuts "user:password@" off the front. */
static int parse_userinfo(struct str *rest, struct redis_url *u, struct err *err)
{
    const char *at = memrchr(rest->p, '@', rest->n);
    if (at == NULL)
        return 0;
    struct str info = str_make(rest->p, (size_t)(at - rest->p)), user;
    *rest = str_make(at + 1, (size_t)(rest->p + rest->n - at - 1));
    if (memchr(info.p, ':', info.n) == NULL)
        return bad(err, "has a user without a password");
    str_split(&info, ':', &user);
    u->password = percent_decode(info);
    u->user = user.n != 0 ? percent_decode(user) : NULL;
    if (u->password == NULL || (user.n != 0 && u->user == NULL))
        return bad(err, "has a malformed user or password");
    return 0;
}

/* "host", "host:port", "[v6]:port" */
static int parse_host(struct str text, struct redis_url *u, struct err *err)
{
    struct str host = text, port = STR("");
    uint64_t number = DEFAULT_PORT;
    if (text.n > 0 && text.p[0] == '[') {
        const char *end = memchr(text.p, ']', text.n);
        if (end == NULL)
            return bad(err, "has a malformed host");
        host = str_make(text.p + 1, (size_t)(end - text.p - 1));
        port = str_make(end + 1, (size_t)(text.p + text.n - end - 1));
    } else {
        const char *colon = memchr(text.p, ':', text.n);
        if (colon != NULL) {
            host = str_make(text.p, (size_t)(colon - text.p));
            port = str_make(colon, (size_t)(text.p + text.n - colon));
        }
    }
    if (port.n > 0 && (port.p[0] != ':' || !str_to_u64(str_make(port.p + 1, port.n - 1), &number)))
        return bad(err, "has a malformed port");
    if (host.n == 0 || number == 0 || number > 65535)
        return bad(err, "has no usable host and port");
    u->port = (int)number;
    u->host = str_dup(host);
    return u->host != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for the Redis url");
}

static int parse_tcp(struct str rest, struct redis_url *u, struct err *err)
{
    struct str authority;
    str_split(&rest, '/', &authority);
    if (parse_userinfo(&authority, u, err) != 0 || parse_host(authority, u, err) != 0)
        return -1;
    return parse_db(rest, u, err);
}

static int parse_unix(struct str rest, struct redis_url *u, struct err *err)
{
    struct str path;
    str_split(&rest, '?', &path);
    if (path.n > 0 && path.p[0] != '/' && parse_userinfo(&path, u, err) != 0)
        return -1;
    if (path.n == 0 || path.p[0] != '/')
        return bad(err, "has no absolute path");
    u->path = str_dup(path);
    if (u->path == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory for the Redis url");
    if (rest.n == 0)
        return 0;
    if (!str_starts(rest, STR("db=")))
        return bad(err, "has an unknown query");
    return parse_db(str_make(rest.p + 3, rest.n - 3), u, err);
}

static int parse(struct str text, struct redis_url *u, struct err *err)
{
    static const struct str tcp = {"redis://", 8}, local = {"unix://", 7};
    if (memchr(text.p, '\0', text.n) != NULL)
        return bad(err, "holds a NUL byte");
    if (str_starts(text, tcp))
        return parse_tcp(str_make(text.p + tcp.n, text.n - tcp.n), u, err);
    if (str_starts(text, local))
        return parse_unix(str_make(text.p + local.n, text.n - local.n), u, err);
    if (str_starts(text, STR("rediss://")))
        return err_set(err, ERR_CONFIG, "TLS to Redis is not available; put a TLS proxy (stunnel) beside it");
    return bad(err, "has an unknown scheme");
}

int redis_url_parse(struct str text, struct redis_url *out, struct err *err)
{
    *out = (struct redis_url){0};
    int rc = parse(text, out, err);
    if (rc != 0)
        redis_url_deinit(out);
    return rc;
}

void redis_url_deinit(struct redis_url *u)
{
    if (u->password != NULL)
        explicit_bzero(u->password, strlen(u->password));
    free(u->path);
    free(u->host);
    free(u->user);
    free(u->password);
    *u = (struct redis_url){0};
}

int redis_url_check(const char *url, struct err *err)
{
    struct redis_url parsed = {0};
    int rc = redis_url_parse(str_of(url), &parsed, err);
    if (rc == 0)
        redis_url_deinit(&parsed);
    return rc;
}
