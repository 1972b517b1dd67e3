/* The messages between sandboxd, a cell and the supervisor inside it.
 *
 * One AF_UNIX SOCK_SEQPACKET socket per sandbox carries them, so a message is a datagram: never split, never
 * merged, safe to send from several processes at once. File descriptors travel beside a message (SCM_RIGHTS):
 * a program's standard streams are pipes that sandboxd made, so output never passes through the supervisor,
 * and back-pressure is the pipe's own.
 *
 *   sandboxd -> cell         BUILD   ENTER              (then the cell becomes bwrap, and bwrap the
 * supervisor) cell -> sandboxd         BUILT   BROKEN supervisor -> sandboxd   HELLO sandboxd -> supervisor
 * START SIGNAL RESIZE READ WRITE STAT LIST MKDIR MOVE REMOVE supervisor -> sandboxd   STARTED EXITED ENTRY
 * DONE FAILED
 *
 * Encoding: u8 type, u32 ticket (the asker's number, repeated in the answer), then fields: u32 and u64
 * little-endian, strings as u32 length, bytes, NUL. A reader or writer that goes out of bounds stays `bad`;
 * check once at the end. The supervisor's side is not trusted: sandboxd reads every message with these
 * bounds.
 *
 * No dependency on any library: the cell and the supervisor are static programs. */
#ifndef SANDBOXD_WIRE_H
#define SANDBOXD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    WIRE_MAX_BYTES = 512 * 1024, /* of one message; START with its arguments and environment is the largest */
    WIRE_MAX_FDS = 32,
    WIRE_SOCKET = 3, /* the descriptor number of the socket in the cell and the supervisor */
};

enum wire_type {
    WIRE_BUILD = 1, /* see plan.h */
    WIRE_BUILT,
    WIRE_BROKEN, /* str what */
    WIRE_ENTER,  /* str hostname, u32 network, u32 layers, str.. (uppermost first); fd: the seccomp program */
    WIRE_HELLO,
    WIRE_START,   /* str user, str cwd, u32 flags, u32 cols, u32 rows, u32 argc, str.., u32 envc, str..; fds:
                     stdio */
    WIRE_SIGNAL,  /* u32 pid, u32 signal */
    WIRE_RESIZE,  /* u32 pid, u32 cols, u32 rows */
    WIRE_READ,    /* str user, str path, u64 offset, u64 length (0: all); fd: the pipe to write to */
    WIRE_WRITE,   /* str user, str path; fd: the pipe to read from */
    WIRE_STAT,    /* str user, str path */
    WIRE_LIST,    /* str user, str path, u32 depth */
    WIRE_MKDIR,   /* str user, str path */
    WIRE_MOVE,    /* str user, str source, str destination */
    WIRE_REMOVE,  /* str user, str path */
    WIRE_STARTED, /* u32 pid; fd: a terminal's other side, when one was asked for */
    WIRE_EXITED,  /* u32 pid, u32 wait status */
    WIRE_ENTRY,   /* an entry, see wire_entry */
    WIRE_DONE,
    WIRE_FAILED, /* u32 enum wire_fault, str text */
    WIRE_TYPES
};

enum { WIRE_START_PTY = 1, WIRE_START_STDIN_NULL = 2 };

enum wire_fault {
    WIRE_FAULT_INTERNAL = 1,
    WIRE_FAULT_NOT_FOUND,
    WIRE_FAULT_EXISTS,
    WIRE_FAULT_INVALID,
    WIRE_FAULT_DENIED,
    WIRE_FAULT_NO_SPACE,
    WIRE_FAULT_NO_USER,
    WIRE_FAULT_LIMIT,
};

struct wire_writer {
    uint8_t *buf; /* borrowed */
    size_t cap, len;
    bool bad;
};

void wire_begin(struct wire_writer *w, void *buf, size_t cap, enum wire_type type, uint32_t ticket);
void wire_put_u32(struct wire_writer *w, uint32_t v);
void wire_put_u64(struct wire_writer *w, uint64_t v);
void wire_put_str(struct wire_writer *w, const char *p, size_t n);
void wire_put_cstr(struct wire_writer *w, const char *s); /* NULL counts as "" */

struct wire_reader {
    const uint8_t *p; /* borrowed */
    size_t left;
    bool bad;
};

/* Reads the head. 0 and a reader at the first field; -1 for what is no message. */
int wire_open(struct wire_reader *r, const void *buf, size_t n, enum wire_type *type_out,
              uint32_t *ticket_out);
uint32_t wire_get_u32(struct wire_reader *r);
uint64_t wire_get_u64(struct wire_reader *r);
/* A NUL-ended string inside the message; "" once bad. One that holds a NUL itself makes the reader bad. */
const char *wire_get_cstr(struct wire_reader *r);

/* A file-system entry. Strings borrow from the message (reading) or the caller (writing). */
struct wire_entry {
    const char *name, *path, *owner, *group, *target;
    uint32_t mode; /* st_mode, whole */
    uint64_t size;
    uint64_t mtime_ns; /* since 1970 */
};
void wire_put_entry(struct wire_writer *w, const struct wire_entry *e);
void wire_get_entry(struct wire_reader *r, struct wire_entry *e_out);

/* Sends one message with descriptors (borrowed). 0, or -1 with errno (EAGAIN: the peer reads too slowly). */
int wire_send(int sock, const void *msg, size_t n, const int *fds, int fd_count);

/* Receives one message; descriptors arrive close-on-exec and belong to the caller. Bytes, 0 at the end, -1
 * with errno (EMSGSIZE: larger than cap; its descriptors are closed). */
ssize_t wire_recv(int sock, void *buf, size_t cap, int fds[WIRE_MAX_FDS], int *fd_count_out, bool wait);

#endif
