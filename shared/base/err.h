/* Errors: one table for the whole system.
 *
 * A row is: symbol, stable code (what callers see and scripts match), HTTP status, retry class, public text.
 * To add an error, add a row; the documentation and the problem+json answers come from it.
 * Expected outcomes are return values; an `err` says that something failed and whether trying again can help.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

/* What trying the same thing again can do. */
enum err_retry {
    RETRY_NEVER, /* the same input gives the same error */
    RETRY_LATER, /* an environment failure: back off, then try again */
    RETRY_CHECK, /* the effect may have happened: look before trying again */
};

#define ERR_TABLE(X)                                                                                         \
    X(ERR_NONE, "ok", 200, RETRY_NEVER, "No error.")                                                         \
    /* the caller's request */                                                                               \
    X(ERR_BAD_REQUEST, "bad_request", 400, RETRY_NEVER, "The request is malformed.")                         \
    X(ERR_BAD_JSON, "invalid_json", 400, RETRY_NEVER, "The body is not valid JSON.")                         \
    X(ERR_BAD_FIELD, "invalid_field", 400, RETRY_NEVER, "A field has an unusable value.")                    \
    X(ERR_UNKNOWN_FIELD, "unknown_field", 400, RETRY_NEVER, "The body has a field that is not known.")       \
    X(ERR_MISSING_FIELD, "missing_field", 400, RETRY_NEVER, "A required field is missing.")                  \
    X(ERR_UNSUPPORTED, "unsupported_feature", 400, RETRY_NEVER,                                              \
      "This feature is not available in this version.")                                                      \
    X(ERR_BAD_HEADER, "invalid_header", 400, RETRY_NEVER, "A request header has an unusable value.")         \
    X(ERR_BAD_QUERY, "invalid_query", 400, RETRY_NEVER, "A query parameter has an unusable value.")          \
    X(ERR_BAD_CURSOR, "invalid_cursor", 400, RETRY_NEVER, "The cursor is not of this list.")                 \
    X(ERR_BAD_BATCH, "invalid_batch", 400, RETRY_NEVER, "Items of the batch cannot be accepted.")            \
    X(ERR_BAD_ARCHIVE, "invalid_archive", 400, RETRY_NEVER, "The archive cannot be used.")                   \
    X(ERR_BAD_MANIFEST, "invalid_manifest", 400, RETRY_NEVER, "agent.json cannot be used.")                  \
    X(ERR_BAD_FILE, "invalid_file", 400, RETRY_NEVER, "A file of the submission cannot be accepted.")        \
    X(ERR_UNAUTHORIZED, "unauthorized", 401, RETRY_NEVER, "A valid API key is required.")                    \
    X(ERR_FORBIDDEN, "forbidden", 403, RETRY_NEVER, "The API key does not allow this.")                      \
    X(ERR_TEMPLATE, "template_not_allowed", 403, RETRY_NEVER, "Agents may not be built on this template.")   \
    X(ERR_NOT_FOUND, "not_found", 404, RETRY_NEVER, "There is no such resource.")                            \
    X(ERR_AGENT_NOT_FOUND, "agent_not_found", 404, RETRY_NEVER, "There is no agent of that name.")           \
    X(ERR_VERSION_NOT_FOUND, "version_not_found", 404, RETRY_NEVER,                                          \
      "The agent has no version of that number; /v1/agents/{name}/versions lists them.")                     \
    X(ERR_METHOD, "method_not_allowed", 405, RETRY_NEVER, "The resource does not have this method.")         \
    X(ERR_REQUEST_TIMEOUT, "request_timeout", 408, RETRY_LATER, "The request did not arrive in time.")       \
    X(ERR_AGENT_NOT_READY, "agent_not_ready", 409, RETRY_LATER, "The agent has no version that is ready.")   \
    X(ERR_AGENT_SCHEDULED, "agent_scheduled", 409, RETRY_NEVER, "Schedules name the agent.")                 \
    X(ERR_VERSION_NOT_READY, "version_not_ready", 409, RETRY_NEVER,                                          \
      "The version cannot serve: its build goes on, or failed.")                                             \
    X(ERR_VERSION_RETIRED, "version_retired", 409, RETRY_NEVER,                                              \
      "The version is retired: old ones are not kept. Deploy its source again.")                             \
    X(ERR_NO_OLDER_VERSION, "no_older_version", 409, RETRY_NEVER,                                            \
      "The agent has no ready version before the one that serves; name the version that is to serve.")       \
    X(ERR_CONFLICT, "conflict", 409, RETRY_NEVER, "The resource is in another state.")                       \
    X(ERR_BODY_TOO_LARGE, "body_too_large", 413, RETRY_NEVER, "The body exceeds the limit.")                 \
    X(ERR_PROMPT_TOO_LARGE, "prompt_too_large", 413, RETRY_NEVER, "The prompt exceeds the limit.")           \
    X(ERR_METADATA_TOO_LARGE, "metadata_too_large", 413, RETRY_NEVER, "The metadata exceeds the limit.")     \
    X(ERR_SECRET_TOO_LARGE, "secret_too_large", 413, RETRY_NEVER,                                            \
      "The value or environment exceeds the limit.")                                                         \
    X(ERR_SECRETS_FULL, "too_many_secrets", 409, RETRY_NEVER, "The agent has as many secrets as it may.")    \
    X(ERR_FILES_TOO_LARGE, "files_too_large", 413, RETRY_NEVER, "The files exceed the limit.")               \
    X(ERR_URI_TOO_LONG, "uri_too_long", 414, RETRY_NEVER, "The request target exceeds the limit.")           \
    X(ERR_MEDIA_TYPE, "unsupported_media_type", 415, RETRY_NEVER, "The content type is not supported here.") \
    X(ERR_RANGE, "range_not_satisfiable", 416, RETRY_NEVER, "The range lies outside the content.")           \
    X(ERR_EXPECTATION, "expectation_failed", 417, RETRY_NEVER, "The expectation cannot be met.")             \
    X(ERR_IDEMPOTENCY_MISMATCH, "idempotency_key_reused", 422, RETRY_NEVER,                                  \
      "The Idempotency-Key was used with another request.")                                                  \
    X(ERR_TOO_MANY, "too_many_requests", 429, RETRY_LATER, "A limit is reached; try again later.")           \
    X(ERR_HEADERS_TOO_LARGE, "headers_too_large", 431, RETRY_NEVER, "The headers exceed the limit.")         \
    /* our side */                                                                                           \
    X(ERR_INTERNAL, "internal_error", 500, RETRY_CHECK, "Something failed on our side.")                     \
    X(ERR_UNAVAILABLE, "unavailable", 503, RETRY_LATER, "A dependency is not available; try again later.")   \
    X(ERR_OVERLOADED, "overloaded", 503, RETRY_LATER, "The server is at its limit; try again later.")        \
    X(ERR_NOT_CONFIGURED, "not_configured", 501, RETRY_NEVER, "This feature is not set up on this server.")  \
    X(ERR_OUTCOME_UNKNOWN, "outcome_unknown", 503, RETRY_CHECK,                                              \
      "Whether the request was committed is not known; look at the location given.")                         \
    X(ERR_CLOCK_SKEW, "clock_skew", 503, RETRY_LATER,                                                        \
      "This server's clock is off; it refuses to accept work.")                                              \
    /* libraries: never shown to callers as they are */                                                      \
    X(ERR_TIMEOUT, "timeout", 504, RETRY_CHECK, "A deadline passed.")                                        \
    X(ERR_CANCELED, "canceled", 500, RETRY_NEVER, "The operation was withdrawn.")                            \
    X(ERR_NO_MEMORY, "no_memory", 503, RETRY_LATER, "There is not enough memory.")                           \
    X(ERR_LIMIT, "limit_exceeded", 413, RETRY_NEVER, "A size limit is exceeded.")                            \
    X(ERR_CONFIG, "invalid_configuration", 500, RETRY_NEVER, "The configuration cannot be used.")            \
    X(ERR_IO, "io_error", 503, RETRY_LATER, "Input or output failed.")                                       \
    X(ERR_PROTOCOL, "protocol_error", 502, RETRY_CHECK, "A peer broke its protocol.")                        \
    X(ERR_PG_DATA, "data_error", 400, RETRY_NEVER, "The database refused a value.")                          \
    X(ERR_PG, "database_error", 503, RETRY_LATER, "The database refused or failed.")                         \
    X(ERR_REDIS, "redis_error", 503, RETRY_LATER, "Redis refused or failed.")                                \
    /* what an invocation's record carries in error.code */                                                  \
    X(ERR_JOB_OUT_OF_MEMORY, "out_of_memory", 200, RETRY_NEVER, "The sandbox ran out of memory.")            \
    X(ERR_JOB_RUN_TIMEOUT, "run_timeout", 200, RETRY_NEVER, "The program exceeded its time limit.")          \
    X(ERR_JOB_QUEUE_TIMEOUT, "queue_timeout", 200, RETRY_NEVER,                                              \
      "The job did not start within its queue limit.")                                                       \
    X(ERR_JOB_PROVIDER, "provider_failed", 200, RETRY_NEVER,                                                 \
      "The sandbox provider failed and the retries are spent.")                                              \
    X(ERR_JOB_SANDBOX_LOST, "sandbox_lost", 200, RETRY_NEVER,                                                \
      "The sandbox was lost and the re-runs are spent.")                                                     \
    X(ERR_JOB_MISSING_SECRET, "missing_secret", 200, RETRY_NEVER,                                            \
      "A secret that the agent requires is not set.")                                                        \
    X(ERR_JOB_SECRET, "secret_unreadable", 200, RETRY_NEVER,                                                 \
      "A secret or environment of the job cannot be opened.")                                                \
    X(ERR_JOB_POISON, "poison", 200, RETRY_NEVER, "The job brought executors down and is not tried again.")  \
    X(ERR_JOB_FILE_EXISTS, "file_exists", 200, RETRY_NEVER,                                                  \
      "A file of the submission has the path of one of the agent's own.")                                    \
    X(ERR_JOB_BUILD, "build_failed", 200, RETRY_NEVER, "The agent's build failed.")                          \
    X(ERR_JOB_CLONE, "clone_failed", 200, RETRY_NEVER, "The repository could not be cloned.")                \
    X(ERR_JOB_TEMPLATE, "template_unusable", 200, RETRY_NEVER,                                               \
      "The provider refused the template that the agent is built on.")                                       \
    X(ERR_JOB_ENTRY, "entry_missing", 200, RETRY_NEVER, "The agent's entry is not there.")                   \
    X(ERR_JOB_CHECK, "check_failed", 200, RETRY_NEVER, "The agent was built, and its check failed.")

enum err_code {
#define ERR_ENUM(sym, code, status, retry, text) sym,
    ERR_TABLE(ERR_ENUM)
#undef ERR_ENUM
        ERR_COUNT
};

/* An error as the caller owns it: a code and one line of text with its context, outermost first. */
struct err {
    enum err_code code;
    char msg[240];
};

#define ERR_INIT ((struct err){.code = ERR_NONE})

/* Sets *err (may be NULL). Always returns -1, so that `return err_set(...)` reads well. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message of a set error, keeping its code. Always returns -1. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The table's columns. Any value outside the table counts as ERR_INTERNAL. */
const char *err_code_name(enum err_code code);
int err_http_status(enum err_code code);
enum err_retry err_retry_class(enum err_code code);
const char *err_public_text(enum err_code code);

/* The code of a stable name, or ERR_NONE when there is none. */
enum err_code err_code_from_name(const char *name, size_t n);

/* Aborts with a message: for states that a bug alone can reach. Stays on in release builds. */
_Noreturn void err_bug(const char *file, int line, const char *what);
#define BUG(what) err_bug(__FILE__, __LINE__, what)
#define INVARIANT(cond) ((cond) ? (void)0 : err_bug(__FILE__, __LINE__, #cond))

#endif
