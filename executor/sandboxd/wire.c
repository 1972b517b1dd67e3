/* Encoding of the messages (wire.h), shared by three programs; tests/unit/test_sandboxd_wire.c feeds it
 * garbage. */
#include "wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void wire_begin(struct wire_writer *w, void *buf, size_t cap, enum wire_type type, uint32_t ticket)
{
    *w = (struct wire_writer){.buf = buf, .cap = cap};
    if (cap < 1) {
        w->bad = true;
        return;
    }
    w->buf[w->len++] = (uint8_t)type;
    wire_put_u32(w, ticket);
}

static void put_int(struct wire_writer *w, uint64_t v, size_t bytes)
{
    if (w->bad || w->cap - w->len < bytes) {
        w->bad = true;
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        w->buf[w->len++] = (uint8_t)(v >> (8 * i));
}

void wire_put_u32(struct wire_writer *w, uint32_t v)
{
    put_int(w, v, 4);
}

void wire_put_u64(struct wire_writer *w, uint64_t v)
{
    put_int(w, v, 8);
}

void wire_put_str(struct wire_writer *w, const char *p, size_t n)
{
    if (w->bad || n > UINT32_MAX - 8 || w->cap - w->len < n + 5) {
        w->bad = true;
        return;
    }
    wire_put_u32(w, (uint32_t)n);
    if (n > 0)
        memcpy(w->buf + w->len, p, n);
    w->len += n;
    w->buf[w->len++] = 0;
}

void wire_put_cstr(struct wire_writer *w, const char *s)
{
    wire_put_str(w, s, s != NULL ? strlen(s) : 0);
}

int wire_open(struct wire_reader *r, const void *buf, size_t n, enum wire_type *type_out,
              uint32_t *ticket_out)
{
    *r = (struct wire_reader){.p = buf, .left = n};
    if (n < 5)
        return -1;
    uint8_t type = *r->p++;
    r->left--;
    if (type == 0 || type >= WIRE_TYPES)
        return -1;
    *type_out = (enum wire_type)type;
    *ticket_out = wire_get_u32(r);
    return 0;
}

static uint64_t get_int(struct wire_reader *r, size_t bytes)
{
    if (r->bad || r->left < bytes) {
        r->bad = true;
        return 0;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)r->p[i] << (8 * i);
    r->p += bytes;
    r->left -= bytes;
    return v;
}

uint32_t wire_get_u32(struct wire_reader *r)
{
    return (uint32_t)get_int(r, 4);
}

uint64_t wire_get_u64(struct wire_reader *r)
{
    return get_int(r, 8);
}

const char *wire_get_cstr(struct wire_reader *r)
{
    size_t n = wire_get_u32(r);
    if (r->bad || r->left < n + 1 || r->p[n] != 0 || memchr(r->p, 0, n) != NULL) {
        r->bad = true;
        return "";
    }
    const char *s = (const char *)r->p;
    r->p += n + 1;
    r->left -= n + 1;
    return s;
}

void wire_put_entry(struct wire_writer *w, const struct wire_entry *e)
{
    wire_put_cstr(w, e->name);
    wire_put_cstr(w, e->path);
    wire_put_cstr(w, e->owner);
    wire_put_cstr(w, e->group);
    wire_put_cstr(w, e->target);
    wire_put_u32(w, e->mode);
    wire_put_u64(w, e->size);
    wire_put_u64(w, e->mtime_ns);
}

void wire_get_entry(struct wire_reader *r, struct wire_entry *e_out)
{
    e_out->name = wire_get_cstr(r);
    e_out->path = wire_get_cstr(r);
    e_out->owner = wire_get_cstr(r);
    e_out->group = wire_get_cstr(r);
    e_out->target = wire_get_cstr(r);
    e_out->mode = wire_get_u32(r);
    e_out->size = wire_get_u64(r);
    e_out->mtime_ns = wire_get_u64(r);
}

union control {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int) * WIRE_MAX_FDS)];
};

int wire_send(int sock, const void *msg, size_t n, const int *fds, int fd_count)
{
    union control c;
    struct iovec iov = {.iov_base = (void *)msg, .iov_len = n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count > WIRE_MAX_FDS) {
        errno = E2BIG;
        return -1;
    }
    if (fd_count > 0) {
        memset(&c, 0, sizeof c);
        m.msg_control = c.room;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_count);
        memcpy(CMSG_DATA(h), fds, sizeof(int) * (size_t)fd_count);
    }
    ssize_t sent;
    do {
        sent = sendmsg(sock, &m, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

static void take_fds(struct msghdr *m, int fds[WIRE_MAX_FDS], int *count)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n && *count < WIRE_MAX_FDS; i++)
            memcpy(&fds[(*count)++], CMSG_DATA(h) + i * sizeof(int), sizeof(int));
    }
}

ssize_t wire_recv(int sock, void *buf, size_t cap, int fds[WIRE_MAX_FDS], int *fd_count_out, bool wait)
{
    union control c;
    struct iovec iov = {.iov_base = buf, .iov_len = cap};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof c.room};
    *fd_count_out = 0;
    ssize_t n;
    do {
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -1;
    take_fds(&m, fds, fd_count_out);
    if ((m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
        return n;
    for (int i = 0; i < *fd_count_out; i++)
        close(fds[i]);
    *fd_count_out = 0;
    errno = EMSGSIZE;
    return -1;
}
