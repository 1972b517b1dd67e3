/* Transfers: one block of memory each, one easy handle from a pool, told to their owners outside libcurl.
 *
 * What must stay true: an owner is called only from client_tell, and `telling` is nulled when it cancels the
 * very transfer it is being told about. A transfer is freed by http_cancel, by http_client_close, or after
 * `done`.
 *
 * libcurl repeats a request by itself on a fresh connection when a kept connection turns out dead before a
 * byte of the answer came, POST included. That can do a thing twice; a call with `once` is stopped before a
 * second sending (libcurl asks a callback before each). */
#include "http/client.h"

#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/transfer.h"

enum {
    BODY_MAX = 1024 * 1024,
    PIECE_MAX = 8 * 1024 * 1024, /* of one turn; libcurl reads far less at a time */
    CONNECT_MS = 5000,
    MAX_TRANSFERS = 20000,
    WATCHDOG_MS = 500,
    STREAM_BUFFER = 4096, /* libcurl's own receive buffer, while thousands of streams idle */
};

/* ---- lists ---- */

static void list_in(struct http_transfer *t)
{
    struct http_client *c = t->client;
    t->next = c->transfers;
    t->pprev = &c->transfers;
    if (t->next != NULL)
        t->next->pprev = &t->next;
    c->transfers = t;
    c->active++;
}

static void list_out(struct http_transfer *t)
{
    *t->pprev = t->next;
    if (t->next != NULL)
        t->next->pprev = t->pprev;
    t->client->active--;
}

static void ready_out(struct http_transfer *t)
{
    if (t->ready_pprev == NULL)
        return;
    *t->ready_pprev = t->ready_next;
    if (t->ready_next != NULL)
        t->ready_next->ready_pprev = t->ready_pprev;
    else
        t->client->ready_end = t->ready_pprev;
    t->ready_next = NULL;
    t->ready_pprev = NULL;
}

void transfer_ready(struct http_transfer *t)
{
    struct http_client *c = t->client;
    if (t->ready_pprev != NULL)
        return;
    t->ready_next = NULL;
    t->ready_pprev = c->ready_end;
    *c->ready_end = t;
    c->ready_end = &t->ready_next;
}

/* ---- easy handles ---- */

static CURL *easy_get(struct http_client *c)
{
    return c->pooled > 0 ? c->pool[--c->pooled] : curl_easy_init();
}

static void easy_put(struct http_client *c, CURL *easy)
{
    if (easy == NULL)
        return;
    if (c->pooled == (int)(sizeof c->pool / sizeof c->pool[0])) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    c->pool[c->pooled++] = easy;
}

static void transfer_free(struct http_transfer *t)
{
    struct http_client *c = t->client;
    shard_remove(t);
    ready_out(t);
    list_out(t);
    easy_put(c, t->easy);
    buf_deinit(&t->body);
    free(t->next_token);
    if (c->telling == t)
        c->telling = NULL;
    if (t->copied_bytes > 0)
        explicit_bzero((char *)t->call.body.p, t->copied_bytes);
    free(t);
}

/* ---- libcurl's callbacks: they take notes ---- */

static size_t write_cb(char *data, size_t one, size_t n, void *arg)
{
    (void)one;
    struct http_transfer *t = arg;
    t->last_us = mono_now().us;
    if (t->status == 0) {
        long status = 0;
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        t->status = (int)status;
        t->is_stream = t->call.on_data != NULL && status / 100 == 2;
        t->body.max = t->is_stream ? PIECE_MAX : t->call.max_body;
    }
    if (t->call.cut && t->body.len + n > t->body.max) {
        buf_append(&t->body, data, t->body.max - t->body.len);
        t->was_cut = true;
        return 0; /* ends the transfer, and with it the connection */
    }
    if (!buf_append(&t->body, data, n)) {
        t->too_large = true;
        return 0;
    }
    if (t->is_stream && t->state == TRANSFER_RUNNING) {
        t->state = TRANSFER_READY;
        transfer_ready(t);
    }
    return n;
}

static bool header_is(struct str line, const char *name, struct str *value_out)
{
    size_t n = strlen(name);
    if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n) != 0)
        return false;
    struct str v = str_make(line.p + n + 1, line.n - n - 1);
    while (v.n > 0 && (v.p[v.n - 1] == '\n' || v.p[v.n - 1] == '\r'))
        v.n--;
    *value_out = str_trim(v);
    return true;
}

static size_t header_cb(char *data, size_t one, size_t n, void *arg)
{
    (void)one;
    struct http_transfer *t = arg;
    struct str line = str_make(data, n), value;
    t->last_us = mono_now().us;
    if (n == 0 || (data[0] != 'R' && data[0] != 'r' && data[0] != 'X' && data[0] != 'x'))
        return n;
    int64_t sec;
    if (header_is(line, "Retry-After", &value) && str_to_i64(value, &sec) && sec >= 0) {
        t->retry_after_sec = sec;
    } else if (header_is(line, "X-Next-Token", &value) && value.n > 0) {
        free(t->next_token);
        t->next_token = str_dup(value);
    }
    return n;
}

/* Asked before each sending of a `once` call. */
static int before_request(void *arg, char *to, char *from, int to_port, int from_port)
{
    (void)to, (void)from, (void)to_port, (void)from_port;
    struct http_transfer *t = arg;
    if (t->begun)
        return CURL_PREREQFUNC_ABORT;
    t->begun = true;
    return CURL_PREREQFUNC_OK;
}

/* The look at an address that counts: libcurl asks for each socket that it is about to connect. */
static curl_socket_t open_guarded(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    (void)purpose;
    struct http_transfer *t = arg;
    if (!guard_address(t->call.guard, &a->addr)) {
        t->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- setting up ---- */

static bool has_content_type(const char *const *headers)
{
    for (; headers != NULL && *headers != NULL; headers++)
        if (strncasecmp(*headers, "Content-Type:", 13) == 0)
            return true;
    return false;
}

struct sizes {
    size_t headers, text, body;
};

static struct sizes measure(const struct http_call *call)
{
    struct sizes z = {.headers = 2, .text = strlen(call->method) + 1};
    for (const char *const *h = call->headers; h != NULL && *h != NULL; h++) {
        z.headers++;
        z.text += strlen(*h) + 1;
    }
    z.body = call->body_borrowed ? 0 : call->body.n;
    return z;
}

static struct curl_slist *link_header(struct http_transfer *t, struct curl_slist *node, const char *text)
{
    node->data = (char *)text; /* libcurl only reads */
    node->next = t->headers;
    t->headers = node;
    return node + 1;
}

/* One block: the transfer, its header list, the texts, the body. */
static struct http_transfer *transfer_new(struct http_client *c, const struct http_call *call)
{
    struct sizes z = measure(call);
    struct http_transfer *t = malloc(sizeof *t + z.headers * sizeof(struct curl_slist) + z.text + z.body);
    if (t == NULL)
        return NULL;
    *t = (struct http_transfer){.client = c, .call = *call, .retry_after_sec = -1, .culprit = culprit_now()};
    struct curl_slist *node = (struct curl_slist *)(void *)(t + 1);
    char *text = (char *)(node + z.headers);
    node = link_header(t, node, "Expect:");
    if (!has_content_type(call->headers))
        node = link_header(t, node, "Content-Type:");
    for (const char *const *h = call->headers; h != NULL && *h != NULL; h++) {
        size_t n = strlen(*h) + 1;
        memcpy(text, *h, n);
        node = link_header(t, node, text);
        text += n;
    }
    size_t n = strlen(call->method) + 1;
    memcpy(text, call->method, n);
    t->call.method = text;
    t->call.headers = NULL;
    t->call.url = NULL;
    if (z.body > 0) {
        memcpy(text + n, call->body.p, z.body);
        t->call.body.p = text + n;
        t->copied_bytes = call->body_secret ? z.body : 0;
    }
    if (t->call.max_body == 0)
        t->call.max_body = BODY_MAX;
    buf_init(&t->body, t->call.max_body);
    t->last_us = mono_now().us;
    list_in(t);
    return t;
}

static void set_method(struct http_transfer *t)
{
    const char *method = t->call.method;
    bool post = strcmp(method, "POST") == 0;
    if (t->call.body.n > 0 || post) {
        curl_easy_setopt(t->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->call.body.n > 0 ? t->call.body.p : "");
        curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->call.body.n);
    }
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(t->easy, CURLOPT_NOBODY, 1L);
    else if (!post && (strcmp(method, "GET") != 0 || t->call.body.n > 0))
        curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, method);
}

static int progress_cb(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    const struct http_transfer *t = arg;
    (void)down_total, (void)down, (void)up_total;
    t->call.on_sent(t->call.arg, up);
    return 0;
}

static bool set_options(struct http_transfer *t, const char *url)
{
    CURL *e = t->easy;
    const struct http_call *call = &t->call;
    if (curl_easy_setopt(e, CURLOPT_URL, url) != CURLE_OK)
        return false;
    curl_easy_setopt(e, CURLOPT_PRIVATE, t);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_SHARE, t->client->share);
    curl_easy_setopt(e, CURLOPT_USERAGENT, t->client->user_agent);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, write_cb);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, header_cb);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(call->connect_timeout_ms > 0 ? call->connect_timeout_ms : CONNECT_MS));
    if (call->timeout_ms > 0)
        curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
    if (call->on_data != NULL)
        curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)STREAM_BUFFER);
    if (strncasecmp(url, "https:", 6) == 0)
        curl_easy_setopt(e, CURLOPT_PIPEWAIT, 1L); /* rather share an HTTP/2 connection than open another */
    if (call->once) {
        curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, before_request);
        curl_easy_setopt(e, CURLOPT_PREREQDATA, t);
    }
    if (call->guard != NULL) {
        curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_guarded);
        curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, t);
        curl_easy_setopt(e, CURLOPT_PROXY, "");
        curl_easy_setopt(e, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    }
    if (call->on_sent != NULL) {
        curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, progress_cb);
        curl_easy_setopt(e, CURLOPT_XFERINFODATA, t);
        curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    }
    if (call->http1)
        curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    set_method(t);
    return true;
}

static void watch_idle(struct http_client *c, int64_t idle_ms);

struct http_transfer *http_call(struct http_client *c, const struct http_call *call, struct err *err)
{
    if (c->active >= c->max_transfers) {
        err_set(err, ERR_OVERLOADED, "%d transfers are running", c->active);
        return NULL;
    }
    struct http_transfer *t = transfer_new(c, call);
    struct shard *s = t != NULL ? shard_pick(c) : NULL;
    if (s != NULL)
        t->easy = easy_get(c);
    if (s == NULL || t->easy == NULL || !set_options(t, call->url) || !shard_add(s, t)) {
        err_set(err, ERR_NO_MEMORY, "http call");
        if (t != NULL)
            transfer_free(t);
        return NULL;
    }
    if (call->idle_timeout_ms > 0)
        watch_idle(c, call->idle_timeout_ms);
    return t;
}

void http_cancel(struct http_transfer **transfer)
{
    if (transfer == NULL || *transfer == NULL)
        return;
    struct http_transfer *t = *transfer;
    *transfer = NULL;
    if (t->state != TRANSFER_TOLD) /* inside its own `done`: client_tell frees it */
        transfer_free(t);
}

/* ---- the end of a transfer ---- */

/* Bytes of requests sent decide whether anything can have happened: they count over libcurl's own repeats. */
static enum err_code classify(struct http_transfer *t, CURLcode code)
{
    long sent = 0;
    curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &sent);
    if (t->too_large)
        return ERR_LIMIT;
    if (t->refused && sent == 0)
        return ERR_FORBIDDEN;
    if (code == CURLE_OUT_OF_MEMORY)
        return ERR_NO_MEMORY;
    if (sent == 0)
        return ERR_IO;
    return code == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_PROTOCOL;
}

void transfer_ended(struct http_transfer *t, CURLcode code)
{
    if (code == CURLE_OK || t->was_cut) {
        long status = 0;
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        t->status = (int)status;
    } else {
        enum err_code what = classify(t, code);
        err_set(&t->err, what, "%s",
                what == ERR_FORBIDDEN ? "the name leads to an address that is closed to webhooks"
                                      : curl_easy_strerror(code));
    }
    shard_remove(t);
    t->state = TRANSFER_ENDED;
    transfer_ready(t);
}

/* ---- telling ---- */

/* Gives the gathered bytes of a stream to its owner. False when the transfer is gone. */
static bool tell_data(struct http_transfer *t)
{
    struct http_client *c = t->client;
    if (!t->is_stream || t->body.len == 0)
        return true;
    struct buf piece = t->body; /* the owner may cancel, which frees the transfer */
    buf_init(&t->body, piece.max);
    bool go_on = t->call.on_data(t->call.arg, buf_view(&piece));
    bool alive = c->telling == t;
    buf_deinit(&piece);
    if (alive && !go_on) {
        shard_remove(t);
        err_set(&t->err, ERR_CANCELED, "withdrawn by its owner");
        t->state = TRANSFER_ENDED;
    }
    return alive;
}

static void tell_done(struct http_transfer *t)
{
    struct http_response response = {
        .status = t->status,
        .body = t->is_stream ? STR("") : buf_view(&t->body),
        .retry_after_sec = t->retry_after_sec,
        .next_token = str_of(t->next_token),
    };
    t->state = TRANSFER_TOLD;
    t->call.done(t->call.arg, &response, t->err.code != ERR_NONE ? &t->err : NULL);
    transfer_free(t);
}

/* An owner that closes the whole client from its callback would free the list below: it must not. */
void client_tell(struct http_client *c)
{
    if (c->telling != NULL)
        return; /* called from inside an owner's callback; the outer round goes on */
    while (c->ready != NULL) {
        struct http_transfer *t = c->ready;
        ready_out(t);
        c->telling = t;
        CULPRIT(t->culprit);
        if (t->state == TRANSFER_READY)
            t->state = TRANSFER_RUNNING;
        if (tell_data(t) && t->state == TRANSFER_ENDED)
            tell_done(t);
        c->telling = NULL;
    }
}

/* ---- the watchdog of silent streams ---- */

static void on_watchdog(void *arg)
{
    struct http_client *c = arg;
    int64_t now = mono_now().us;
    bool any = false;
    for (struct http_transfer *t = c->transfers; t != NULL; t = t->next) {
        int64_t idle_ms = t->call.idle_timeout_ms;
        any = any || idle_ms > 0;
        if (idle_ms == 0 || t->state == TRANSFER_ENDED || now - t->last_us < idle_ms * 1000)
            continue;
        long sent = 0;
        curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &sent);
        err_set(&t->err, sent > 0 ? ERR_TIMEOUT : ERR_IO, "silent for %lld ms", (long long)idle_ms);
        shard_remove(t);
        t->state = TRANSFER_ENDED;
        transfer_ready(t);
    }
    if (!any) {
        loop_timer_stop(c->watchdog);
        c->watchdog_ms = 0;
    }
    client_tell(c);
}

static void watch_idle(struct http_client *c, int64_t idle_ms)
{
    int64_t ms = idle_ms / 4 < WATCHDOG_MS ? idle_ms / 4 + 1 : WATCHDOG_MS;
    if (c->watchdog_ms != 0 && c->watchdog_ms <= ms)
        return;
    c->watchdog_ms = ms;
    loop_timer_every(c->watchdog, ms);
}

/* ---- the client ---- */

struct http_client *http_client_open(struct loop *loop, const struct http_client_options *options,
                                     struct err *err)
{
    static bool curl_ready; /* libcurl's own process-wide state: set up once, before threads */
    if (!curl_ready && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        err_set(err, ERR_INTERNAL, "libcurl cannot be set up");
        return NULL;
    }
    curl_ready = true;
    struct http_client *c = calloc(1, sizeof *c);
    if (c != NULL) {
        c->loop = loop;
        c->ready_end = &c->ready;
        c->max_transfers = options->max_transfers > 0 ? options->max_transfers : MAX_TRANSFERS;
        c->user_agent =
            str_dup(str_of(options->user_agent != NULL ? options->user_agent : "sandpiper/" SP_VERSION));
        c->share = curl_share_init();
        c->watchdog = loop_timer_new(loop, on_watchdog, c);
    }
    if (c == NULL || c->user_agent == NULL || c->share == NULL || c->watchdog == NULL) {
        err_set(err, ERR_NO_MEMORY, "http client");
        http_client_close(&c);
        return NULL;
    }
    /* one look-up and one TLS session serve all shards; one thread, so no locks */
    curl_share_setopt(c->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(c->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    return c;
}

void http_client_close(struct http_client **client)
{
    if (client == NULL || *client == NULL)
        return;
    struct http_client *c = *client;
    while (c->transfers != NULL)
        transfer_free(c->transfers);
    while (c->pooled > 0)
        curl_easy_cleanup(c->pool[--c->pooled]);
    shards_free(c);
    if (c->share != NULL)
        curl_share_cleanup(c->share);
    loop_timer_free(&c->watchdog);
    free(c->user_agent);
    free(c);
    *client = NULL;
}

int http_client_active(const struct http_client *c)
{
    return c->active;
}
