/* Archives of agents: whatever comes in is refused, or unpacks inside its directory. Even first byte: the
 * rest is sent as it is. Odd: it is a tar, put into gzip unpacked (gzip's sum, which libarchive does not look
 * at, would else keep the fuzzer out). What is accepted is walked once more and held against the promises of
 * bundle.h. */
#include <archive.h>
#include <archive_entry.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "bundle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STORED_MAX = 65535, INPUT_MAX = 256 * 1024 };

static void gzip_stored(struct buf *out, struct str in)
{
    static const char head[] = {0x1f, (char)0x8b, 8, 0, 0, 0, 0, 0, 0, 3}, tail[8];
    buf_append(out, head, sizeof head);
    do {
        size_t n = in.n < STORED_MAX ? in.n : STORED_MAX;
        buf_byte(out, in.n == n);
        buf_byte(out, (char)(n & 255));
        buf_byte(out, (char)(n >> 8));
        buf_byte(out, (char)(~n & 255));
        buf_byte(out, (char)(~n >> 8 & 255));
        buf_append(out, in.p, n);
        in = str_make(in.p + n, in.n - n);
    } while (in.n > 0);
    buf_append(out, tail, sizeof tail);
}

static bool goes_up(const char *path)
{
    struct str rest = str_of(path), part;
    while (str_split(&rest, '/', &part))
        if (str_eq_c(part, ".."))
            return true;
    return false;
}

static void walk_again(int fd)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    archive_read_support_filter_gzip(a);
    archive_read_support_format_tar(a);
    INVARIANT(lseek(fd, 0, SEEK_SET) == 0 && archive_read_open_fd(a, fd, 10240) == ARCHIVE_OK);
    int rc, entries = 0;
    while ((rc = archive_read_next_header(a, &e)) == ARCHIVE_OK || rc == ARCHIVE_WARN) {
        const char *path = archive_entry_pathname(e), *hard = archive_entry_hardlink(e);
        INVARIANT(path != NULL && path[0] != '/' && !goes_up(path));
        INVARIANT(hard == NULL || (hard[0] != '/' && !goes_up(hard)));
        __LA_MODE_T type = archive_entry_filetype(e);
        INVARIANT(hard != NULL || type == AE_IFREG || type == AE_IFDIR || type == AE_IFLNK);
        if (hard == NULL && type == AE_IFLNK)
            INVARIANT(archive_entry_symlink(e) != NULL && archive_entry_symlink(e)[0] != '/');
        entries++;
    }
    INVARIANT(entries <= ARCHIVE_MAX_ENTRIES);
    archive_read_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > INPUT_MAX)
        return -1;
    struct str in = str_make((const char *)data + 1, size - 1);
    struct buf file;
    buf_init(&file, 2 * INPUT_MAX);
    if (data[0] % 2 == 0)
        buf_str(&file, in);
    else
        gzip_stored(&file, in);
    int fd = memfd_create("archive", MFD_CLOEXEC);
    INVARIANT(fd >= 0 && write(fd, file.len > 0 ? file.data : "", file.len) == (ssize_t)file.len);
    struct bundle bundle;
    struct err err = ERR_INIT;
    if (bundle_check(fd, &bundle, &err) == 0)
        walk_again(fd);
    else
        INVARIANT(err.code == ERR_BAD_ARCHIVE || err.code == ERR_BAD_MANIFEST || err.code == ERR_UNSUPPORTED);
    close(fd);
    buf_deinit(&file);
    return 0;
}
