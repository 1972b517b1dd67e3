/* Files of a submission, packed as multipart/form-data.
 *
 * The boundary is made of the hash of all that the form holds: it is the same for the same content, and
 * nobody can put it into a file. */
#include "attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "model/file_path.h"

enum { COPY_BYTES = 256 * 1024, HEAD_BYTES = 4096, HASH_BYTES = 16 };

struct attachment {
    char *path; /* owned */
    const char *name;
};

struct packer {
    struct attachment files[CLI_LIST_MAX];
    int count;
    char boundary[2 * HASH_BYTES + 1];
    int fd;
    char *piece;
};

/* "PATH" or "PATH=NAME"; a file whose own name has a '=' counts as one. */
static int read_item(const char *item, struct attachment *out)
{
    struct err err;
    struct stat st;
    char *path = strdup(item);
    if (path == NULL)
        return cli_error("no memory");
    char *equals = stat(path, &st) != 0 ? strrchr(path, '=') : NULL;
    if (equals != NULL)
        *equals = '\0';
    const char *slash = strrchr(path, '/');
    *out = (struct attachment){.path = path,
                               .name = equals != NULL  ? equals + 1
                                       : slash != NULL ? slash + 1
                                                       : path};
    if (stat(path, &st) != 0)
        return cli_error("%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return cli_error("%s is no file; give each file of a directory by itself", path);
    if (strchr(out->name, '"') != NULL || file_path_check(str_of(out->name), &err) != 0)
        return cli_error("%s cannot be the name of a file there; give another one: --attach %s=NAME",
                         out->name, path);
    return 0;
}

typedef bool take_fn(void *arg, struct str piece);

/* All of a file. */
static int each_piece(struct packer *p, const char *path, take_fn *take, void *arg)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), status = 0;
    ssize_t n = 0;
    if (fd < 0)
        return cli_error("%s: %s", path, strerror(errno));
    while (status == 0 && (n = read(fd, p->piece, COPY_BYTES)) > 0)
        if (!take(arg, str_make(p->piece, (size_t)n)))
            status = cli_error("no room for the form: %s", strerror(errno));
    if (n < 0)
        status = cli_error("%s: %s", path, strerror(errno));
    close(fd);
    return status;
}

static bool hash_piece(void *arg, struct str piece)
{
    crypto_sha256_update(arg, piece);
    return true;
}

static int make_boundary(struct packer *p, struct str document)
{
    struct crypto_sha256_state h;
    uint8_t sha256[SHA256_BYTES];
    struct buf hex;
    crypto_sha256_init(&h);
    crypto_sha256_update(&h, document);
    for (int i = 0; i < p->count; i++) {
        crypto_sha256_update(&h, str_make(p->files[i].name, strlen(p->files[i].name) + 1));
        int status = each_piece(p, p->files[i].path, hash_piece, &h);
        if (status != 0)
            return status;
    }
    crypto_sha256_final(&h, sha256);
    buf_init(&hex, sizeof p->boundary);
    crypto_hex(str_make((const char *)sha256, HASH_BYTES), &hex);
    str_copy(buf_view(&hex), p->boundary, sizeof p->boundary);
    buf_deinit(&hex);
    return 0;
}

static bool write_piece(void *arg, struct str piece)
{
    const struct packer *p = arg;
    while (piece.n > 0) {
        ssize_t n = write(p->fd, piece.p, piece.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        piece = str_make(piece.p + n, piece.n - (size_t)n);
    }
    return true;
}

static int write_text(struct packer *p, const char *text)
{
    return write_piece(p, str_of(text)) ? 0 : cli_error("no room for the form: %s", strerror(errno));
}

static int write_form(struct packer *p, struct str document)
{
    char head[HEAD_BYTES];
    snprintf(head, sizeof head,
             "--%s\r\nContent-Disposition: form-data; name=\"invocation\"\r\n"
             "Content-Type: application/json\r\n\r\n",
             p->boundary);
    int status = write_text(p, head);
    if (status == 0 && !write_piece(p, document))
        status = cli_error("no room for the form: %s", strerror(errno));
    for (int i = 0; status == 0 && i < p->count; i++) {
        snprintf(head, sizeof head,
                 "\r\n--%s\r\nContent-Disposition: form-data; name=\"files\"; filename=\"%s\"\r\n"
                 "Content-Type: application/octet-stream\r\n\r\n",
                 p->boundary, p->files[i].name);
        status = write_text(p, head);
        if (status == 0)
            status = each_piece(p, p->files[i].path, write_piece, p);
    }
    snprintf(head, sizeof head, "\r\n--%s--\r\n", p->boundary);
    return status != 0 ? status : write_text(p, head);
}

static int map_form(struct packer *p, struct attach_form *out)
{
    struct stat st;
    if (fstat(p->fd, &st) != 0 || st.st_size == 0)
        return cli_error("the form cannot be read back: %s", strerror(errno));
    out->bytes = (size_t)st.st_size;
    out->map = mmap(NULL, out->bytes, PROT_READ, MAP_PRIVATE, p->fd, 0);
    if (out->map == MAP_FAILED) {
        out->map = NULL;
        return cli_error("no memory for the form");
    }
    snprintf(out->content_type, sizeof out->content_type, "Content-Type: multipart/form-data; boundary=%s",
             p->boundary);
    return 0;
}

static int open_spool(void)
{
    const char *tmp = getenv("TMPDIR");
    int fd = open(tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : memfd_create("form", MFD_CLOEXEC);
}

int attach_make(const struct cli_list *items, struct str document, struct attach_form *out)
{
    struct packer p = {.fd = open_spool(), .piece = malloc(COPY_BYTES)};
    int status = p.fd >= 0 && p.piece != NULL ? 0 : cli_error("no room for the form");
    for (int i = 0; status == 0 && i < items->count; i++)
        status = read_item(items->items[i], &p.files[p.count++]);
    if (status == 0)
        status = make_boundary(&p, document);
    if (status == 0)
        status = write_form(&p, document);
    if (status == 0)
        status = map_form(&p, out);
    for (int i = 0; i < p.count; i++)
        free(p.files[i].path);
    free(p.piece);
    if (p.fd >= 0)
        close(p.fd);
    return status;
}

void attach_deinit(struct attach_form *f)
{
    if (f->map != NULL)
        munmap(f->map, f->bytes);
    f->map = NULL;
}
