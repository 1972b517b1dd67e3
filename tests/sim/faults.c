/* The table of faults, the rules in force, and what was injected so far. */
#include "faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "json/json.h"

enum { RULES_MAX = 64, HOLD_MAX_MS = 3600 * 1000, HOLD_MS = 30 * 1000, NAME_BYTES = 24, LIST_BYTES = 400 };

#define FLOOD_BYTES (1LL << 30)
#define BYTES_MAX (1LL << 36)

static const char *const call_names[CALL_KINDS] = {
    [CALL_OTHER] = "other",      [CALL_CREATE] = "create",   [CALL_LIST] = "list",
    [CALL_INFO] = "info",        [CALL_TIMEOUT] = "timeout", [CALL_KILL] = "kill",
    [CALL_START] = "start",      [CALL_CONNECT] = "connect", [CALL_UPLOAD] = "upload",
    [CALL_HEALTH] = "health",    [CALL_SIGNAL] = "signal",   [CALL_DOWNLOAD] = "download",
    [CALL_SNAPSHOT] = "snapshot"};

#define BIT(call) (1u << (call))
#define ALL ((BIT(CALL_KINDS) - 1) & ~BIT(CALL_OTHER))
#define STREAMS (BIT(CALL_START) | BIT(CALL_CONNECT))

/* bytes -1: drawn for each request. */
static const struct {
    const char *name;
    unsigned calls;
    int status;
    int64_t for_ms, bytes, rate;
} table[FAULT_KINDS] = {
    [FAULT_429_RATE] = {"429_rate", ALL, 429, 0, 0, 0},    /* with Retry-After: 1 */
    [FAULT_429_LIMIT] = {"429_limit", ALL, 429, 0, 0, 0},  /* without it */
    [FAULT_403] = {"403", BIT(CALL_CREATE), 403, 0, 0, 0}, /* the template is another team's */
    [FAULT_404] = {"404", BIT(CALL_CREATE), 404, 0, 0, 0}, /* there is no such template */
    [FAULT_500] = {"500", ALL, 500, 0, 0, 0},
    [FAULT_502] = {"502", ALL, 502, 0, 0, 0},
    [FAULT_503] = {"503", ALL, 503, 0, 0, 0},
    [FAULT_504] = {"504", ALL, 504, 0, 0, 0},
    [FAULT_RESET] = {"reset", ALL, 0, 0, 0, 0},     /* instead of an answer; nothing was done */
    [FAULT_HANG] = {"hang", ALL, 0, HOLD_MS, 0, 0}, /* nothing is done, then a reset; healed: served */
    [FAULT_LOST] = {"lost", ALL, 0, 0, 0, 0},       /* done, then a reset */
    [FAULT_MUTE] = {"mute", ALL, 0, HOLD_MS, 0, 0}, /* done; no answer, then a reset; healed: answered */
    [FAULT_CUT] = {"cut", ALL, 0, 0, -1, 0},        /* done; a reset in the middle of the answer */
    [FAULT_TRICKLE] = {"trickle", ALL, 0, 0, 0, 1}, /* done; the answer a byte a second; healed: the rest */
    [FAULT_BAD_JSON] = {"bad_json", ALL, 0, 0, -1, 0},    /* done; the answer, or a frame, is no JSON */
    [FAULT_STALL] = {"stall", STREAMS, 0, HOLD_MS, 0, 0}, /* silent after the first event, then a reset */
    [FAULT_BAD_LENGTH] = {"bad_length", STREAMS, 0, 0, -1, 0},      /* a frame of 4 GiB */
    [FAULT_BAD_FLAGS] = {"bad_flags", STREAMS, 0, 0, -1, 0},        /* a frame with flags that nobody knows */
    [FAULT_NO_END] = {"no_end", STREAMS, 0, 0, 0, 0},               /* the program's end is not told */
    [FAULT_NO_END_STREAM] = {"no_end_stream", STREAMS, 0, 0, 0, 0}, /* the stream's end frame is missing */
    [FAULT_VANISH] = {"vanish", BIT(CALL_START), 0, -1, 0, 0},      /* the sandbox is gone after the start */
    [FAULT_FLOOD] = {"flood", BIT(CALL_START), 0, 0, FLOOD_BYTES, 0}, /* the program writes a GiB */
};

struct rule {
    unsigned calls;
    struct fault fault;
    double p;
    int64_t times; /* left; -1: no end */
    uint64_t hits;
};

struct faults {
    struct dice dice;
    struct rule rules[RULES_MAX];
    size_t rule_count;
    uint64_t requests[CALL_KINDS], injected[CALL_KINDS][FAULT_KINDS];
};

struct faults *faults_new(uint64_t seed)
{
    struct faults *f = calloc(1, sizeof *f);
    if (f != NULL)
        f->dice.seed = seed;
    return f;
}

void faults_free(struct faults **f)
{
    free(*f);
    *f = NULL;
}

int fault_status(enum fault_kind kind)
{
    return table[kind].status;
}

const struct dice *faults_dice(const struct faults *f)
{
    return &f->dice;
}

/* ---- rules, read ---- */

/* "create, list, …": of the calls (faults NULL), or of the faults that fit these calls. */
static const char *known_names(unsigned calls, bool of_faults, char out[LIST_BYTES])
{
    size_t at = 0;
    for (int i = 1; i < (of_faults ? (int)FAULT_KINDS : (int)CALL_KINDS); i++)
        if (!of_faults || (table[i].calls & calls) == calls)
            at += (size_t)snprintf(out + at, LIST_BYTES - at, "%s%s", at > 0 ? ", " : "",
                                   of_faults ? table[i].name : call_names[i]);
    return out;
}

static int read_call(const struct json_value *v, unsigned *calls, struct err *err)
{
    char names[LIST_BYTES];
    struct str name = STR("(no text)");
    json_str(v, &name);
    if (str_eq_c(name, "any"))
        *calls |= ALL;
    for (int i = CALL_OTHER + 1; i < CALL_KINDS; i++)
        if (str_eq_c(name, call_names[i]))
            *calls |= BIT(i);
    if (*calls != 0)
        return 0;
    return err_set(err, ERR_BAD_FIELD, "on: \"%.*s\" is no call; known: any, %s",
                   (int)(name.n < NAME_BYTES ? name.n : NAME_BYTES), name.p, known_names(0, false, names));
}

static int read_on(const struct json_value *on, unsigned *calls_out, struct err *err)
{
    *calls_out = 0;
    if (json_type_of(on) != JSON_ARRAY)
        return read_call(on, calls_out, err);
    for (const struct json_value *v = json_first(on); v != NULL; v = json_next(v)) {
        unsigned calls = 0;
        if (read_call(v, &calls, err) != 0)
            return -1;
        *calls_out |= calls;
    }
    return *calls_out != 0 ? 0 : err_set(err, ERR_BAD_FIELD, "on: no call is named");
}

static int read_fault(const struct json_value *v, struct rule *rule, struct err *err)
{
    char names[LIST_BYTES];
    struct str name = STR("(no text)");
    json_str(v, &name);
    for (int i = FAULT_NONE + 1; i < FAULT_KINDS; i++)
        if (str_eq_c(name, table[i].name) && (table[i].calls & rule->calls) == rule->calls) {
            rule->fault = (struct fault){.kind = (enum fault_kind)i,
                                         .for_ms = table[i].for_ms,
                                         .bytes = table[i].bytes,
                                         .rate = table[i].rate};
            return 0;
        }
    return err_set(err, ERR_BAD_FIELD, "fault: \"%.*s\" is not one of these calls; known for them: %s",
                   (int)(name.n < NAME_BYTES ? name.n : NAME_BYTES), name.p,
                   known_names(rule->calls, true, names));
}

static bool whole(const struct json *doc, const struct json_value *rule, const char *name, int64_t min,
                  int64_t max, int64_t *out)
{
    const struct json_value *v = json_get(rule, name);
    return v == NULL || (json_int(doc, v, out) && *out >= min && *out <= max);
}

static int read_rule(const struct json *doc, const struct json_value *v, struct rule *rule, struct err *err)
{
    static const char *const known[] = {"on", "fault", "p", "times", "for_ms", "bytes", "rate", NULL};
    const struct json_value *p = json_get(v, "p");
    *rule = (struct rule){.p = 1, .times = -1};
    if (json_type_of(v) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "a rule is an object: {\"on\": …, \"fault\": …}");
    if (json_known_fields(v, known, err) != 0 || read_on(json_get(v, "on"), &rule->calls, err) != 0 ||
        read_fault(json_get(v, "fault"), rule, err) != 0)
        return -1;
    if (p != NULL && (!json_double(p, &rule->p) || rule->p < 0 || rule->p > 1))
        return err_set(err, ERR_BAD_FIELD, "p: 0 to 1 is expected");
    if (!whole(doc, v, "times", 0, INT64_MAX, &rule->times) ||
        !whole(doc, v, "for_ms", 0, HOLD_MAX_MS, &rule->fault.for_ms) ||
        !whole(doc, v, "bytes", 0, BYTES_MAX, &rule->fault.bytes) ||
        !whole(doc, v, "rate", 1, 1000000000, &rule->fault.rate))
        return err_set(err, ERR_BAD_FIELD,
                       "times, for_ms (up to an hour), bytes (up to 64 GiB) and rate (from 1) are whole");
    return 0;
}

/* The whole document into `fresh`. */
static int read_rules(const struct json *doc, struct faults *fresh, struct err *err)
{
    static const char *const known[] = {"seed", "rules", NULL};
    const struct json_value *root = json_root(doc), *rules = json_get(root, "rules");
    int64_t seed = (int64_t)fresh->dice.seed;
    if (json_type_of(root) != JSON_OBJECT || (rules != NULL && json_type_of(rules) != JSON_ARRAY))
        return err_set(err, ERR_BAD_FIELD, "{\"seed\": …, \"rules\": […]} is expected");
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (!whole(doc, root, "seed", 0, INT64_MAX, &seed))
        return err_set(err, ERR_BAD_FIELD, "seed: a whole number from 0 is expected");
    if (json_count(rules) > RULES_MAX)
        return err_set(err, ERR_LIMIT, "%d rules at most", RULES_MAX);
    fresh->rule_count = 0;
    if (json_get(root, "seed") != NULL) {
        fresh->dice.seed = (uint64_t)seed;
        memset(fresh->requests, 0, sizeof fresh->requests); /* the seed's run begins */
    }
    for (const struct json_value *v = json_first(rules); v != NULL; v = json_next(v))
        if (read_rule(doc, v, &fresh->rules[fresh->rule_count++], err) != 0)
            return -1;
    return 0;
}

int faults_set(struct faults *f, struct str json, bool *heal_out, struct err *err)
{
    struct json *doc = json_parse(json, err);
    struct faults *fresh = doc != NULL ? malloc(sizeof *fresh) : NULL;
    int rc = -1;
    if (doc != NULL && fresh == NULL)
        err_set(err, ERR_NO_MEMORY, "rules");
    if (fresh != NULL) {
        *fresh = *f;
        rc = read_rules(doc, fresh, err);
    }
    if (rc == 0)
        *f = *fresh;
    if (rc == 0 && heal_out != NULL)
        *heal_out = f->rule_count == 0;
    free(fresh);
    json_free(&doc);
    return rc;
}

/* ---- chance ---- */

/* What the rule leaves open, drawn: an answer is cut within its first 256 bytes, a bad frame comes first or
 * second, a sandbox vanishes within a second. */
static struct fault settle(const struct faults *f, const struct fault *fault, enum call_kind kind,
                           uint64_t turn)
{
    struct fault drawn = *fault;
    unsigned stream = DICE_PLACE + kind;
    if (drawn.bytes < 0)
        drawn.bytes = dice_range(&f->dice, stream, turn, 0, drawn.kind == FAULT_CUT ? 256 : 1);
    if (drawn.for_ms < 0)
        drawn.for_ms = dice_range(&f->dice, stream, turn, 5, 1000);
    return drawn;
}

struct fault faults_take(struct faults *f, enum call_kind kind, uint64_t *turn_out)
{
    uint64_t turn = f->requests[kind]++;
    *turn_out = turn;
    for (size_t i = 0; i < f->rule_count; i++) {
        struct rule *r = &f->rules[i];
        if ((r->calls & BIT(kind)) == 0 || r->times == 0 ||
            dice_unit(&f->dice, kind, turn * RULES_MAX + i) >= r->p)
            continue;
        r->times -= r->times > 0;
        r->hits++;
        f->injected[kind][r->fault.kind]++;
        return settle(f, &r->fault, kind, turn);
    }
    return (struct fault){.kind = FAULT_NONE};
}

/* ---- shown ---- */

static void write_rule(struct json_writer *w, const struct rule *r)
{
    jw_object(w);
    jw_key(w, "on");
    jw_array(w);
    for (int i = 0; i < CALL_KINDS; i++)
        if ((r->calls & BIT(i)) != 0)
            jw_cstr(w, call_names[i]);
    jw_array_end(w);
    jw_kcstr(w, "fault", table[r->fault.kind].name);
    jw_key(w, "p");
    jw_double(w, r->p);
    if (r->times >= 0)
        jw_kint(w, "times_left", r->times);
    jw_kint(w, "hits", (int64_t)r->hits);
    jw_object_end(w);
}

static void write_injected(struct json_writer *w, const struct faults *f, int call)
{
    jw_key(w, call_names[call]);
    jw_object(w);
    for (int i = FAULT_NONE + 1; i < FAULT_KINDS; i++)
        if (f->injected[call][i] > 0)
            jw_kint(w, table[i].name, (int64_t)f->injected[call][i]);
    jw_object_end(w);
}

void faults_write(const struct faults *f, size_t held, struct buf *out)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_kint(&w, "seed", (int64_t)f->dice.seed);
    jw_key(&w, "rules");
    jw_array(&w);
    for (size_t i = 0; i < f->rule_count; i++)
        write_rule(&w, &f->rules[i]);
    jw_array_end(&w);
    jw_kint(&w, "held", (int64_t)held);
    jw_key(&w, "requests");
    jw_object(&w);
    for (int i = CALL_OTHER + 1; i < CALL_KINDS; i++)
        jw_kint(&w, call_names[i], (int64_t)f->requests[i]);
    jw_object_end(&w);
    jw_key(&w, "injected");
    jw_object(&w);
    for (int i = CALL_OTHER + 1; i < CALL_KINDS; i++)
        write_injected(&w, f, i);
    jw_object_end(&w);
    jw_object_end(&w);
}
