/* A build of an agent version, as a flow: a sandbox from the base template, or from the one that agent.json
 * names, gets the archive, unpacks it, runs the install step and the check, and becomes the snapshot that
 * invocations start from.
 *
 *   version -> log -> fetch (archive to an unlinked file) -> template -> create -> upload -> install ->
 *   entry -> check -> snapshot -> finish
 *
 * With a git repository for its source, clone and describe (its agent.json is read back) stand in place of
 * fetch and upload. When that agent.json names a template, the sandbox is given up: from `template` on
 * all is done once more, in one of that template's. Of a version that is a template and nothing else, neither
 * is done.
 *
 * The build's own failure (of its install command, of its check) ends it; the provider's or ours gives it
 * back: it stays `building`, and a dispatcher queues it again, until its queue limit is over. What its
 * commands write is stored while they run (build_log.h), and all of it before the outcome is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/failpoint.h"
#include "build_archive.h"
#include "build_command.h"
#include "build_git.h"
#include "build_log.h"
#include "build_template.h"
#include "job.h"
#include "recorder.h"
#include "store/agents.h"
#include "store/nonce.h"

enum {
    STORE_MS = 30000,
    FETCH_MS = 120000,
    UPLOAD_MS = 120000, /* a clone has as much */
    SNAPSHOT_MS = 120000,
    LEAVE_MS = 60000,
    LAST_WORD_MS = 2000,
};

#define ARCHIVE_FILE "/tmp/.sandpiper-agent.tar.gz"

struct build {
    struct build_archive *archive;
    char base[TEMPLATE_BYTES];     /* what the sandbox is made from */
    char commit[GIT_COMMIT_BYTES]; /* what was cloned; "": nothing yet */
    char snapshot[VERSION_SNAPSHOT_BYTES];
    struct build_log *log;
    struct loop_timer *again;
    bool given_back, closing;
    bool ready;
    enum err_code error;
    char message[240];
};

static void enter_version(void *self);
static void enter_log(void *self);
static void enter_fetch(void *self);
static void enter_template(void *self);
static void enter_create(void *self);
static void enter_upload(void *self);
static void enter_clone(void *self);
static void enter_describe(void *self);
static void enter_leave(void *self);
static void enter_install(void *self);
static void enter_entry(void *self);
static void enter_check(void *self);
static void enter_snapshot(void *self);
static void enter_finish(void *self);
static void enter_back(void *self);
static void late_back(void *self);
static void late_ours(void *self);
static void late_command(void *self);

enum {
    STEP_VERSION,
    STEP_LOG,
    STEP_FETCH,
    STEP_TEMPLATE,
    STEP_CREATE,
    STEP_UPLOAD,
    STEP_CLONE,
    STEP_DESCRIBE,
    STEP_LEAVE,
    STEP_INSTALL,
    STEP_ENTRY,
    STEP_CHECK,
    STEP_SNAPSHOT,
    STEP_FINISH,
    STEP_BACK /* from any step */
};

static const struct flow_step steps[] = {
    [STEP_VERSION] = {"version", enter_version, STORE_MS, late_ours},
    [STEP_LOG] = {"log", enter_log, STORE_MS, late_ours},
    [STEP_FETCH] = {"fetch", enter_fetch, FETCH_MS, late_ours},
    [STEP_TEMPLATE] = {"template", enter_template, STORE_MS, late_ours},
    [STEP_CREATE] = {"create", enter_create, 0,
                     late_ours}, /* the provider keeps the deadline and reconciles */
    [STEP_UPLOAD] = {"upload", enter_upload, UPLOAD_MS, late_ours},
    [STEP_CLONE] = {"clone", enter_clone, 0, late_command},
    [STEP_DESCRIBE] = {"describe", enter_describe, STORE_MS, late_ours},
    [STEP_LEAVE] = {"leave", enter_leave, LEAVE_MS, late_ours},
    [STEP_INSTALL] = {"install", enter_install, 0, late_command}, /* these three set their own */
    [STEP_ENTRY] = {"entry", enter_entry, 0, late_command},
    [STEP_CHECK] = {"check", enter_check, 0, late_command},
    [STEP_SNAPSHOT] = {"snapshot", enter_snapshot, SNAPSHOT_MS, late_ours},
    [STEP_FINISH] = {"finish", enter_finish, 0, late_ours}, /* tried until PostgreSQL takes it */
    [STEP_BACK] = {"back", enter_back, LAST_WORD_MS, late_back},
};

static struct build *build_of(struct job *j)
{
    return j->aux;
}

static void build_free(struct job *j)
{
    struct build *b = j->aux;
    build_archive_free(&b->archive);
    loop_timer_free(&b->again);
    build_log_free(&b->log);
    free(b);
}

/* ---- ends ---- */

/* Ours: the lease goes, the version stays `building`. The log has the reason, unless that takes too long. */
static void give_back(struct job *j, const char *why)
{
    struct build *b = build_of(j);
    if (b->given_back)
        return;
    b->given_back = true;
    log_warn("a build failed on our side; it will be tried again", LF_STR("step", flow_step_name(&j->flow)),
             LF_STR("error", why));
    sandbox_cancel(&j->request);
    if (j->fenced) {
        recorder_release(j->x->recorder, j);
        return;
    }
    snprintf(b->message, sizeof b->message, "%.*s", (int)sizeof b->message - 1, why);
    flow_goto(&j->flow, STEP_BACK);
}

/* The build's own end. */
static void decide(struct job *j, bool ready, enum err_code code, const char *message)
{
    struct build *b = build_of(j);
    b->ready = ready;
    b->error = code;
    size_t n = 0;
    for (; message != NULL && message[n] != '\0' && n + 1 < sizeof b->message; n++)
        b->message[n] = message[n] >= ' ' && message[n] <= '~' ? message[n] : '?';
    b->message[n] = '\0';
    sandbox_cancel(&j->request);
    flow_goto(&j->flow, STEP_FINISH);
}

static void provider_failed(struct job *j, const struct sandbox_failure *f)
{
    if (j->entry.queue_deadline.us < wall_now().us)
        decide(j, false, ERR_JOB_PROVIDER, f->err.msg);
    else
        give_back(j, f->err.msg);
}

static void late_ours(void *self)
{
    give_back(self, "a step took too long");
}

void build_stop(struct job *j)
{
    if (j->flow.at != STEP_CREATE || j->request == NULL) /* a create's answer is waited for */
        give_back(j, j->leaving ? "the executor is being stopped" : "stopped");
}

/* For whom an answer of the store is. */
struct asked {
    struct executor *x;
    struct uuid id;
};

/* The job whose build waits for an answer in this step. */
static struct job *current(struct executor *x, struct uuid id, int step)
{
    struct job *j = jobs_find(x->jobs, id);
    bool here = j != NULL && j->entry.kind == ENTRY_BUILD && j->flow.at == step;
    return here && (step == STEP_BACK || !build_of(j)->given_back) ? j : NULL;
}

static void late_back(void *self)
{
    struct job *j = self;
    recorder_release(j->x->recorder, j);
}

static void on_back(struct executor *x, struct uuid id, bool taken)
{
    struct job *j = current(x, id, STEP_BACK);
    (void)taken;
    if (j != NULL)
        late_back(j);
}

static void enter_back(void *self)
{
    struct job *j = self;
    struct build *b = build_of(j);
    if (b->closing) /* its outcome was on the way */
        late_back(j);
    else
        build_log_close(b->log, b->message, on_back);
}

/* ---- version and archive ---- */

static void on_version(struct executor *x, struct uuid id, const struct version *v, const struct err *err)
{
    struct job *j = current(x, id, STEP_VERSION);
    if (j == NULL)
        return;
    if (err != NULL) {
        give_back(j, err->msg);
    } else if (v == NULL || v->status != AGENT_BUILDING) {
        recorder_release(x->recorder, j); /* decided already: a stray entry */
    } else {
        version_keep(&j->version, v);
        flow_next(&j->flow);
    }
}

static void enter_version(void *self)
{
    struct job *j = self;
    version_get(j->x->versions, j->entry.agent, j->entry.version, j->lease.id, on_version);
}

static void on_log(struct executor *x, struct uuid id, bool building, const struct err *err)
{
    struct job *j = current(x, id, STEP_LOG);
    if (j == NULL)
        return;
    if (err != NULL)
        give_back(j, err->msg);
    else if (!building)
        recorder_release(x->recorder, j); /* it has ended meanwhile */
    else
        flow_next(&j->flow);
}

static void enter_log(void *self)
{
    struct job *j = self;
    struct err err = ERR_INIT;
    if (build_log_open(build_of(j)->log, on_log, &err) != 0)
        give_back(j, err.msg);
}

static bool has_archive(const struct job *j)
{
    return j->version.git == NULL && !j->version.from_template;
}

static void on_archive(struct executor *x, struct uuid id, const struct err *err)
{
    struct job *j = current(x, id, STEP_FETCH);
    if (j == NULL)
        return;
    if (err == NULL)
        flow_next(&j->flow);
    else if (err->code == ERR_INTERNAL)
        decide(j, false, err->code, err->msg);
    else
        give_back(j, err->msg);
}

static void enter_fetch(void *self)
{
    struct job *j = self;
    struct err err = ERR_INIT;
    if (!has_archive(j))
        flow_next(&j->flow);
    else if (build_archive_fetch(build_of(j)->archive, j->version.archive_bytes, on_archive, &err) != 0)
        give_back(j, err.msg);
}

/* ---- sandbox ---- */

static const char *base_of(const struct job *j)
{
    const char *named = j->version.manifest->template;
    return named[0] != '\0' ? named : j->x->settings->base_template;
}

static void on_template(struct executor *x, struct uuid id, const struct err *err)
{
    struct job *j = current(x, id, STEP_TEMPLATE);
    if (j == NULL)
        return;
    if (err == NULL)
        flow_next(&j->flow);
    else if (err->code == ERR_TEMPLATE)
        decide(j, false, err->code, err->msg);
    else
        give_back(j, err->msg);
}

static void enter_template(void *self)
{
    struct job *j = self;
    struct err err = ERR_INIT;
    const char *named = j->version.manifest->template;
    if (named[0] == '\0')
        flow_next(&j->flow);
    else if (build_template_check(j->x, j->lease.id, named, on_template, &err) != 0)
        on_template(j->x, j->lease.id, &err);
}

static void on_created(void *arg, const struct sandbox *sandbox, const struct sandbox_failure *f)
{
    struct job *j = arg;
    char refused[sizeof build_of(j)->message];
    j->request = NULL;
    if (f != NULL) {
        if (build_template_refused(j->version.manifest, f, refused, sizeof refused))
            decide(j, false, ERR_JOB_TEMPLATE, refused);
        else
            provider_failed(j, f);
        return;
    }
    j->sandbox = *sandbox;
    j->has_sandbox = true;
    if (j->fenced || j->canceled || j->leaving)
        give_back(j, "stopped");
    else
        flow_next(&j->flow);
}

static void enter_create(void *self)
{
    struct job *j = self;
    const struct sandbox_create spec = {.template_id = base_of(j),
                                        .ttl_ms = UPLOAD_MS + j->x->settings->install_ms +
                                                  j->x->settings->check_ms + SNAPSHOT_MS + 60000,
                                        .deployment = j->x->deployment,
                                        .executor_boot = j->x->boot,
                                        .nonce = nonce_make(j->lease.id, j->lease.attempt),
                                        .deadline_ms = j->x->settings->create_deadline_ms};
    j->create_sent = true;
    snprintf(build_of(j)->base, sizeof build_of(j)->base, "%s", base_of(j));
    j->request = sandbox_create(j->x->provider, &spec, on_created, j);
    if (j->request == NULL)
        give_back(j, "the provider refused a create");
}

static void on_uploaded(void *arg, const struct sandbox_failure *f)
{
    struct job *j = arg;
    j->request = NULL;
    if (f != NULL)
        provider_failed(j, f);
    else
        flow_next(&j->flow);
}

static void enter_upload(void *self)
{
    struct job *j = self;
    struct err err = ERR_INIT;
    struct str archive;
    if (!has_archive(j)) {
        flow_next(&j->flow);
        return;
    }
    FAILPOINT(executor_build_upload);
    if (build_archive_map(build_of(j)->archive, &archive, &err) != 0) {
        give_back(j, err.msg);
        return;
    }
    j->request =
        sandbox_write_file(j->x->provider, &j->sandbox, ARCHIVE_FILE, archive, UPLOAD_MS, on_uploaded, j);
    if (j->request == NULL)
        give_back(j, "the provider refused an upload");
}

/* ---- install and check ---- */

static void on_stdout(void *arg, struct str piece)
{
    build_log_put(build_of(arg)->log, BUILD_LOG_STDOUT, piece);
}

static void on_stderr(void *arg, struct str piece)
{
    build_log_put(build_of(arg)->log, BUILD_LOG_STDERR, piece);
}

static void on_start(void *arg, int64_t pid)
{
    struct job *j = arg;
    j->pid = pid;
    if (j->phase != JOB_RUNNING) /* each command of a build starts */
        job_enter(j, JOB_RUNNING);
}

static enum build_command command_of(const struct job *j)
{
    return j->flow.at == STEP_CLONE   ? BUILD_CLONE
           : j->flow.at == STEP_CHECK ? BUILD_CHECK
           : j->flow.at == STEP_ENTRY ? BUILD_ENTRY
                                      : BUILD_INSTALL;
}

static void on_end(void *arg, const struct sandbox_exit *e, const struct sandbox_failure *f)
{
    struct job *j = arg;
    char message[BUILD_MESSAGE_BYTES];
    j->request = NULL;
    build_log_flush(build_of(j)->log);
    enum err_code code = e != NULL ? build_command_end(j, command_of(j), e, message) : ERR_NONE;
    if (e == NULL) {
        provider_failed(j, f);
    } else if (code != ERR_NONE) {
        decide(j, false, code, message);
    } else {
        FAILPOINT(executor_build_installed);
        flow_next(&j->flow);
    }
}

static void late_command(void *self)
{
    struct job *j = self;
    char message[BUILD_MESSAGE_BYTES];
    enum err_code code = build_command_late(j, command_of(j), message);
    decide(j, false, code, message);
}

static void start_command(struct job *j, const char *script, const char *text, const char *more)
{
    const struct sandbox_process_events events = {
        .on_start = on_start, .on_stdout = on_stdout, .on_stderr = on_stderr, .on_end = on_end, .arg = j};
    flow_extend(&j->flow, build_command_limit_ms(j->x->settings, command_of(j)));
    j->request = build_command_start(j, command_of(j), script, text, more, &events);
    if (j->request == NULL)
        give_back(j, "the provider refused to start a command");
}

static void enter_clone(void *self)
{
    struct job *j = self;
    const struct git_source *git = j->version.git;
    if (git == NULL) {
        flow_next(&j->flow);
        return;
    }
    const char *again = build_of(j)->commit; /* the branch may have moved on */
    const char *ref = again[0] != '\0' ? again : git->ref;
    build_log_command(build_of(j)->log, "git fetch ", git->url, ref);
    start_command(j, build_git_script, git->url, ref);
}

static void on_described(void *arg, const struct err *err)
{
    struct asked *f = arg;
    struct job *j = current(f->x, f->id, STEP_DESCRIBE);
    free(f);
    if (j != NULL && err != NULL)
        give_back(j, err->msg);
    else if (j != NULL)
        flow_next(&j->flow);
}

static void describe(struct job *j, const struct manifest *m, const char *commit)
{
    struct err err = ERR_INIT;
    struct asked *f = malloc(sizeof *f);
    INVARIANT(f != NULL); /* bounded by the builds of this process */
    *f = (struct asked){.x = j->x, .id = j->lease.id};
    if (!version_describe(&j->version, m))
        err_set(&err, ERR_NO_MEMORY, "no memory for a manifest");
    else if (agent_describe(j->x->read, j->version.id, m, str_of(commit), STORE_MS, on_described, f, &err) ==
             0)
        return;
    free(f);
    give_back(j, err.msg);
}

static void on_account(void *arg, struct str content, const struct sandbox_failure *f)
{
    struct job *j = arg;
    struct err err = ERR_INIT;
    char commit[GIT_COMMIT_BYTES];
    struct manifest *m = f == NULL ? malloc(sizeof *m) : NULL;
    j->request = NULL;
    if (f != NULL)
        provider_failed(j, f);
    else if (m == NULL)
        give_back(j, "no memory for a manifest");
    else if (build_git_read(content, m, commit, &err) != 0)
        decide(j, false, err.code, err.msg);
    else {
        memcpy(build_of(j)->commit, commit, sizeof commit);
        describe(j, m, commit);
    }
    free(m);
}

static void enter_describe(void *self)
{
    struct job *j = self;
    if (j->version.git == NULL || build_of(j)->commit[0] != '\0') {
        flow_next(&j->flow);
        return;
    }
    j->request = sandbox_read_file(j->x->provider, &j->sandbox, BUILD_GIT_ACCOUNT, BUILD_GIT_ACCOUNT_BYTES,
                                   STORE_MS, on_account, j);
    if (j->request == NULL)
        give_back(j, "the provider refused to read a file");
}

static void on_left(void *arg, const struct sandbox_failure *f)
{
    struct job *j = arg;
    j->request = NULL;
    if (f != NULL) {
        provider_failed(j, f);
        return;
    }
    j->has_sandbox = false; /* its permit is for the next */
    flow_goto(&j->flow, STEP_TEMPLATE);
}

/* Where agent.json was read is not where it is to be built. */
static void enter_leave(void *self)
{
    struct job *j = self;
    const char *named = j->version.manifest->template;
    if (j->version.git == NULL || named[0] == '\0' || strcmp(build_of(j)->base, named) == 0) {
        flow_next(&j->flow);
        return;
    }
    j->request = sandbox_destroy(j->x->provider, j->sandbox.id, LEAVE_MS, on_left, j);
    if (j->request == NULL)
        give_back(j, "the provider refused to destroy a sandbox");
}

static void enter_install(void *self)
{
    static const char script[] =
        "set -e; mkdir -p \"$HOME/agent\"; tar -xzf " ARCHIVE_FILE
        " --no-same-owner -C \"$HOME/agent\"; rm -f " ARCHIVE_FILE "; cd \"$HOME/agent\"; eval \"$1\"";
    static const char there[] = "set -e; mkdir -p \"$HOME/agent\"; cd \"$HOME/agent\"; eval \"$1\"";
    struct job *j = self;
    const char *install = j->version.manifest->install;
    if (install[0] != '\0')
        build_log_command(build_of(j)->log, "", install, "");
    start_command(j, has_archive(j) ? script : there, install, NULL);
}

/* A file that the install step may have made. A command's first word may be anything that the shell finds. */
static void enter_entry(void *self)
{
    struct job *j = self;
    if (strcmp(j->version.manifest->runtime, "command") == 0)
        flow_next(&j->flow);
    else
        start_command(j, "cd \"$HOME/agent\" && test -e \"$1\"", j->version.manifest->entry, NULL);
}

static void enter_check(void *self)
{
    struct job *j = self;
    const char *check = j->version.manifest->check;
    if (check[0] == '\0') {
        flow_next(&j->flow);
        return;
    }
    build_log_command(build_of(j)->log, "", check, "");
    start_command(j, "cd \"$HOME/agent\" && eval \"$1\"", check, NULL);
}

/* ---- snapshot ---- */

static void on_snapshot(void *arg, const char *snapshot_id, const struct sandbox_failure *f)
{
    struct job *j = arg;
    FAILPOINT(executor_build_snapshot);
    j->request = NULL;
    if (f != NULL)
        provider_failed(j, f);
    else if (!str_copy(str_of(snapshot_id), build_of(j)->snapshot, sizeof build_of(j)->snapshot))
        decide(j, false, ERR_JOB_PROVIDER, "the provider's snapshot id is too long");
    else
        decide(j, true, ERR_NONE, NULL);
}

static void enter_snapshot(void *self)
{
    struct job *j = self;
    char deployment[UUID_TEXT_BYTES], version[UUID_TEXT_BYTES], name[2 * UUID_TEXT_BYTES];
    uuid_format(j->x->deployment, deployment);
    uuid_format(j->version.id, version);
    snprintf(name, sizeof name, "%s-%s", deployment, version);
    j->request = sandbox_snapshot(j->x->provider, &j->sandbox, name, SNAPSHOT_MS, on_snapshot, j);
    if (j->request == NULL)
        give_back(j, "the provider refused a snapshot");
}

/* ---- finish ---- */

static void on_finished(void *arg, const struct err *err)
{
    struct asked *f = arg;
    struct job *j = current(f->x, f->id, STEP_FINISH);
    free(f);
    if (j == NULL)
        return;
    if (err != NULL) {
        loop_timer_start(build_of(j)->again, 1000);
        return;
    }
    FAILPOINT(executor_build_done);
    char id[UUID_TEXT_BYTES];
    uuid_format(j->version.id, id);
    log_info("build ended", LF_STR("version", id), LF_STR("agent", j->version.slug),
             LF_BOOL("ready", build_of(j)->ready));
    recorder_release(j->x->recorder, j);
}

static void finish(void *self)
{
    struct job *j = self;
    struct build *b = build_of(j);
    const struct agent_built built = {.id = j->version.id,
                                      .try = build_log_try(b->log),
                                      .ready = b->ready,
                                      .snapshot = str_of(b->snapshot),
                                      .error = b->error,
                                      .error_message = str_of(b->message),
                                      .log = build_log_tail(b->log)};
    struct asked *f = malloc(sizeof *f);
    INVARIANT(f != NULL);
    *f = (struct asked){.x = j->x, .id = j->lease.id};
    if (agent_build_finish(j->x->read, &built, STORE_MS, on_finished, f, NULL) == 0)
        return;
    free(f);
    loop_timer_start(b->again, 1000);
}

static void on_log_closed(struct executor *x, struct uuid id, bool taken)
{
    struct job *j = current(x, id, STEP_FINISH);
    if (j == NULL)
        return;
    if (taken)
        finish(j);
    else
        recorder_release(x->recorder, j); /* somebody else has the build, and its outcome counts */
}

static void enter_finish(void *self)
{
    struct job *j = self;
    struct build *b = build_of(j);
    job_destroy_sandbox(j);
    b->closing = true;
    build_log_close(b->log, NULL, on_log_closed);
}

/* ---- beginning ---- */

static void flow_over(void *self, const struct err *err)
{
    (void)self, (void)err;
    BUG("a build's flow ended by itself");
}

void build_start(struct job *j)
{
    struct err err;
    struct build *b = calloc(1, sizeof *b);
    if (b == NULL) {
        recorder_release(j->x->recorder, j);
        return;
    }
    j->aux = b;
    j->free_aux = build_free;
    b->again = loop_timer_new(j->x->loop, finish, j);
    b->archive = build_archive_new(j->x, j->lease.id);
    b->log = build_log_new(j->x, j->lease.id);
    if (b->again == NULL || b->archive == NULL || b->log == NULL ||
        flow_init(&j->flow, j->x->loop, steps, sizeof steps / sizeof *steps, j, flow_over, &err) != 0) {
        recorder_release(j->x->recorder, j);
        return;
    }
    flow_start(&j->flow);
}
