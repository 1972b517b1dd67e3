/* Which request goes wrong, and how. Rules come as JSON, from the environment or over POST /sim/faults:
 *
 *   {"seed": 7, "rules": [{"on": ["create", "kill"], "fault": "500", "p": 0.3}, …]}
 *
 *   on      a call or several ("any": all of them); fault: its name; both tables are in faults.c
 *   p       how likely, 0 to 1 (default 1)
 *   times   how often in all (default: no end)
 *   for_ms  how long it holds at most: hang, mute, stall; when the sandbox goes: vanish
 *   bytes   where it cuts the answer (cut, bad_*), how much is written (flood)
 *   rate    bytes a second (trickle)
 *
 * The first rule whose chance comes wins. Chance depends on (seed, call, the how many-th of its kind). */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "base/buf.h"
#include "base/err.h"
#include "json/writer.h"
#include "latency.h"

/* A new kind of call: a row in faults.c, a line in api.c:kind_of. */
enum call_kind {
    CALL_OTHER, /* never fails */
    CALL_CREATE,
    CALL_LIST,
    CALL_INFO,
    CALL_TIMEOUT, /* its time to live: timeout, refreshes, the control plane's connect */
    CALL_KILL,
    CALL_SNAPSHOT,
    CALL_START,
    CALL_CONNECT,
    CALL_UPLOAD,
    CALL_DOWNLOAD,
    CALL_HEALTH,
    CALL_SIGNAL, /* SendSignal, SendInput, CloseStdin, List */
    CALL_KINDS,
};

/* Streams of chance besides the calls' own. */
enum { DICE_LATENCY = CALL_KINDS, DICE_PLACE = 2 * CALL_KINDS, DICE_RUN = 3 * CALL_KINDS };

/* A new fault: a row in faults.c, and its effect where its group is served. */
enum fault_kind {
    FAULT_NONE,
    /* before anything is done (answer.c:answer_before) */
    FAULT_429_RATE,
    FAULT_429_LIMIT,
    FAULT_403,
    FAULT_404,
    FAULT_500,
    FAULT_502,
    FAULT_503,
    FAULT_504,
    FAULT_RESET,
    FAULT_HANG,
    /* done, and told badly (answer.c) */
    FAULT_LOST,
    FAULT_MUTE,
    FAULT_CUT,
    FAULT_TRICKLE,
    FAULT_BAD_JSON,
    /* streams only (answer.c) */
    FAULT_STALL,
    FAULT_BAD_LENGTH,
    FAULT_BAD_FLAGS,
    /* streams only (program.c) */
    FAULT_NO_END,
    FAULT_NO_END_STREAM,
    /* starts only (program.c) */
    FAULT_VANISH,
    FAULT_FLOOD,
    FAULT_KINDS,
};

/* One request's fate: a plain value. */
struct fault {
    enum fault_kind kind;
    int64_t for_ms, bytes, rate;
};

struct faults;
struct faults *faults_new(uint64_t seed);
void faults_free(struct faults **f);

/* Replaces the rules; *heal_out (may be NULL): there are none now. -1 and *err, which names what is wrong:
 * then nothing has changed. */
int faults_set(struct faults *f, struct str json, bool *heal_out, struct err *err);

/* The next call of this kind: its number (from 0), and what happens to it. */
struct fault faults_take(struct faults *f, enum call_kind kind, uint64_t *turn_out);
const struct dice *faults_dice(const struct faults *f);

/* Before the request is served: its status; 0: the fault is of another group. */
int fault_status(enum fault_kind kind);

/* {"seed", "rules", "requests": {call: n}, "injected": {call: {fault: n}}}, and `held` requests. */
void faults_write(const struct faults *f, size_t held, struct buf *out);

#endif
