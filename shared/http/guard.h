/* The guard against server-side request forgery: where a request to a URL that a caller named may go.
 *
 * Two looks. At the URL when it is given, so that its giver learns what is wrong with it; and at the address
 * when a socket is opened, after every resolution of the name, which is the look that counts: a name may lead
 * anywhere, and to somewhere else a moment later. Redirects are never followed. Pure but for the parsing of
 * URLs, which is libcurl's own, so that what is checked is what will be asked. */
#ifndef HTTP_GUARD_H
#define HTTP_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct sockaddr;

enum { GUARD_PORTS_MAX = 32, GUARD_NETS_MAX = 32, GUARD_URL_MAX_BYTES = 2048 };

struct http_guard {
    struct {
        uint16_t from, to;
    } ports[GUARD_PORTS_MAX];
    int port_count;
    /* Networks that may be reached although they are not of the public internet. IPv4 as ::ffff:a.b.c.d. */
    struct {
        uint8_t net[16];
        int bits;
    } allowed[GUARD_NETS_MAX];
    int allowed_count;
};

#define GUARD_PORTS_DEFAULT "80,443,8080,8443"

/* ports: "80,443,8000-8999". allowed: "10.1.0.0/16,127.0.0.1,fd00::/8", empty for none. -1 and ERR_CONFIG. */
int guard_read_ports(struct str ports, struct http_guard *out, struct err *err);
int guard_read_allowed(struct str allowed, struct http_guard *out, struct err *err);
/* For configuration tables. */
int guard_ports_check(const char *text, struct err *err);
int guard_allowed_check(const char *text, struct err *err);

/* Whether a connection to this address may be made. Anything but IPv4 and IPv6 may not. */
bool guard_address(const struct http_guard *g, const struct sockaddr *address);

/* Whether the URL can be one of a receiver: http or https, a host that is not known to be internal, no user,
 * an allowed port. -1 and ERR_BAD_FIELD with what to mend. Names are not resolved. */
int guard_url(const struct http_guard *g, struct str url, struct err *err);

/* "scheme://host:port" in lower case: whose requests share a receiver. False when it does not parse or fit.
 */
bool guard_origin(struct str url, char *out, size_t out_bytes);

#endif
