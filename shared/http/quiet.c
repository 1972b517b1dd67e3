/* Connections on which we wait for the client, the one that moved least lately first: who goes when the
 * server is full.
 *
 * On the list: those that are idle, in the middle of a head or a body, being drained or lingering. Not on it:
 * those whose client waits for us. A place is kept until a request is complete or QUIET_RENEW_BYTES of a body
 * came; so a client that trickles stands still while the others move behind it. */
#include "http/conn.h"

void quiet_remove(struct conn *c)
{
    struct http_server *s = c->s;
    if (!c->quiet)
        return;
    c->quiet = false;
    *(c->quiet_prev != NULL ? &c->quiet_prev->quiet_next : &s->quiet_first) = c->quiet_next;
    *(c->quiet_next != NULL ? &c->quiet_next->quiet_prev : &s->quiet_last) = c->quiet_prev;
    c->quiet_next = c->quiet_prev = NULL;
}

void quiet_renew(struct conn *c)
{
    struct http_server *s = c->s;
    quiet_remove(c);
    c->quiet = true;
    c->quiet_since = mono_now();
    c->quiet_bytes = 0;
    c->quiet_prev = s->quiet_last;
    *(s->quiet_last != NULL ? &s->quiet_last->quiet_next : &s->quiet_first) = c;
    s->quiet_last = c;
}

void quiet_keep(struct conn *c)
{
    if (!c->quiet)
        quiet_renew(c);
}

void quiet_bytes(struct conn *c, size_t n)
{
    c->quiet_bytes += n;
    if (c->quiet && c->quiet_bytes >= QUIET_RENEW_BYTES)
        quiet_renew(c);
}

bool quiet_evict(struct http_server *s)
{
    struct conn *c = s->quiet_first;
    if (c == NULL || mono_ms_between(c->quiet_since, mono_now()) < s->o.evict_after_ms)
        return false;
    s->evicted++;
    conn_hang_up(c);
    return true;
}
