/* The guard. The ranges are those of RFC 6890 and its registry that are not globally reachable, and the forms
 * of IPv6 that hold an IPv4 address which some translator on the way would unwrap. */
#include "http/guard.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* ---- addresses ---- */

struct range {
    uint8_t net[16];
    int bits;
};

#define V4(a, b, c, d, n)                                                                       \
    {                                                                                           \
        .net = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, (a), (b), (c), (d)}, .bits = 96 + (n) \
    }

static const struct range closed_v4[] = {
    V4(0, 0, 0, 0, 8),       /* this network */
    V4(10, 0, 0, 0, 8),      /* private */
    V4(100, 64, 0, 0, 10),   /* shared by carriers' NAT */
    V4(127, 0, 0, 0, 8),     /* loopback */
    V4(169, 254, 0, 0, 16),  /* link-local, and clouds' metadata */
    V4(172, 16, 0, 0, 12),   /* private */
    V4(192, 0, 0, 0, 24),    /* protocol assignments */
    V4(192, 0, 2, 0, 24),    /* documentation */
    V4(192, 88, 99, 0, 24),  /* 6to4 relays */
    V4(192, 168, 0, 0, 16),  /* private */
    V4(198, 18, 0, 0, 15),   /* benchmarks */
    V4(198, 51, 100, 0, 24), /* documentation */
    V4(203, 0, 113, 0, 24),  /* documentation */
    V4(224, 0, 0, 0, 4),     /* multicast */
    V4(240, 0, 0, 0, 4),     /* reserved, broadcast */
};

/* Within 2000::/3, where all public addresses are; what lies outside it is closed as a whole: ::, ::1, mapped
 * and compatible IPv4, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard-only, ULA, link- and site-local,
 * multicast. */
static const struct range closed_v6[] = {
    {{0x20, 0x02}, 16},             /* 6to4 */
    {{0x20, 0x01, 0x00, 0x00}, 32}, /* Teredo */
    {{0x20, 0x01, 0x00, 0x02}, 48}, /* benchmarks */
    {{0x20, 0x01, 0x00, 0x10}, 28}, /* ORCHID */
    {{0x20, 0x01, 0x00, 0x20}, 28}, /* ORCHIDv2 */
    {{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation */
    {{0x3f, 0xff}, 20},             /* documentation */
};

static bool is_within(const uint8_t a[16], const uint8_t net[16], int bits)
{
    int whole = bits / 8, rest = bits % 8;
    return memcmp(a, net, (size_t)whole) == 0 &&
           (rest == 0 || (a[whole] >> (8 - rest)) == (net[whole] >> (8 - rest)));
}

static bool is_mapped(const uint8_t a[16])
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(a, prefix, sizeof prefix) == 0;
}

static bool is_public(const uint8_t a[16])
{
    if (is_mapped(a)) {
        for (size_t i = 0; i < sizeof closed_v4 / sizeof *closed_v4; i++)
            if (is_within(a, closed_v4[i].net, closed_v4[i].bits))
                return false;
        return true;
    }
    if ((a[0] & 0xe0) != 0x20)
        return false;
    for (size_t i = 0; i < sizeof closed_v6 / sizeof *closed_v6; i++)
        if (is_within(a, closed_v6[i].net, closed_v6[i].bits))
            return false;
    return true;
}

static bool may_connect(const struct http_guard *g, const uint8_t a[16])
{
    for (int i = 0; i < g->allowed_count; i++)
        if (is_within(a, g->allowed[i].net, g->allowed[i].bits))
            return true;
    return is_public(a);
}

static void map_v4(const struct in_addr *v4, uint8_t out[16])
{
    memset(out, 0, 16);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, v4, 4);
}

bool guard_address(const struct http_guard *g, const struct sockaddr *address)
{
    uint8_t a[16];
    if (address->sa_family == AF_INET) {
        map_v4(&((const struct sockaddr_in *)(const void *)address)->sin_addr, a);
        return may_connect(g, a);
    }
    if (address->sa_family != AF_INET6)
        return false;
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)(const void *)address;
    memcpy(a, &a6->sin6_addr, sizeof a);
    /* An IPv4-mapped address in an IPv6 socket is a detour that no receiver needs. */
    return !is_mapped(a) && may_connect(g, a);
}

/* ---- configuration ---- */

static bool read_port(struct str s, uint16_t *out)
{
    uint64_t v;
    if (!str_to_u64(s, &v) || v < 1 || v > 65535)
        return false;
    *out = (uint16_t)v;
    return true;
}

int guard_read_ports(struct str ports, struct http_guard *out, struct err *err)
{
    struct str one, from;
    out->port_count = 0;
    while (str_split(&ports, ',', &one)) {
        struct str to = str_trim(one);
        str_split(&to, '-', &from);
        int i = out->port_count;
        if (i == GUARD_PORTS_MAX || !read_port(from, &out->ports[i].from) ||
            !read_port(to.p != NULL && to.n > 0 ? to : from, &out->ports[i].to) ||
            out->ports[i].from > out->ports[i].to)
            return err_set(err, ERR_CONFIG, "must be up to %d ports or ranges, such as 443,8000-8999",
                           GUARD_PORTS_MAX);
        out->port_count++;
    }
    return 0;
}

static bool read_net(struct str s, uint8_t net[16], int *bits_out)
{
    char text[INET6_ADDRSTRLEN + 1];
    struct str host, rest = s;
    struct in_addr v4;
    uint64_t bits = 0;
    str_split(&rest, '/', &host);
    bool given = host.n < s.n;
    if (!str_copy(host, text, sizeof text) || (given && !str_to_u64(rest, &bits)))
        return false;
    bool is_v4 = inet_pton(AF_INET, text, &v4) == 1;
    if (is_v4)
        map_v4(&v4, net);
    else if (inet_pton(AF_INET6, text, net) != 1)
        return false;
    uint64_t most = is_v4 ? 32 : 128;
    if (given && bits > most)
        return false;
    *bits_out = (int)(given ? bits : most) + (is_v4 ? 96 : 0);
    return true;
}

int guard_read_allowed(struct str allowed, struct http_guard *out, struct err *err)
{
    struct str one;
    out->allowed_count = 0;
    if (str_trim(allowed).n == 0)
        return 0;
    while (str_split(&allowed, ',', &one)) {
        int i = out->allowed_count;
        if (i == GUARD_NETS_MAX || !read_net(str_trim(one), out->allowed[i].net, &out->allowed[i].bits))
            return err_set(err, ERR_CONFIG,
                           "must be up to %d addresses or networks, such as 10.1.0.0/16,fd00::/8",
                           GUARD_NETS_MAX);
        out->allowed_count++;
    }
    return 0;
}

int guard_ports_check(const char *text, struct err *err)
{
    struct http_guard g = {0};
    return guard_read_ports(str_of(text), &g, err);
}

int guard_allowed_check(const char *text, struct err *err)
{
    struct http_guard g = {0};
    return guard_read_allowed(str_of(text), &g, err);
}

/* ---- URLs ---- */

struct parts {
    CURLU *u;
    char *scheme, *host, *port, *user;
};

static void parts_deinit(struct parts *p)
{
    curl_free(p->scheme);
    curl_free(p->host);
    curl_free(p->port);
    curl_free(p->user);
    curl_url_cleanup(p->u);
}

/* What every URL here must be before libcurl looks at it: visible ASCII, of bounded length. */
static bool is_plain(struct str url)
{
    for (size_t i = 0; i < url.n; i++)
        if (url.p[i] <= 0x20 || url.p[i] >= 0x7f || url.p[i] == '\\')
            return false;
    return url.n > 0 && url.n <= GUARD_URL_MAX_BYTES;
}

/* libcurl takes one slash, or three, for two. */
static bool has_two_slashes(struct str url)
{
    const char *colon = memchr(url.p, ':', url.n);
    size_t left = colon != NULL ? (size_t)(url.p + url.n - colon) : 0;
    return left > 3 && colon[1] == '/' && colon[2] == '/' && colon[3] != '/';
}

static bool parts_read(struct str url, struct parts *p)
{
    char text[GUARD_URL_MAX_BYTES + 1];
    *p = (struct parts){.u = curl_url()};
    return p->u != NULL && str_copy(url, text, sizeof text) &&
           curl_url_set(p->u, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
           curl_url_get(p->u, CURLUPART_SCHEME, &p->scheme, 0) == CURLUE_OK &&
           curl_url_get(p->u, CURLUPART_HOST, &p->host, 0) == CURLUE_OK &&
           curl_url_get(p->u, CURLUPART_PORT, &p->port, CURLU_DEFAULT_PORT) == CURLUE_OK;
}

static bool has_user(struct parts *p)
{
    return curl_url_get(p->u, CURLUPART_USER, &p->user, 0) == CURLUE_OK;
}

static bool ends_with(struct str s, struct str tail)
{
    return s.n >= tail.n && str_eq_nocase(str_make(s.p + s.n - tail.n, tail.n), tail);
}

/* Names that lead inside by definition (RFC 6761, RFC 6762, and what clouds call their metadata services). */
static bool is_inner_name(struct str host)
{
    static const char *const inner[] = {"localhost", "local",   "localdomain",   "internal",
                                        "intranet",  "lan",     "home.arpa",     "onion",
                                        "test",      "invalid", "ip6-localhost", "ip6-loopback"};
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++) {
        struct str name = str_of(inner[i]);
        if (str_eq_nocase(host, name) ||
            (ends_with(host, name) && host.n > name.n && host.p[host.n - name.n - 1] == '.'))
            return true;
    }
    return false;
}

/* A name whose last label is a number is an address in a form that somebody's parser would read as one. */
static bool ends_in_number(struct str host)
{
    size_t at = host.n;
    while (at > 0 && host.p[at - 1] != '.')
        at--;
    return at < host.n && host.p[at] >= '0' && host.p[at] <= '9';
}

enum host_kind { HOST_NAME, HOST_ADDRESS_FINE, HOST_INNER, HOST_MALFORMED };

static enum host_kind look_at_host(const struct http_guard *g, const char *host)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char inside[64];
    struct str h = str_of(host);
    if (h.n > 0 && h.p[0] == '[') {
        if (h.n < 3 || !str_copy(str_make(h.p + 1, h.n - 2), inside, sizeof inside) ||
            inet_pton(AF_INET6, inside, &v6.sin6_addr) != 1) /* also one with a zone */
            return HOST_MALFORMED;
        return guard_address(g, (const struct sockaddr *)&v6) ? HOST_ADDRESS_FINE : HOST_INNER;
    }
    if (h.n > 0 && h.p[h.n - 1] == '.')
        h.n--;
    if (h.n == 0 || h.n > 253)
        return HOST_MALFORMED;
    if (str_copy(h, inside, sizeof inside) && inet_pton(AF_INET, inside, &v4.sin_addr) == 1)
        return guard_address(g, (const struct sockaddr *)&v4) ? HOST_ADDRESS_FINE : HOST_INNER;
    for (size_t i = 0; i < h.n; i++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", h.p[i]) == NULL)
            return HOST_MALFORMED;
    if (h.p[0] == '.' || strstr(host, "..") != NULL || ends_in_number(h))
        return HOST_MALFORMED;
    return is_inner_name(h) ? HOST_INNER : HOST_NAME;
}

static bool is_port_allowed(const struct http_guard *g, const char *text)
{
    uint16_t port;
    if (!read_port(str_of(text), &port))
        return false;
    for (int i = 0; i < g->port_count; i++)
        if (port >= g->ports[i].from && port <= g->ports[i].to)
            return true;
    return false;
}

static int check_parts(const struct http_guard *g, struct parts *p, struct err *err)
{
    if (strcmp(p->scheme, "http") != 0 && strcmp(p->scheme, "https") != 0)
        return err_set(err, ERR_BAD_FIELD, "the url must begin with https:// or http://");
    if (has_user(p))
        return err_set(err, ERR_BAD_FIELD, "the url must not hold a user or password");
    enum host_kind kind = look_at_host(g, p->host);
    if (kind == HOST_MALFORMED)
        return err_set(err, ERR_BAD_FIELD,
                       "the url's host is neither a name nor an address; write other alphabets in "
                       "their ASCII form (xn--…)");
    /* An operator who opened loopback to receivers means its names, too: the address decides. */
    if (kind == HOST_INNER && !(g->allowed_count > 0 && p->host[0] != '[' && is_inner_name(str_of(p->host))))
        return err_set(err, ERR_BAD_FIELD,
                       "the url leads to an address that is not of the public internet; "
                       "SANDPIPER_WEBHOOK_ALLOW_ADDRESSES opens networks to receivers");
    if (!is_port_allowed(g, p->port))
        return err_set(err, ERR_BAD_FIELD,
                       "port %s is closed to webhooks; SANDPIPER_WEBHOOK_PORTS opens ports", p->port);
    return 0;
}

int guard_url(const struct http_guard *g, struct str url, struct err *err)
{
    struct parts p = {0};
    if (!is_plain(url))
        return err_set(err, ERR_BAD_FIELD, "the url must be 1 to %d visible ASCII characters",
                       GUARD_URL_MAX_BYTES);
    int rc = has_two_slashes(url) && parts_read(url, &p)
                 ? check_parts(g, &p, err)
                 : err_set(err, ERR_BAD_FIELD, "the url cannot be read: https://host/path is the form");
    parts_deinit(&p);
    return rc;
}

bool guard_origin(struct str url, char *out, size_t out_bytes)
{
    struct parts p = {0};
    bool fine = is_plain(url) && parts_read(url, &p);
    if (fine) {
        int n = snprintf(out, out_bytes, "%s://%s:%s", p.scheme, p.host, p.port);
        fine = n > 0 && (size_t)n < out_bytes;
        for (char *c = out; fine && *c != '\0'; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c = (char)(*c | 0x20);
    }
    parts_deinit(&p);
    return fine;
}
