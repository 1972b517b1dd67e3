/* One attempt of an invocation, as a flow. Reading the table is reading the feature; every way out goes
 * through one of the `end_*` functions, which decide by model/invocation.h whether the attempt's end is the
 * invocation's.
 *
 *   version -> prompt -> secrets -> warm, or permit -> create -> files -> upload -> environment -> start ->
 * run -> collect -> (recorder)
 *
 * The time limit counts from the program's start; creating has a limit of its own; time in the queue was
 * checked at the claim. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/culprit.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "collect.h"
#include "environment.h"
#include "files_in.h"
#include "intake.h"
#include "job.h"
#include "lease.h"
#include "metrics.h"
#include "mirror.h"
#include "model/file_path.h"
#include "model/usage_report.h"
#include "recorder.h"
#include "run.h"
#include "store/nonce.h"

enum {
    STORE_MS = 30000,
    NOTE_MS = 1000,               /* for Redis to know of a warm sandbox; creating one takes no longer */
    KILL_SLACK_MS = 5000,         /* the host's own kill deadline lies behind ours */
    TTL_SLACK_MS = 60000,         /* the sandbox's life beyond create + start + limit (E2B.md G.1) */
    PROMPT_ARG_BYTES = 64 * 1024, /* rides in Start; a larger one is uploaded */
    SCRIPT_BYTES = 2048,
    FIXED_ARGS = 5,
    CUT_OFF_MS = 60000, /* beyond the time in which the provider gives a lost stream up */
    RESUMED_MS = 1000,  /* for an end that was kept */
};

static void enter_version(void *self);
static void enter_create(void *self);
static void enter_files(void *self);
static void enter_upload(void *self);
static void enter_start(void *self);
static void enter_run(void *self);
static void enter_collect(void *self);
static void late_ours(void *self);
static void late_run(void *self);
static void late_collect(void *self);
static void end_exit(struct job *j);

static const struct flow_step steps[] = {
    [STEP_VERSION] = {"version", enter_version, STORE_MS, late_ours},
    [STEP_PROMPT] = {"prompt", enter_prompt, STORE_MS, late_ours},
    [STEP_SECRETS] = {"secrets", enter_secrets, STORE_MS, late_ours},
    [STEP_WARM] = {"warm", enter_warm, NOTE_MS, late_warm},
    [STEP_PERMIT] = {"permit", enter_permit, STORE_MS, late_permit},
    /* the provider keeps the deadlines of create, upload and start, and reconciles */
    [STEP_CREATE] = {"create", enter_create, 0, late_ours},
    [STEP_FILES] = {"files", enter_files, FILES_MS, late_ours},
    [STEP_UPLOAD] = {"upload", enter_upload, 0, late_ours},
    [STEP_ENVIRONMENT] = {"environment", enter_environment, STORE_MS, late_ours},
    [STEP_START] = {"start", enter_start, 0, late_ours},
    [STEP_RUN] = {"run", enter_run, 0, late_run}, /* the invocation's own limit, set on entering */
    [STEP_COLLECT] = {"collect", enter_collect, COLLECT_MS, late_collect},
};

/* ---- ends ---- */

static void fill_usage(struct job *j)
{
    struct outcome *o = &j->outcome;
    mono_t now = loop_now(j->x->loop), end = j->over_at.us != 0 ? j->over_at : now;
    if (j->sandbox.id[0] == '\0')
        return;
    o->has_usage = true;
    o->sandbox = str_of(j->sandbox.id);
    o->queue_ms = (j->claimed_at.us - j->entry.ready.us) / 1000;
    o->queue_ms = o->queue_ms > 0 ? o->queue_ms : 0;
    o->sandbox_start_ms = mono_ms_between(j->asked_at, j->began_at.us != 0 ? j->began_at : now);
    o->run_ms = j->began_at.us != 0 ? mono_ms_between(j->began_at, end) : 0;
    o->sandbox_ms = mono_ms_between(j->sandbox_at, now);
}

static struct outcome *outcome_begin(struct job *j)
{
    struct outcome *o = &j->outcome;
    *o = (struct outcome){.row.key = j->lease.id,
                          .tenant = j->lease.tenant,
                          .agent = j->entry.agent,
                          .attempt = j->lease.attempt,
                          .boot = j->x->boot,
                          .executor = j->x->boot,
                          .what = OUTCOME_RESULT,
                          .started_at = j->started_at,
                          .finished_at = wall_now(),
                          .cpu_ms = -1,
                          .peak_memory_bytes = -1};
    fill_usage(j);
    return o;
}

/* Printable ASCII of a message, without secrets: what goes into text columns is ours to keep clean. */
static struct str clean(struct job *j, const char *message)
{
    char text[sizeof j->message];
    size_t n = 0;
    environment_clean(j, message, text, sizeof text);
    message = text;
    for (; message[n] != '\0' && n + 1 < sizeof j->message; n++)
        j->message[n] = message[n] >= ' ' && message[n] <= '~' ? message[n] : '?';
    j->message[n] = '\0';
    return str_make(j->message, n);
}

/* The flow is over: the outcome is recorded, then the sandbox goes. Not before: were this process to die in
 * between, nobody could tell that the attempt had held one, and its usage would be lost. */
static void finish(struct job *j)
{
    sandbox_cancel(&j->request);
    files_in_free(&j->files_in);
    collect_stop(j);
    flow_deinit(&j->flow);
    environment_flush(j);
    mirror_moved(j);
    j->outcome.output_redacted = j->out_redacted;
    if (j->fenced && !j->outcome.has_usage)
        recorder_release(j->x->recorder, j);
    else
        recorder_put(j->x->recorder, j);
}

/* Somebody else owns the invocation: usage only. */
static bool end_fenced(struct job *j)
{
    if (!j->fenced)
        return false;
    outcome_begin(j)->what = OUTCOME_USAGE_ONLY;
    finish(j);
    return true;
}

/* Whether the attempt's end is the invocation's. */
static enum inv_verdict judge(const struct job *j, enum inv_state state, bool ours, int64_t *backoff_ms_out)
{
    const struct inv_attempt_end end = {.state = state,
                                        .started = j->phase == JOB_RUNNING,
                                        .ours = ours,
                                        .attempt = j->entry.attempt,
                                        .own = j->entry.own,
                                        .max_attempts = j->entry.max_attempts,
                                        .retry_on = j->entry.retry_on,
                                        .reruns = j->entry.reruns,
                                        .queue_left_ms = (j->entry.queue_deadline.us - wall_now().us) / 1000};
    uint32_t chance;
    random_bytes(&chance, sizeof chance);
    return inv_judge(&end, chance, backoff_ms_out);
}

/* The attempt's end, told by state; ours: the provider's or our failure. */
static void end_attempt(struct job *j, enum inv_state state, bool ours, enum err_code code,
                        const char *message)
{
    struct outcome *o = &j->outcome;
    bool started = j->phase == JOB_RUNNING;
    int64_t backoff_ms;
    o->state = state;
    o->error = code;
    o->error_message = clean(j, message);
    if (!j->canceled && judge(j, state, ours, &backoff_ms) == INV_RETRY) {
        o->what = OUTCOME_RETRY;
        o->reason = str_of(code != ERR_NONE ? err_code_name(code) : inv_state_name(state));
        o->reruns = (int16_t)(j->entry.reruns + (ours && started ? 1 : 0));
        o->blames = j->entry.blames;
        o->not_before.us = wall_now().us + backoff_ms * 1000;
    }
    finish(j);
}

static void end_canceled(struct job *j)
{
    outcome_begin(j);
    end_attempt(j, INV_CANCELED, false, ERR_NONE, NULL);
}

static void end_ours(struct job *j, enum err_code code, const char *message)
{
    clean(j, message); /* into j->message */
    log_warn("attempt failed on our side", LF_STR("step", flow_step_name(&j->flow)),
             LF_STR("error", j->message), LF_INT("attempt", j->lease.attempt));
    outcome_begin(j);
    end_attempt(j, INV_ERROR, true, code, message);
}

void run_end_ours(struct job *j, enum err_code code, const char *message)
{
    end_ours(j, code, message);
}

void run_end_error(struct job *j, enum err_code code, const char *message)
{
    outcome_begin(j);
    end_attempt(j, INV_ERROR, false, code, message);
}

void run_hand_back(struct job *j)
{
    sandbox_cancel(&j->request);
    flow_deinit(&j->flow);
    recorder_hand_back(j->x->recorder, j);
}

/* A 429 spends nothing: the job goes back to the queue as it was, and the whole fleet waits a little. */
static void end_quota(struct job *j, const struct sandbox_failure *f)
{
    int64_t wait_ms = f->retry_after_ms > 0 ? f->retry_after_ms : 1000;
    log_info("the provider's quota is reached: handing the job back", LF_INT("wait_ms", wait_ms));
    governor_pause(j->x->governor, wait_ms);
    intake_pause(j->x->intake, wait_ms);
    j->create_sent = false; /* the provider made nothing */
    run_hand_back(j);
}

/* This process stops. Without a sandbox the job goes back as it came; with one the attempt is over (its usage
 * is recorded) and the next begins elsewhere, at once and at nobody's expense but the cap on all re-runs. */
static void end_leaving(struct job *j)
{
    struct outcome *o;
    bool started = j->phase == JOB_RUNNING;
    if (!j->has_sandbox) {
        run_hand_back(j);
        return;
    }
    o = outcome_begin(j);
    o->what = OUTCOME_RETRY;
    o->reason = STR("executor_stopped");
    o->reruns = j->entry.reruns;
    o->blames = (int16_t)(j->entry.blames + (started ? 1 : 0));
    o->not_before = wall_now();
    if (o->reruns + o->blames > INV_MAX_ATTEMPTS) {
        o->what = OUTCOME_RESULT;
        o->state = INV_ERROR;
        o->error = ERR_JOB_SANDBOX_LOST;
        o->error_message = str_of(err_public_text(ERR_JOB_SANDBOX_LOST));
    }
    finish(j);
}

static void late_ours(void *self)
{
    struct job *j = self;
    char message[96];
    snprintf(message, sizeof message, "step %s took too long", flow_step_name(&j->flow));
    sandbox_cancel(&j->request);
    if (!end_fenced(j))
        end_ours(j, ERR_JOB_PROVIDER, message);
}

void run_stop(struct job *j)
{
    if (j->flow.at == STEP_CREATE && j->request != NULL)
        return; /* a create cannot be withdrawn: its answer is waited for, so that nothing leaks */
    if (end_fenced(j))
        return;
    if (j->over_at.us != 0) { /* its program has ended by itself: that is the truth, canceled or not */
        collect_cut(j);
        end_exit(j);
    } else if (j->canceled) {
        end_canceled(j);
    } else {
        end_leaving(j);
    }
}

/* ---- version ---- */

struct job *run_current(struct executor *x, struct uuid id, enum run_step step)
{
    struct job *j = jobs_find(x->jobs, id);
    return j != NULL && j->entry.kind == ENTRY_INVOCATION && j->phase < JOB_RECORDING &&
                   j->flow.at == (int)step
               ? j
               : NULL;
}

static void on_version(struct executor *x, struct uuid id, const struct version *v, const struct err *err)
{
    struct job *j = run_current(x, id, STEP_VERSION);
    if (j == NULL)
        return;
    CULPRIT(id);
    if (err != NULL) {
        end_ours(j, ERR_UNAVAILABLE, err->msg);
    } else if (v == NULL || v->snapshot[0] == '\0') { /* retired ones have theirs while anything is open */
        outcome_begin(j);
        end_attempt(j, INV_ERROR, false, ERR_AGENT_NOT_FOUND, "the agent's version is gone");
    } else {
        version_keep(&j->version, v);
        if (v->manifest->output_max_bytes > 0 && v->manifest->output_max_bytes < j->out.cap)
            j->out.cap = v->manifest->output_max_bytes;
        flow_next(&j->flow);
    }
}

static void enter_version(void *self)
{
    struct job *j = self;
    version_get(j->x->versions, j->entry.agent, j->entry.version, j->lease.id, on_version);
}

/* ---- create ---- */

static void on_created(void *arg, const struct sandbox *sandbox, const struct sandbox_failure *f)
{
    struct job *j = arg;
    FAILPOINT(executor_created);
    j->request = NULL;
    if (f == NULL) {
        j->sandbox = *sandbox;
        j->has_sandbox = true;
        j->sandbox_at = loop_now(j->x->loop);
    } else if (f->made[0] != '\0') { /* held, though we never had it: it has its usage */
        str_copy(str_of(f->made), j->sandbox.id, sizeof j->sandbox.id);
        j->sandbox_at = mono_add_ms(loop_now(j->x->loop), -f->made_ms);
    }
    bool unsure =
        f != NULL && f->retry == RETRY_CHECK; /* one may live: this attempt is not to be had again */
    if (end_fenced(j))
        return;
    if (j->canceled)
        end_canceled(j);
    else if (f != NULL && f->quota)
        end_quota(j, f);
    else if (j->leaving && !unsure)
        end_leaving(j);
    else if (f != NULL)
        end_ours(j, ERR_JOB_PROVIDER, f->err.msg);
    else
        flow_next(&j->flow);
}

int64_t run_hold_ms(const struct job *j)
{
    return 2 * j->x->settings->start_deadline_ms + (uuid_is_zero(j->entry.files) ? 0 : FILES_MS) +
           j->entry.timeout_ms + (collect_wanted(j, true) ? COLLECT_MS + COLLECT_LIST_MS : 0) + TTL_SLACK_MS;
}

static void enter_create(void *self)
{
    struct job *j = self;
    const struct settings *s = j->x->settings;
    const struct sandbox_create spec = {.template_id = j->version.snapshot,
                                        .ttl_ms = run_hold_ms(j),
                                        .deployment = j->x->deployment,
                                        .executor_boot = j->x->boot,
                                        .nonce = nonce_make(j->lease.id, j->lease.attempt),
                                        .no_internet = j->version.manifest->egress == EGRESS_DENY,
                                        .deadline_ms = s->create_deadline_ms};
    FAILPOINT(executor_create);
    j->create_sent = true;
    j->request = sandbox_create(j->x->provider, &spec, on_created, j);
    if (j->request == NULL)
        end_ours(j, ERR_JOB_PROVIDER, "the provider refused a create");
}

/* ---- files ---- */

static void on_files(struct job *j, enum err_code code, bool ours, const char *message,
                     const struct sandbox_failure *f)
{
    if (f != NULL && warm_was_gone(j, f))
        return;
    if (code == ERR_NONE) {
        flow_next(&j->flow);
    } else if (ours) {
        end_ours(j, code, message);
    } else {
        outcome_begin(j);
        end_attempt(j, INV_ERROR, false, code, message);
    }
}

static void enter_files(void *self)
{
    struct job *j = self;
    files_in_free(&j->files_in); /* of a sandbox that was gone */
    if (uuid_is_zero(j->entry.files))
        flow_next(&j->flow);
    else
        files_in_start(j, on_files);
}

/* ---- upload ---- */

#define TRACE_NAME "TRACEPARENT=" /* as OpenTelemetry's programs read it */
#define PROMPT_FILE "/tmp/.sandpiper-prompt"

static void on_uploaded(void *arg, const struct sandbox_failure *f)
{
    struct job *j = arg;
    j->request = NULL;
    if (f != NULL && warm_was_gone(j, f))
        return;
    if (f != NULL)
        end_ours(j, ERR_JOB_PROVIDER, f->err.msg);
    else
        flow_next(&j->flow);
}

static void enter_upload(void *self)
{
    struct job *j = self;
    if (j->entry.prompt.n <= PROMPT_ARG_BYTES) {
        flow_next(&j->flow);
        return;
    }
    FAILPOINT(executor_upload);
    j->request = sandbox_write_file(j->x->provider, &j->sandbox, PROMPT_FILE, j->entry.prompt,
                                    j->x->settings->start_deadline_ms, on_uploaded, j);
    if (j->request == NULL)
        end_ours(j, ERR_JOB_PROVIDER, "the provider refused an upload");
}

/* ---- start and run ----
 *
 * A shell puts the prompt where stdin can be redirected from, then becomes the program: exit code and signal
 * stay the program's own. The prompt rides as an argument of `sh`, which never holds a secret. */

static const char script_head[] =
    "if [ \"$1\" = arg ]; then printf %s \"$2\" >" PROMPT_FILE "; fi; cd \"$HOME/agent\" 2>/dev/null || cd; "
    "exec <" PROMPT_FILE "; ";
/* Of the files that came along, those that are to be executable are the arguments behind the prompt. */
static const char script_programs[] = "shift 2; chmod 755 -- \"$@\"; ";

static void on_start(void *arg, int64_t pid)
{
    struct job *j = arg;
    j->pid = pid;
    j->began_at = loop_now(j->x->loop);
    j->started_at = wall_now();
    free(j->prompt); /* on its way: memory for thousands of running jobs */
    j->prompt = NULL;
    j->entry.prompt = str_of(NULL);
    metric_observe(&j->x->metrics->row[M_START_SECONDS],
                   (double)mono_ms_between(j->asked_at, j->began_at) / 1000);
    job_enter(j, JOB_RUNNING);
    FAILPOINT(executor_started);
    lease_started(j->x->leases, j->lease.id);
    mirror_moved(j);
    flow_goto(&j->flow, STEP_RUN);
}

static void on_stdout(void *arg, struct str piece)
{
    struct job *j = arg;
    environment_stdout(j, piece);
    if (j->usage_scan != NULL)
        usage_scan_feed(j->usage_scan, piece);
    mirror_moved(j);
}

static void on_stderr(void *arg, struct str piece)
{
    struct job *j = arg;
    environment_stderr(j, piece);
    mirror_moved(j);
}

static void on_break(void *arg)
{
    struct job *j = arg;
    j->cut_off = true;
}

static void on_resume(void *arg)
{
    struct job *j = arg;
    j->cut_off = false;
    j->out.gap = j->err.gap = true;
    if (j->overdue)
        flow_extend(&j->flow, RESUMED_MS);
}

static enum inv_state state_of(const struct sandbox_exit *e)
{
    return e->kind == SANDBOX_EXITED && e->code == 0 ? INV_SUCCEEDED : INV_FAILED;
}

static void end_exit(struct job *j)
{
    const struct sandbox_exit *e = &j->exit;
    struct outcome *o = outcome_begin(j);
    collect_fill(j, o);
    o->cpu_ms = e->cpu_ms;
    o->peak_memory_bytes = e->peak_memory_bytes;
    if (e->kind == SANDBOX_SIGNALED) {
        str_copy(clean(j, e->signal), j->signal, sizeof j->signal);
        o->signal = str_of(j->signal);
    } else {
        o->has_exit_code = true;
        o->exit_code = e->code;
    }
    bool good = state_of(e) == INV_SUCCEEDED;
    bool oom = e->oom_killed && !good;
    if (oom && o->signal.n == 0) { /* the shell or the program told of its child's death by its exit code */
        o->has_exit_code = false;
        o->signal = STR("KILL");
    }
    end_attempt(j, good ? INV_SUCCEEDED : INV_FAILED, false, oom ? ERR_JOB_OUT_OF_MEMORY : ERR_NONE,
                oom ? err_public_text(ERR_JOB_OUT_OF_MEMORY) : NULL);
}

static void end_timed_out(struct job *j)
{
    char message[96];
    snprintf(message, sizeof message, "the program exceeded its limit of %g s", j->entry.timeout_ms / 1000.0);
    outcome_begin(j);
    end_attempt(j, INV_TIMED_OUT, false, ERR_JOB_RUN_TIMEOUT, message);
}

/* Artifacts are those of the attempt that gives the result. */
static bool wants_artifacts(const struct job *j)
{
    int64_t backoff_ms;
    return judge(j, state_of(&j->exit), false, &backoff_ms) == INV_SETTLE;
}

/* The program has ended by itself. */
static void over(struct job *j, const struct sandbox_exit *e)
{
    j->exit = *e;
    j->over_at = loop_now(j->x->loop);
    environment_flush(j);
    mirror_moved(j);
    if (j->phase == JOB_RUNNING && collect_wanted(j, wants_artifacts(j)))
        flow_goto(&j->flow, STEP_COLLECT);
    else
        end_exit(j);
}

static void on_end(void *arg, const struct sandbox_exit *e, const struct sandbox_failure *f)
{
    struct job *j = arg;
    FAILPOINT(executor_ended);
    j->request = NULL;
    if (e != NULL) {
        over(j, e);
    } else if (j->phase == JOB_RUNNING && f->err.code == ERR_TIMEOUT) {
        end_timed_out(j); /* the host's clock was first */
    } else if (!warm_was_gone(j, f)) {
        end_ours(j, j->phase == JOB_RUNNING ? ERR_JOB_SANDBOX_LOST : ERR_JOB_PROVIDER, f->err.msg);
    }
}

static void enter_start(void *self)
{
    struct job *j = self;
    char command[SCRIPT_BYTES], script[SCRIPT_BYTES + sizeof script_head + sizeof script_programs];
    bool arg = j->entry.prompt.n <= PROMPT_ARG_BYTES;
    if (!agent_run_command(j->version.manifest->runtime, j->version.manifest->entry, command,
                           sizeof command)) {
        outcome_begin(j);
        end_attempt(j, INV_ERROR, false, ERR_BAD_MANIFEST, "the agent's entry is too long");
        return;
    }
    char *prompt = arg ? str_dup(j->entry.prompt) : NULL;
    const char *args[FIXED_ARGS + FILES_MAX + 1] = {"-c", script, "agent", arg ? "arg" : "file",
                                                    prompt != NULL ? prompt : ""};
    size_t programs = files_in_programs(j->files_in, args + FIXED_ARGS, FILES_MAX);
    snprintf(script, sizeof script, "%s%s%s", script_head, programs > 0 ? script_programs : "", command);
    char trace[sizeof TRACE_NAME + TRACEPARENT_TEXT_BYTES] = TRACE_NAME;
    traceparent_format(&j->entry.trace, trace + sizeof TRACE_NAME - 1);
    struct environment_pairs env = {.n = 0};
    const char *stated[MANIFEST_ENV_MAX];
    int n = manifest_env(j->version.manifest, stated, MANIFEST_ENV_MAX);
    for (int i = 0; i < n; i++)
        environment_pair_put(&env, stated[i]);
    environment_pairs_put(&env, j);
    if (j->entry.trace.present)
        environment_pair_put(&env, trace);
    char report[COLLECT_ENV_BYTES];
    if (collect_env(j, report))
        environment_pair_put(&env, report);
    const struct sandbox_spawn spec = {.sandbox = &j->sandbox,
                                       .cmd = "/bin/sh",
                                       .args = args,
                                       .env = env.list,
                                       .kill_after_ms = j->entry.timeout_ms + KILL_SLACK_MS,
                                       .start_deadline_ms = j->x->settings->start_deadline_ms};
    const struct sandbox_process_events events = {.on_start = on_start,
                                                  .on_stdout = on_stdout,
                                                  .on_stderr = on_stderr,
                                                  .on_break = on_break,
                                                  .on_resume = on_resume,
                                                  .on_end = on_end,
                                                  .arg = j};
    if (!arg || prompt != NULL)
        j->request = sandbox_spawn(j->x->provider, &spec, &events);
    files_in_free(&j->files_in);
    free(prompt);
    if (j->request == NULL)
        end_ours(j, ERR_JOB_PROVIDER, "the provider refused to start the program");
}

static void enter_run(void *self)
{
    struct job *j = self;
    int64_t left_ms = j->entry.timeout_ms - mono_ms_between(j->began_at, loop_now(j->x->loop));
    flow_extend(&j->flow, left_ms > 0 ? left_ms : 1);
}

/* Cut off from the program nobody can say whether it has ended by now: the provider keeps its end for a
 * while, and tells within CUT_OFF_MS what it can. */
static void late_run(void *self)
{
    struct job *j = self;
    if (end_fenced(j))
        return;
    if (!j->cut_off) {
        end_timed_out(j);
    } else if (!j->overdue) {
        j->overdue = true;
        flow_extend(&j->flow, CUT_OFF_MS);
    } else {
        end_ours(j, ERR_JOB_SANDBOX_LOST, "the way to the sandbox was lost");
    }
}

/* ---- collect ---- */

static void enter_collect(void *self)
{
    struct job *j = self;
    collect_start(j, wants_artifacts(j), end_exit);
}

static void late_collect(void *self)
{
    struct job *j = self;
    if (collect_hurry(j))
        flow_extend(&j->flow, COLLECT_LIST_MS);
    else
        end_exit(j);
}

/* ---- beginning ---- */

static void flow_over(void *self, const struct err *err)
{
    (void)self, (void)err;
    BUG("a run's flow ended by itself"); /* every way out is an end_* */
}

void run_start(struct job *j)
{
    struct err err;
    if (j->entry.queue_deadline.us < wall_now().us && j->entry.attempt == 1) {
        outcome_begin(j);
        end_attempt(j, INV_EXPIRED, false, ERR_JOB_QUEUE_TIMEOUT, err_public_text(ERR_JOB_QUEUE_TIMEOUT));
        return;
    }
    if (flow_init(&j->flow, j->x->loop, steps, sizeof steps / sizeof *steps, j, flow_over, &err) != 0) {
        end_ours(j, ERR_NO_MEMORY, err.msg);
        return;
    }
    flow_start(&j->flow);
}
