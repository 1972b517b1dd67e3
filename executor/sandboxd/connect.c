/* Frames and errors of Connect RPC (connect.h). Pure. */
#include "connect.h"

#include <string.h>

#include "json/writer.h"

enum { MAX_TIMEOUT_DIGITS = 10 };

static void put_length(char *at, size_t n)
{
    for (int i = 0; i < 4; i++)
        at[i] = (char)(uint8_t)(n >> (24 - 8 * i));
}

size_t connect_frame_begin(struct buf *out)
{
    size_t head = out->len;
    buf_append(out, "\0\0\0\0\0", CONNECT_HEAD_BYTES);
    return head;
}

void connect_frame_end(struct buf *out, size_t head, uint8_t flags)
{
    if (out->failed)
        return;
    out->data[head] = (char)flags;
    put_length(out->data + head + 1, out->len - head - CONNECT_HEAD_BYTES);
}

void connect_frame(struct buf *out, uint8_t flags, struct str payload)
{
    size_t head = connect_frame_begin(out);
    buf_str(out, payload);
    connect_frame_end(out, head, flags);
}

void connect_end_stream(struct buf *out, const char *code, const char *text)
{
    size_t head = connect_frame_begin(out);
    struct json_writer w = json_writer(out);
    jw_object(&w);
    if (code != NULL) {
        jw_key(&w, "error");
        jw_object(&w);
        jw_kcstr(&w, "code", code);
        jw_kcstr(&w, "message", text);
        jw_object_end(&w);
    }
    jw_object_end(&w);
    connect_frame_end(out, head, CONNECT_END_STREAM);
}

bool connect_single(struct str body, struct str *payload_out)
{
    if (body.n < CONNECT_HEAD_BYTES || body.p[0] != 0)
        return false;
    size_t n = 0;
    for (int i = 1; i < CONNECT_HEAD_BYTES; i++)
        n = n << 8 | (uint8_t)body.p[i];
    if (n != body.n - CONNECT_HEAD_BYTES)
        return false;
    *payload_out = str_make(body.p + CONNECT_HEAD_BYTES, n);
    return true;
}

struct code_row {
    const char *code;
    int status;
};

static const struct code_row codes[] = {
    {"canceled", 499},
    {"unknown", 500},
    {"invalid_argument", 400},
    {"deadline_exceeded", 504},
    {"not_found", 404},
    {"already_exists", 409},
    {"permission_denied", 403},
    {"resource_exhausted", 429},
    {"failed_precondition", 400},
    {"aborted", 409},
    {"out_of_range", 400},
    {"unimplemented", 501},
    {"internal", 500},
    {"unavailable", 503},
    {"data_loss", 500},
    {"unauthenticated", 401},
};

int connect_http_status(const char *code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i].code, code) == 0)
            return codes[i].status;
    return 500;
}

void connect_error_body(struct buf *out, const char *code, const char *text)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_kcstr(&w, "code", code);
    jw_kcstr(&w, "message", text);
    jw_object_end(&w);
}

bool connect_timeout(struct str header, int64_t *ms_out)
{
    uint64_t ms;
    if (header.n > MAX_TIMEOUT_DIGITS || !str_to_u64(header, &ms))
        return false;
    *ms_out = (int64_t)ms;
    return true;
}
