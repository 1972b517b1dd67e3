/* The messages between sandboxd and a sandbox: round trips, and everything a hostile peer could send. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "plan.h"
#include "wire.h"

static void round_trip(void **state)
{
    uint8_t room[256];
    struct wire_writer w;
    struct wire_reader r;
    enum wire_type type;
    uint32_t ticket;
    (void)state;
    wire_begin(&w, room, sizeof room, WIRE_START, 0x01020304);
    wire_put_u32(&w, UINT32_MAX);
    wire_put_u64(&w, UINT64_MAX - 1);
    wire_put_cstr(&w, "");
    wire_put_cstr(&w, "text");
    assert_false(w.bad);
    assert_int_equal(wire_open(&r, room, w.len, &type, &ticket), 0);
    assert_int_equal(type, WIRE_START);
    assert_int_equal(ticket, 0x01020304);
    assert_int_equal(wire_get_u32(&r), UINT32_MAX);
    assert_true(wire_get_u64(&r) == UINT64_MAX - 1);
    assert_string_equal(wire_get_cstr(&r), "");
    assert_string_equal(wire_get_cstr(&r), "text");
    assert_false(r.bad);
    assert_int_equal(r.left, 0);
    wire_get_u32(&r);
    assert_true(r.bad);
}

static void writers_stay_bad(void **state)
{
    uint8_t room[16];
    struct wire_writer w;
    (void)state;
    wire_begin(&w, room, sizeof room, WIRE_DONE, 1);
    wire_put_cstr(&w, "too long for this room");
    assert_true(w.bad);
    wire_put_u32(&w, 1);
    assert_true(w.bad);
    assert_int_equal(w.len, 5);
}

/* Every prefix of a message, and every message with one byte changed, is read without harm. */
static void garbage(void **state)
{
    uint8_t room[512], copy[512];
    struct wire_writer w;
    const struct wire_entry e = {.name = "n",
                                 .path = "/p",
                                 .owner = "o",
                                 .group = "g",
                                 .target = "t",
                                 .mode = 1,
                                 .size = 2,
                                 .mtime_ns = 3};
    (void)state;
    wire_begin(&w, room, sizeof room, WIRE_ENTRY, 9);
    wire_put_entry(&w, &e);
    for (size_t n = 0; n <= w.len; n++)
        for (int flip = 0; flip < 256; flip += 5) {
            struct wire_reader r;
            struct wire_entry got;
            enum wire_type type;
            uint32_t ticket;
            uint8_t *exact = malloc(n > 0 ? n : 1); /* of exact size: the sanitizer sees every step beyond */
            memcpy(copy, room, w.len);
            if (n > 0)
                copy[n - 1] ^= (uint8_t)flip;
            memcpy(exact, copy, n);
            if (wire_open(&r, exact, n, &type, &ticket) == 0) {
                wire_get_entry(&r, &got);
                if (n < w.len)
                    assert_true(r.bad);
            }
            free(exact);
        }
}

static void strings_hold_no_nul(void **state)
{
    uint8_t room[64];
    struct wire_writer w;
    struct wire_reader r;
    enum wire_type type;
    uint32_t ticket;
    (void)state;
    wire_begin(&w, room, sizeof room, WIRE_FAILED, 1);
    wire_put_str(&w, "a\0b", 3);
    assert_int_equal(wire_open(&r, room, w.len, &type, &ticket), 0);
    assert_string_equal(wire_get_cstr(&r), "");
    assert_true(r.bad);
    room[0] = WIRE_TYPES;
    assert_int_equal(wire_open(&r, room, w.len, &type, &ticket), -1);
}

static void plans(void **state)
{
    static uint8_t room[4096];
    struct plan p = {.group_count = 1,
                     .mount_count = 1,
                     .deny_count = 1,
                     .uid_base = 7,
                     .run_base = 8,
                     .files = 9,
                     .pids = 10,
                     .shm_bytes = 1ULL << 40,
                     .slirp = "s",
                     .bwrap = "b",
                     .layers_dir = "l",
                     .disk_dir = "d",
                     .disk_blank = "",
                     .disk_name = "n"},
                got;
    struct wire_writer w;
    struct wire_reader r;
    enum wire_type type;
    uint32_t ticket;
    (void)state;
    p.groups[0] = (struct plan_group){.path = "/g", .setting_count = 1, .settings = {{"f", "v", true}}};
    p.mounts[0] = (struct plan_mount){"/usr", "/usr"};
    p.deny[0] = (struct plan_deny){0x0000fea9, 16};
    wire_begin(&w, room, sizeof room, WIRE_BUILD, 0);
    plan_put(&w, &p);
    assert_int_equal(wire_open(&r, room, w.len, &type, &ticket), 0);
    assert_true(plan_get(&r, &got));
    assert_string_equal(got.groups[0].settings[0].value, "v");
    assert_true(got.groups[0].settings[0].optional);
    assert_int_equal(got.deny[0].prefix, 16);
    assert_string_equal(got.disk_name, "n");
    assert_int_equal(got.uid_base, 7);
    assert_int_equal(got.run_base, 8);
    assert_int_equal(got.files, 9);
    assert_int_equal(got.pids, 10);
    assert_true(got.shm_bytes == 1ULL << 40);
    room[5] = PLAN_MAX_GROUPS + 1; /* a count beyond the array */
    assert_int_equal(wire_open(&r, room, w.len, &type, &ticket), 0);
    assert_false(plan_get(&r, &got));
}

static void descriptors(void **state)
{
    int pair[2], pipe_fds[2], got[WIRE_MAX_FDS], count;
    uint8_t buf[64];
    char byte = 0;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(wire_send(pair[0], "hello", 5, &pipe_fds[1], 1), 0);
    assert_int_equal(wire_recv(pair[1], buf, sizeof buf, got, &count, false), 5);
    assert_int_equal(count, 1);
    assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(write(got[0], "x", 1), 1);
    assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
    close(got[0]);
    assert_int_equal(wire_send(pair[0], buf, sizeof buf, &pipe_fds[1], 1), 0);
    assert_int_equal(wire_recv(pair[1], buf, 8, got, &count, false), -1); /* larger than the room */
    assert_int_equal(errno, EMSGSIZE);
    assert_int_equal(count, 0);
    close(pipe_fds[1]);
    assert_int_equal(read(pipe_fds[0], &byte, 1), 0); /* nobody holds the other end any more */
    assert_int_equal(wire_recv(pair[1], buf, sizeof buf, got, &count, false), -1);
    assert_int_equal(errno, EAGAIN);
    close(pair[0]);
    assert_int_equal(wire_recv(pair[1], buf, sizeof buf, got, &count, false), 0);
    close(pair[1]);
    close(pipe_fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(writers_stay_bad),
        cmocka_unit_test(garbage),    cmocka_unit_test(strings_hold_no_nul),
        cmocka_unit_test(plans),      cmocka_unit_test(descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
