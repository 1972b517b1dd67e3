/* The writing side of a connection: one write for a whole answer when the client takes it, a buffer for the
 * rest. While requests wait in the input (pipelining) answers are gathered and written together. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "http/conn.h"

size_t conn_pending(const struct conn *c)
{
    return c->out.len - c->out_sent;
}

/* The client took n bytes. A byte now and then is not enough to keep an answer waiting for ever. */
static void progress(struct conn *c, size_t n)
{
    c->out_taken += n;
    if (conn_pending(c) == 0)
        c->out_due_us = INT64_MAX;
    else if (c->out_due_us == INT64_MAX || c->out_taken >= OUT_RENEW_BYTES)
        c->out_due_us = mono_add_ms(mono_now(), c->s->o.write_timeout_ms).us;
    else
        return;
    c->out_taken = 0;
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Gives the memory back when all is sent; moves the rest down when more than half is. */
static void tidy(struct conn *c)
{
    if (conn_pending(c) == 0) {
        size_t max = c->out.max;
        buf_deinit(&c->out);
        buf_init(&c->out, max);
        c->out_sent = 0;
    } else if (c->out_sent > c->out.len / 2) {
        buf_consume(&c->out, c->out_sent);
        c->out_sent = 0;
    }
}

bool conn_flush(struct conn *c)
{
    size_t n = conn_pending(c);
    if (n == 0)
        return true;
    ssize_t sent = send(c->fd, c->out.data + c->out_sent, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return would_block();
    c->out_sent += (size_t)sent;
    tidy(c);
    progress(c, (size_t)sent);
    return true;
}

static bool append(struct conn *c, struct str a, struct str b)
{
    bool was_empty = conn_pending(c) == 0;
    if (!buf_str(&c->out, a) || !buf_str(&c->out, b))
        return false;
    if (was_empty)
        progress(c, 0);
    return true;
}

bool conn_send(struct conn *c, struct str a, struct str b)
{
    bool gather = c->running && c->input.n > 0 && a.n + b.n < OUT_HOLD;
    if (conn_pending(c) > 0 || gather)
        return append(c, a, b);
    struct iovec parts[] = {{.iov_base = (char *)a.p, .iov_len = a.n},
                            {.iov_base = (char *)b.p, .iov_len = b.n}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = b.n > 0 ? 2 : 1};
    ssize_t sent = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && !would_block())
        return false;
    size_t n = sent > 0 ? (size_t)sent : 0;
    if (n == a.n + b.n)
        return true;
    size_t of_a = n < a.n ? n : a.n;
    return append(c, str_make(a.p + of_a, a.n - of_a), str_make(b.p + (n - of_a), b.n - (n - of_a)));
}
