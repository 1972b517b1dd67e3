/* The base image (base_image.h): a skeleton of our own, over which the host's /usr is mounted read-only.
 *
 * Nothing of the host is copied but what programs of /usr need to run and that is public anyway: the tables
 * `copied` and `written` are the whole of /etc. Everything belongs to the sandbox's root. */
#include "base_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

enum { USER_ID = 1000, PATH_BYTES = 512, TREE_FDS = 32 };

struct directory {
    const char *path;
    mode_t mode;
};

static const struct directory directories[] = {
    {"", 0755},          {"usr", 0755},        {"proc", 0555},     {"dev", 0755},     {"sys", 0555},
    {"tmp", 01777},      {"run", 0755},        {"etc", 0755},      {"etc/ssl", 0755}, {"home", 0755},
    {"home/user", 0755}, {"root", 0700},       {"opt", 0755},      {"srv", 0755},     {"mnt", 0755},
    {"media", 0755},     {"var", 0755},        {"var/tmp", 01777}, {"var/lib", 0755}, {"var/log", 0755},
    {"var/cache", 0755}, {".sandpiper", 0755},
};

/* Public files and trees of the host's /etc; those that are missing are left out. */
static const char *const copied[] = {
    "/etc/alternatives", "/etc/ld.so.cache",     "/etc/ld.so.conf",      "/etc/ld.so.conf.d",
    "/etc/ssl/certs",    "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/services",
    "/etc/protocols",    "/etc/mime.types",      "/etc/debian_version",  "/etc/python3",
    "/etc/python3.11",   "/etc/python3.12",      "/etc/python3.13",      "/etc/npmrc",
    "/etc/terminfo",     "/etc/bash.bashrc",     "/etc/inputrc",         "/etc/magic",
};

struct text_file {
    const char *path, *text;
};

static const struct text_file written[] = {
    {"etc/passwd", "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000:user:/home/user:/bin/bash\n"
                   "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
    {"etc/group", "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n"},
    {"etc/shells", "/bin/sh\n/bin/bash\n"},
    {"etc/hostname", "sandbox\n"},
    {"etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"},
    {"etc/resolv.conf", "nameserver 10.0.2.3\n"}, /* slirp4netns's resolver */
    {"etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
                          "protocols: files\nservices: files\n"},
    {"etc/host.conf", "multi on\n"},
    {"etc/environment", ""},
    {"etc/profile", "# Set by the sandbox host; PATH and the rest come with each process.\n"
                    "PS1='\\u@\\h:\\w\\$ '\nexport PATH\n"},
    {"home/user/.profile",
     "if [ -n \"$BASH_VERSION\" ] && [ -f \"$HOME/.bashrc\" ]; then . \"$HOME/.bashrc\"; fi\n"},
    {"home/user/.bashrc", ""},
};

/* Host names that are links into /usr on every current distribution. */
static const char *const usr_links[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};

static int make_directories(const char *root, struct err *err)
{
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", root, directories[i].path);
        if ((mkdir(path, 0755) < 0 && errno != EEXIST) || chmod(path, directories[i].mode) < 0)
            return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    }
    return 0;
}

static int write_files(const char *root, struct err *err)
{
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof written / sizeof written[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", root, written[i].path);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        size_t n = strlen(written[i].text);
        bool ok = fd >= 0 && fchmod(fd, 0644) == 0 && write(fd, written[i].text, n) == (ssize_t)n;
        if (fd >= 0)
            close(fd);
        if (!ok)
            return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    }
    return 0;
}

static int copy_files(const char *root, struct err *err)
{
    char to[PATH_BYTES];
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        if (access(copied[i], F_OK) != 0)
            continue;
        snprintf(to, sizeof to, "%s%s", root, copied[i]);
        if (tool_run((const char *const[]){"cp", "-a", "--", copied[i], to, NULL}, err) != 0)
            return -1;
    }
    return 0;
}

/* /bin -> usr/bin and so on, as on the host. A host that still has real directories there is too old to be a
 * base. */
static int make_links(const char *root, struct err *err)
{
    char from[PATH_BYTES], target[PATH_BYTES], to[PATH_BYTES];
    for (size_t i = 0; i < sizeof usr_links / sizeof usr_links[0]; i++) {
        snprintf(from, sizeof from, "/%s", usr_links[i]);
        ssize_t n = readlink(from, target, sizeof target - 1);
        if (n < 0 && errno == ENOENT)
            continue;
        if (n < 0)
            return err_set(err, ERR_UNSUPPORTED, "%s is not a link into /usr on this machine", from);
        target[n] = '\0';
        snprintf(to, sizeof to, "%s/%s", root, usr_links[i]);
        if (symlink(target[0] == '/' ? target + 1 : target, to) < 0)
            return err_set(err, ERR_IO, "%s: %s", to, strerror(errno));
    }
    snprintf(to, sizeof to, "%s/etc/os-release", root);
    return symlink("../usr/lib/os-release", to) == 0 ? 0
                                                     : err_set(err, ERR_IO, "%s: %s", to, strerror(errno));
}

static uint32_t owner_base; /* nftw takes no argument; set only while base_image_make runs */

static int own_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    const char *home = strstr(path, "/home/user");
    uint32_t id = owner_base + (home != NULL && (home[10] == '\0' || home[10] == '/') ? USER_ID : 0);
    return lchown(path, id, id);
}

static int fill(const char *root, const char *supervisor, struct err *err)
{
    char path[PATH_BYTES];
    if (make_directories(root, err) != 0 || copy_files(root, err) != 0 || write_files(root, err) != 0 ||
        make_links(root, err) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/.sandpiper/init", root);
    if (tool_run((const char *const[]){"cp", "--", supervisor, path, NULL}, err) != 0)
        return -1;
    if (chmod(path, 0755) < 0)
        return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    return 0;
}

int base_image_make(const char *data_dir, const char *supervisor, uint32_t uid_base, struct err *err)
{
    char root[PATH_BYTES / 2], final[PATH_BYTES / 2];
    snprintf(root, sizeof root, "%s/" BASE_LAYER ".new", data_dir);
    snprintf(final, sizeof final, "%s/" BASE_LAYER, data_dir);
    if (tool_remove_tree(root, err) != 0 || fill(root, supervisor, err) != 0)
        return -1;
    owner_base = uid_base;
    if (nftw(root, own_one, TREE_FDS, FTW_PHYS) != 0)
        return err_set(err, ERR_IO, "chown %s: %s", root, strerror(errno));
    if (tool_remove_tree(final, err) != 0)
        return -1;
    return rename(root, final) == 0 ? 0 : err_set(err, ERR_IO, "%s: %s", final, strerror(errno));
}

int base_image_make_blank(const char *data_dir, int64_t bytes, struct err *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/blank.img", data_dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && ftruncate(fd, bytes) == 0;
    if (fd >= 0)
        close(fd);
    if (!ok)
        return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    /* No journal, nothing reserved, tables left unwritten: the image is copied for every sandbox and thrown
     * away. */
    return tool_run((const char *const[]){"mkfs.ext4", "-q", "-F", "-m", "0", "-O",
                                          "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard",
                                          path, NULL},
                    err);
}
