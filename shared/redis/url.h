/* redis:// and unix:// urls (private to shared/redis). */
#ifndef REDIS_URL_H
#define REDIS_URL_H

#include "base/err.h"
#include "base/str.h"

struct redis_url {
    char *path; /* a unix socket; NULL for TCP */
    char *host;
    int port;
    char *user, *password; /* NULL: none */
    int db;
};

/* 0, or -1 with ERR_CONFIG (never quoting the url: it may hold a password). */
int redis_url_parse(struct str text, struct redis_url *out, struct err *err);
void redis_url_deinit(struct redis_url *u); /* wipes the password */

#endif
