/* The cell's files: a mount namespace of its own, in which a size-limited ext4 image carries the overlay's
 * upper layer. Layers and the image are seen under the cell's own user ids; only sandboxd looks at them as
 * they stand on disk.
 *
 * The image is unlinked as soon as it is open, the loop device clears itself, and all mounts live in this
 * namespace: when the cell's last process is gone, so are they, whoever died and how. Layers and trees are
 * opened in this namespace before the room covers /tmp (they may lie below it) and mounted through
 * /proc/self/fd, so no host path shows in the sandbox's mount table. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "../ids.h"
#include "cell.h"

enum { LOOP_TRIES = 200, LOOP_MAJOR_NUMBER = 7, LOOP_CTL_NAME = 64, MAX_TERMINALS = 64, TTY_GROUP = 5 };

struct sources {
    int disk; /* the image, or the unlimited directory */
    bool image;
    int layers; /* a detached mount of their directory */
    int trees[PLAN_MAX_MOUNTS];
};

/* Copies the data extents of a sparse file. */
static void copy_sparse(int from, int to)
{
    struct stat st;
    if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
        cell_broken("disk image");
    off_t at = 0;
    while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
        off_t end = lseek(from, at, SEEK_HOLE);
        if (end < 0)
            cell_broken("disk image");
        off_t in = at, out = at;
        while (in < end) {
            ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - in), 0);
            if (n <= 0)
                cell_broken("disk image");
        }
        at = end;
    }
    if (errno != ENXIO)
        cell_broken("disk image");
}

static int image_new(const struct plan *plan)
{
    char path[512];
    int blank = open(plan->disk_blank, O_RDONLY | O_CLOEXEC);
    if (blank < 0)
        cell_broken(plan->disk_blank);
    snprintf(path, sizeof path, "%s/%s.img", plan->disk_dir, plan->disk_name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        cell_broken(path);
    unlink(path);
    copy_sparse(blank, fd);
    close(blank);
    return fd;
}

static int directory_new(const struct plan *plan)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", plan->disk_dir, plan->disk_name);
    if (mkdir(path, 0700) < 0)
        cell_broken(path);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        cell_broken(path);
    return fd;
}

static void sources_open(struct sources *s, const struct plan *plan, int ids)
{
    s->image = plan->disk_blank[0] != '\0';
    s->disk = s->image ? image_new(plan) : directory_new(plan);
    s->layers = ids_tree(plan->layers_dir, ids);
    if (s->layers < 0)
        cell_broken("layers under user ids of their own");
    for (uint32_t i = 0; i < plan->mount_count; i++) {
        s->trees[i] = open(plan->mounts[i].source, O_PATH | O_CLOEXEC);
        if (s->trees[i] < 0)
            cell_broken(plan->mounts[i].source);
    }
}

static int loop_device(int number, char path[LOOP_CTL_NAME])
{
    snprintf(path, LOOP_CTL_NAME, "/dev/loop%d", number);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    /* A /dev without devtmpfs has nodes for the first few only. */
    if (mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR_NUMBER, number)) < 0 && errno != EEXIST)
        return -1;
    return open(path, O_RDWR | O_CLOEXEC);
}

/* Attaches the image to a free loop device, which clears itself after its last user. Other cells race for the
 * same numbers: EBUSY is an answer, not an error. */
static int loop_attach(int image, char path[LOOP_CTL_NAME])
{
    struct loop_config config = {.fd = (uint32_t)image, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        cell_broken("/dev/loop-control");
    for (int i = 0; i < LOOP_TRIES; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            cell_broken("loop device");
        int fd = loop_device(number, path);
        if (fd < 0 && errno != EBUSY && errno != ENXIO)
            cell_broken(path);
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return fd;
        }
        if (fd >= 0)
            close(fd);
        nanosleep(&(struct timespec){.tv_nsec = 500000},
                  NULL); /* somebody was quicker: a process of its own waits */
    }
    cell_broken("no free loop device");
}

static void disk_mount(const struct sources *s)
{
    char path[LOOP_CTL_NAME];
    if (mkdir(CELL_DISK, 0700) < 0)
        cell_broken(CELL_DISK);
    if (!s->image) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", s->disk);
        if (mount(path, CELL_DISK, NULL, MS_BIND, NULL) < 0)
            cell_broken("disk directory");
        return;
    }
    int loop = loop_attach(s->disk, path);
    /* The image is thrown away with the sandbox: no barriers, no initialisation of unused tables. */
    if (mount(path, CELL_DISK, "ext4", MS_NODEV | MS_NOSUID | MS_NOATIME, "nobarrier,noinit_itable") < 0)
        cell_broken("ext4 mount");
    close(loop);
    close(s->disk);
}

static void trees_mount(const struct sources *s, const struct plan *plan)
{
    char from[64], to[64];
    for (uint32_t i = 0; i < plan->mount_count; i++) {
        snprintf(from, sizeof from, "/proc/self/fd/%d", s->trees[i]);
        snprintf(to, sizeof to, CELL_ROOM "/m%u", i);
        if (mkdir(to, 0755) < 0 || mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
            cell_broken(plan->mounts[i].source);
        close(s->trees[i]);
    }
}

static void attach(int tree, const char *to)
{
    if (mkdir(to, 0755) < 0 || move_mount(tree, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        cell_broken(to);
    close(tree);
}

/* Terminals of this sandbox, not more than MAX_TERMINALS: the machine has a few thousand in all. */
static void terminals_mount(const struct plan *plan)
{
    char options[128];
    snprintf(options, sizeof options, "newinstance,ptmxmode=0666,mode=0620,max=%d,gid=%u", MAX_TERMINALS,
             plan->run_base + TTY_GROUP);
    if (mkdir(CELL_PTS, 0755) < 0 || mount("devpts", CELL_PTS, "devpts", MS_NOSUID | MS_NOEXEC, options) < 0)
        cell_broken("devpts");
}

static void overlay_directories(const struct plan *plan, int ids)
{
    if (mkdir(CELL_DISK "/upper", 0755) < 0 || mkdir(CELL_DISK "/work", 0700) < 0 ||
        mkdir(CELL_ROOT, 0755) < 0)
        cell_broken("overlay directories");
    if (chown(CELL_DISK "/upper", plan->uid_base, plan->uid_base) < 0)
        cell_broken("overlay owner");
    int own = ids_tree(CELL_DISK, ids);
    if (own < 0)
        cell_broken("the disk under user ids of its own");
    attach(own, CELL_OWN);
}

void cell_disk_open(struct cell_disk *disk, const struct plan *plan)
{
    struct sources s;
    int ids = plan->run_base == plan->uid_base ? -1 : ids_namespace(plan->uid_base, plan->run_base);
    if (ids < 0 && plan->run_base != plan->uid_base)
        cell_broken("user ids of its own");
    if (unshare(CLONE_NEWNS) < 0)
        cell_broken("mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        cell_broken("private mounts");
    sources_open(&s, plan, ids); /* only mounts of this namespace can be bound or stacked */
    if (mount("room", CELL_ROOM, "tmpfs", MS_NODEV | MS_NOSUID, "size=64k,mode=0755") < 0)
        cell_broken("room");
    attach(s.layers, CELL_LAYERS);
    disk->layers = open(CELL_LAYERS, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (disk->layers < 0)
        cell_broken(CELL_LAYERS);
    disk_mount(&s);
    trees_mount(&s, plan);
    terminals_mount(plan);
    overlay_directories(plan, ids);
    if (ids >= 0)
        close(ids);
}

/* Opens the layers and names them for the mount: "/proc/self/fd/7:/proc/self/fd/8". */
static void stack_layers(struct cell_disk *disk, struct wire_reader *r, char *text, size_t room)
{
    size_t at = 0;
    uint32_t count = wire_get_u32(r);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = wire_get_cstr(r);
        if (r->bad || name[0] == '/' || strstr(name, "..") != NULL)
            cell_broken("malformed layer");
        int fd = openat(disk->layers, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            cell_broken(name);
        at += (size_t)snprintf(text + at, room - at, "%s/proc/self/fd/%d", i > 0 ? ":" : "", fd);
        if (at >= room)
            cell_broken("too many layers");
    }
    if (at == 0)
        cell_broken("no layer");
    close(disk->layers);
}

void cell_disk_stack(struct cell_disk *disk, struct wire_reader *r)
{
    char layers[1024], options[2048];
    stack_layers(disk, r, layers, sizeof layers);
    snprintf(options, sizeof options,
             "volatile,index=off,redirect_dir=off,metacopy=off,upperdir=" CELL_OWN "/upper,workdir=" CELL_OWN
             "/work,lowerdir=%s",
             layers);
    /* "volatile" skips syncs that a throw-away disk does not need; kernels before 5.10 do not know it. */
    if (mount("root", CELL_ROOT, "overlay", MS_NODEV | MS_NOSUID, options) < 0 &&
        mount("root", CELL_ROOT, "overlay", MS_NODEV | MS_NOSUID, options + strlen("volatile,")) < 0)
        cell_broken("overlay");
}
