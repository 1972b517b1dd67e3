/* The guard: any bytes as a URL, and any 16 as an address. What is let through must be one that the rules
 * allow, read by another hand: http or https, no user, an open port, and a host that is no address of a
 * closed range. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "http/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look_at_address(const struct http_guard *g, const uint8_t *data, size_t n)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    if (n < 16)
        return;
    memcpy(&v6.sin6_addr, data, 16);
    memcpy(&v4.sin_addr, data, 4);
    if (guard_address(g, (struct sockaddr *)&v6) && (data[0] >> 5) != 1)
        abort(); /* outside 2000::/3 */
    if (guard_address(g, (struct sockaddr *)&v4) &&
        (data[0] == 0 || data[0] == 10 || data[0] == 127 || data[0] >= 224))
        abort();
}

static void look_at_url(const struct http_guard *g, struct str url)
{
    struct err err;
    char origin[GUARD_URL_MAX_BYTES + 16], host[GUARD_URL_MAX_BYTES + 16];
    struct in_addr v4;
    int port = 0;
    if (guard_url(g, url, &err) != 0)
        return;
    if (memchr(url.p, '\n', url.n) != NULL || memchr(url.p, '\r', url.n) != NULL ||
        memchr(url.p, ' ', url.n) != NULL)
        abort();
    if (!guard_origin(url, origin, sizeof origin))
        abort(); /* what was let through has one */
    if (strncmp(origin, "http://", 7) != 0 && strncmp(origin, "https://", 8) != 0)
        abort();
    if (strchr(origin, '@') != NULL)
        abort();
    const char *after = strstr(origin, "://") + 3, *colon = strrchr(origin, ':');
    snprintf(host, sizeof host, "%.*s", (int)(colon - after), after);
    port = atoi(colon + 1);
    if (port != 80 && port != 443 && port != 8080 && port != 8443)
        abort();
    if (strcasecmp(host, "localhost") == 0)
        abort();
    struct sockaddr_in a = {.sin_family = AF_INET};
    if (inet_aton(host, &v4) != 0) { /* the widest reader of addresses that there is */
        a.sin_addr = v4;
        if (!guard_address(g, (struct sockaddr *)&a))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct http_guard g;
    struct http_guard configured = {0};
    char text[256];
    if (g.port_count == 0 && guard_read_ports(STR(GUARD_PORTS_DEFAULT), &g, NULL) != 0)
        abort();
    look_at_address(&g, data, n);
    look_at_url(&g, str_make((const char *)data, n));
    if (str_copy(str_make((const char *)data, n), text, sizeof text)) {
        guard_read_allowed(str_of(text), &configured, NULL);
        guard_read_ports(str_of(text), &configured, NULL);
    }
    return 0;
}
