/* Logs: one JSON object a line on stdout.
 *
 *   log_info("job settled", LF_STR("invocation", text), LF_INT("run_ms", ms));
 *
 * Libraries log at debug at most; whoever stops an error logs it, once, with the ids. Never log a secret or a
 * caller's prompt. A line is cut at 4 KiB; a full pipe drops lines (counted) rather than blocking the loop.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>

#include "base/err.h"
#include "base/id.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key;
    enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_BOOL, LOG_FIELD_DOUBLE } kind;
    struct str s;
    int64_t i;
    double d;
};

#define LF_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .s = str_of(v)})
#define LF_VIEW(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .s = (v)})
#define LF_INT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_INT, .i = (int64_t)(v)})
#define LF_BOOL(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_BOOL, .i = (v)})
#define LF_DOUBLE(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_DOUBLE, .d = (v)})
#define LF_ERR(e) LF_STR("error", (e)->msg), LF_STR("code", err_code_name((e)->code))

/* Sets the daemon's name (kept by pointer) and the least level that is written. Before it, "sandpiper" and
 * INFO. */
void log_setup(const char *daemon, enum log_level least);
bool log_level_parse(struct str s, enum log_level *out);
int log_level_check(const char *name, struct err *err);

void log_write(enum log_level level, const char *msg, const struct log_field *fields, size_t n);
bool log_enabled(enum log_level level);

#define LOG_AT_(level, msg, ...)                                                     \
    do {                                                                             \
        if (log_enabled(level)) {                                                    \
            const struct log_field log_f_[] = {{0}, __VA_ARGS__};                    \
            log_write(level, msg, log_f_ + 1, sizeof log_f_ / sizeof log_f_[0] - 1); \
        }                                                                            \
    } while (0)
#define log_debug(msg, ...) LOG_AT_(LOG_DEBUG, msg, __VA_ARGS__)
#define log_info(msg, ...) LOG_AT_(LOG_INFO, msg, __VA_ARGS__)
#define log_warn(msg, ...) LOG_AT_(LOG_WARN, msg, __VA_ARGS__)
#define log_error(msg, ...) LOG_AT_(LOG_ERROR, msg, __VA_ARGS__)

#endif
