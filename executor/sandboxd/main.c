/* sandpiper-sandboxd: an E2B-compatible sandbox host for one machine. This file wires the parts; README.md
 * draws them. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "base/log.h"
#include "base_image.h"
#include "machine.h"
#include "syscalls.h"
#include "tool.h"

enum { STOP_POLL_MS = 20, STOP_MS = 8000, STREAM_IDLE_MS = 640000, TRIAL_TTL_MS = 60000 };

enum { EXIT_CANNOT_START = 1, EXIT_NO_SANDBOX = 3 };

struct app {
    struct options options;
    struct loop *loop;
    struct reaper *reaper;
    struct cell_works works;
    struct machine_plan plan;
    struct pool *pool;
    struct host *host;
    struct snapshots *snapshots;
    struct api api;
    struct http_server *server; /* NULL until the first sandbox has been made, and at the end */
    bool stopping;
    int status; /* what main returns */
    struct loop_signal *terminate, *interrupt;
    struct loop_timer *stop_timer;
    struct loop_task failed;
    int stop_polls, lock_fd;
    char program_dir[256], cell_program[300], supervisor[300];
};

/* ---- the end: sandboxes first, then wait until their cells are gone ---- */

static void on_stop_poll(void *arg)
{
    struct app *app = arg;
    if (app->works.alive > 0 && ++app->stop_polls < STOP_MS / STOP_POLL_MS) {
        loop_timer_start(app->stop_timer, STOP_POLL_MS);
        return;
    }
    if (app->works.alive > 0)
        log_warn("cells are left behind", LF_INT("cells", app->works.alive));
    loop_stop(app->loop);
}

static void stop(struct app *app)
{
    app->stopping = true;
    host_free(&app->host);
    pool_free(&app->pool);
    http_server_close(&app->server);
    loop_timer_start(app->stop_timer, 1);
}

static void on_terminate(void *arg, int signum)
{
    struct app *app = arg;
    if (app->stopping)
        return;
    log_info("stopping", LF_INT("signal", signum), LF_INT("sandboxes", host_running(app->host)));
    stop(app);
}

/* ---- the beginning ---- */

/* Our own programs stand beside this one. */
static int find_programs(struct app *app, struct err *err)
{
    ssize_t n = readlink("/proc/self/exe", app->program_dir, sizeof app->program_dir - 1);
    if (n <= 0)
        return err_set(err, ERR_IO, "/proc/self/exe: %s", strerror(errno));
    app->program_dir[n] = '\0';
    *strrchr(app->program_dir, '/') = '\0';
    snprintf(app->cell_program, sizeof app->cell_program, "%s/sandpiper-sandbox-cell", app->program_dir);
    snprintf(app->supervisor, sizeof app->supervisor, "%s/sandpiper-sandbox-init", app->program_dir);
    if (access(app->cell_program, X_OK) != 0 || access(app->supervisor, R_OK) != 0)
        return err_set(err, ERR_CONFIG, "sandpiper-sandbox-cell and sandpiper-sandbox-init are not in %s",
                       app->program_dir);
    return 0;
}

static int make_dir(const char *path, struct err *err)
{
    char part[512];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(part, 0755);
        *slash = '/';
    }
    if (mkdir(part, 0700) == 0 || errno == EEXIST)
        return 0;
    return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
}

/* One daemon per data directory: the lock is held until the process ends. */
static int take_data_dir(struct app *app, struct err *err)
{
    char path[512];
    const char *dir = app->options.data_dir;
    if (dir[0] != '/')
        return err_set(err, ERR_CONFIG, "SANDPIPER_SANDBOXD_DATA_DIR: an absolute path is expected");
    if (strlen(dir) > 200)
        return err_set(err, ERR_CONFIG, "SANDPIPER_SANDBOXD_DATA_DIR: too long");
    if (make_dir(dir, err) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/lock", dir);
    app->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (app->lock_fd < 0)
        return err_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    if (flock(app->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, ERR_CONFLICT, "%s is in use by another sandboxd", dir);
    snprintf(path, sizeof path, "%s/disks", dir);
    return tool_remove_tree(path, err) != 0 ? -1 : make_dir(path, err);
}

static int open_limits(struct app *app, struct err *err)
{
    const struct options *o = &app->options;
    const struct cgroup_limits limits = {.memory_bytes = o->memory_bytes, .pids = o->pids, .cpus = o->cpus};
    struct buf missing;
    bool disk;
    int bad = 0;
    buf_init(&missing, 1024);
    app->works.cgroups = cgroups_open(o->data_dir, &limits, &missing, err);
    machine_check_limits(o, &missing, &disk);
    if (app->works.cgroups == NULL)
        bad = -1;
    else if (missing.len > 0 && !o->allow_unenforced)
        bad = err_set(err, ERR_UNAVAILABLE,
                      "this machine cannot enforce: %s (--allow-unenforced starts all the same)",
                      buf_cstr(&missing));
    else if (missing.len > 0)
        log_warn("limits are not enforced", LF_VIEW("missing", buf_view(&missing)));
    buf_deinit(&missing);
    if (bad != 0)
        return -1;
    machine_check_files(o);
    app->works.own_ids = machine_own_ids(o);
    if (!app->works.own_ids)
        log_warn("sandboxes share user ids: one may use up what the kernel counts by user, such as inotify "
                 "instances; own ones need Linux 5.19 and a data directory on ext4, xfs or btrfs");
    if (disk && base_image_make_blank(o->data_dir, o->disk_bytes, err) != 0)
        return -1;
    return machine_plan(o, disk, &app->plan, err);
}

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_machine(struct app *app, struct err *err)
{
    raise_descriptors();
    if (machine_check(&app->options, err) != 0 || find_programs(app, err) != 0 ||
        take_data_dir(app, err) != 0 || open_limits(app, err) != 0)
        return -1;
    if (base_image_make(app->options.data_dir, app->supervisor, (uint32_t)app->options.uid_base, err) != 0)
        return -1;
    app->works.seccomp_fd = syscalls_program(err);
    return app->works.seccomp_fd < 0 ? -1 : 0;
}

static int open_sandboxes(struct app *app, struct err *err)
{
    app->works.loop = app->loop;
    app->works.reaper = app->reaper;
    app->works.options = &app->options;
    app->works.program = app->cell_program;
    app->works.plan = &app->plan.plan;
    app->snapshots = snapshots_open(&app->works, err);
    if (app->snapshots == NULL)
        return -1;
    app->pool = pool_new(&app->works);
    app->host = app->pool != NULL ? host_new(&app->works, app->pool) : NULL;
    if (app->host == NULL)
        return err_set(err, ERR_NO_MEMORY, "sandboxes");
    snapshots_watch(app->snapshots, app->host);
    return 0;
}

static int open_server(struct app *app, struct err *err)
{
    app->api = (struct api){
        .loop = app->loop, .host = app->host, .snapshots = app->snapshots, .options = &app->options};
    const struct http_server_options options = {
        .listen = app->options.listen,
        .app = api_app(),
        .arg = &app->api,
        .idle_timeout_ms = STREAM_IDLE_MS,
        .write_timeout_ms = STREAM_IDLE_MS, /* a client may pause an output stream: the program then waits */
    };
    app->server = http_server_open(app->loop, &options, err);
    return app->server != NULL ? 0 : -1;
}

/* ---- the trial: nobody is served before a sandbox was made on this machine, whole, and worked ---- */

static void fail(struct app *app, int status, const struct err *err)
{
    log_error("cannot start", LF_ERR(err));
    fprintf(stderr, "sandpiper-sandboxd: %s\n", err->msg);
    app->status = status;
}

static void trial_failed(void *arg)
{
    stop(arg);
}

static void on_trial(void *arg, struct sandbox *sandbox, const struct err *why)
{
    struct app *app = arg;
    struct err err = ERR_INIT;
    if (sandbox == NULL) {
        fail(app, EXIT_NO_SANDBOX, why);
        fprintf(stderr, "sandpiper-sandboxd: no sandbox can be made on this machine: %s\n",
                machine_advice(why->msg));
        loop_task_post(app->loop, &app->failed, trial_failed, app); /* the pool is in the middle of telling */
        return;
    }
    sandbox_kill(&sandbox, "it was the trial");
    if (open_server(app, &err) != 0) {
        fail(app, EXIT_CANNOT_START, &err);
        loop_task_post(app->loop, &app->failed, trial_failed, app);
        return;
    }
    log_info("ready", LF_STR("listen", app->options.listen), LF_INT("port", http_server_port(app->server)));
}

static int start_trial(struct app *app, struct err *err)
{
    struct sandbox_spec spec = {.ttl_ms = TRIAL_TTL_MS, .network = true, .template_id = str_dup(STR("base"))};
    struct sandbox *sandbox;
    if (spec.template_id == NULL || !snapshots_resolve(app->snapshots, STR("base"), &spec)) {
        sandbox_spec_free(&spec);
        return err_set(err, ERR_NO_MEMORY, "sandbox");
    }
    return sandbox_create(app->host, &spec, on_trial, app, &sandbox, err);
}

static int app_open(struct app *app, struct err *err)
{
    app->loop = loop_new();
    app->reaper = app->loop != NULL ? reaper_new(app->loop) : NULL;
    if (app->reaper == NULL)
        return err_set(err, ERR_NO_MEMORY, "loop");
    app->terminate = loop_signal_new(app->loop, SIGTERM, on_terminate, app);
    app->interrupt = loop_signal_new(app->loop, SIGINT, on_terminate, app);
    app->stop_timer = loop_timer_new(app->loop, on_stop_poll, app);
    if (app->terminate == NULL || app->interrupt == NULL || app->stop_timer == NULL)
        return err_set(err, ERR_NO_MEMORY, "loop");
    return open_machine(app, err) != 0 || open_sandboxes(app, err) != 0 || start_trial(app, err) != 0 ? -1
                                                                                                      : 0;
}

static void app_close(struct app *app)
{
    http_server_close(&app->server);
    host_free(&app->host);
    pool_free(&app->pool);
    snapshots_close(&app->snapshots);
    cgroups_close(&app->works.cgroups);
    if (app->works.seccomp_fd >= 0)
        close(app->works.seccomp_fd);
    if (app->lock_fd >= 0)
        close(app->lock_fd);
    loop_timer_free(&app->stop_timer);
    loop_signal_free(&app->terminate);
    loop_signal_free(&app->interrupt);
    reaper_free(&app->reaper);
    loop_free(&app->loop);
    config_unload(&options_table, &app->options);
}

static int run(struct app *app)
{
    struct err err = ERR_INIT;
    enum log_level level = LOG_INFO;
    log_level_parse(str_of(app->options.log_level), &level);
    log_setup("sandpiper-sandboxd", level);
    signal(SIGPIPE, SIG_IGN);
    if (crypto_init(&err) != 0 || app_open(app, &err) != 0) {
        fail(app, EXIT_CANNOT_START, &err);
        return app->status;
    }
    loop_run(app->loop);
    log_info("stopped");
    return app->status;
}

int main(int argc, char **argv)
{
    static struct app app = {.lock_fd = -1, .works.seccomp_fd = -1};
    enum config_action action = config_load(&options_table, argc, argv, &app.options);
    if (action != CONFIG_RUN)
        return action == CONFIG_EXIT_OK ? 0 : 2;
    int status = run(&app);
    app_close(&app);
    return status;
}
