/* Fail-points. One mapped file: a header, then a slot a row of the table. Everything in it is read and
 * written with atomic operations: a test changes it under running daemons. */
#include "base/failpoint.h"

#ifdef SP_FAILPOINTS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/culprit.h"

#define MAGIC 0x31304b4145525753ULL /* of this layout */

enum { NAME_BYTES = 40, SLEEP_MAX_MS = 30000 };
enum action { ACTION_NONE, ACTION_KILL, ACTION_ABORT, ACTION_STOP, ACTION_SLEEP };

struct header {
    uint64_t magic;
    uint32_t slots, slot_bytes;
    _Atomic int64_t clock_us; /* added to the wall clock */
    uint8_t unused[40];
};

struct slot {
    char name[NAME_BYTES];
    _Atomic uint64_t hits;
    _Atomic int64_t skip;  /* hits to let pass before the action */
    _Atomic int64_t times; /* actions left to do; 0: not armed */
    _Atomic uint32_t action;
    uint32_t has_job;
    int64_t argument; /* ACTION_SLEEP: milliseconds */
    uint8_t job[16];  /* has_job: its hits alone */
};

struct table {
    struct header head;
    struct slot slots[FAILPOINT_COUNT];
};

static const char *const names[FAILPOINT_COUNT] = {
#define FAILPOINT_NAME(name, what) #name,
    FAILPOINT_TABLE(FAILPOINT_NAME)
#undef FAILPOINT_NAME
};

/* Process-wide by nature, as the clock that it moves is; written once, before there is a loop. */
static struct table *table;

static bool is_ours(const struct table *t)
{
    if (t->head.magic != MAGIC || t->head.slots != FAILPOINT_COUNT || t->head.slot_bytes != sizeof *t->slots)
        return false;
    for (int i = 0; i < FAILPOINT_COUNT; i++)
        if (strncmp(t->slots[i].name, names[i], NAME_BYTES) != 0)
            return false;
    return true;
}

int failpoint_open(struct err *err)
{
    const char *path = getenv("SANDPIPER_FAILPOINTS");
    if (path == NULL || path[0] == '\0')
        return 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || lseek(fd, 0, SEEK_END) != (off_t)sizeof *table) {
        if (fd >= 0)
            close(fd);
        return err_set(err, ERR_CONFIG, "SANDPIPER_FAILPOINTS: not a file of this build: %.120s", path);
    }
    struct table *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (t == MAP_FAILED)
        return err_set(err, ERR_CONFIG, "SANDPIPER_FAILPOINTS: cannot map %.120s: %s", path, strerror(errno));
    if (!is_ours(t)) {
        munmap(t, sizeof *t);
        return err_set(err, ERR_CONFIG, "SANDPIPER_FAILPOINTS: the table in %.120s is another's", path);
    }
    table = t;
    return 0;
}

int64_t failpoint_clock_us(void)
{
    return table != NULL ? atomic_load_explicit(&table->head.clock_us, memory_order_relaxed) : 0;
}

static bool take_one(_Atomic int64_t *left)
{
    int64_t n = atomic_load(left);
    while (n > 0)
        if (atomic_compare_exchange_weak(left, &n, n - 1))
            return true;
    return false;
}

static void block(int64_t ms)
{
    ms = ms > SLEEP_MAX_MS ? SLEEP_MAX_MS : ms;
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static void act(struct slot *s)
{
    switch ((enum action)atomic_load(&s->action)) {
    case ACTION_NONE:
        break;
    case ACTION_KILL:
        raise(SIGKILL);
        break;
    case ACTION_ABORT:
        abort();
    case ACTION_STOP:
        raise(SIGSTOP);
        break;
    case ACTION_SLEEP:
        block(s->argument);
        break;
    }
}

void failpoint_hit(enum failpoint at)
{
    if (table == NULL)
        return;
    struct slot *s = &table->slots[at];
    struct uuid now = culprit_now();
    atomic_fetch_add(&s->hits, 1);
    if (atomic_load(&s->times) <= 0 || (s->has_job != 0 && memcmp(s->job, now.b, sizeof now.b) != 0) ||
        take_one(&s->skip) || !take_one(&s->times))
        return;
    act(s);
}

#endif
