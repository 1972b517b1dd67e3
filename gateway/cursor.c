/* Cursors: base64url(version, position, HMAC-SHA256). */
#include "cursor.h"

#include "crypto/crypto.h"

enum { VERSION = 1, RAW_MAX = 1 + CURSOR_POSITION_MAX + SHA256_BYTES, MAC_INPUT_MAX = 1024 };

/* What is signed has one reading: fixed widths, and a hash in place of the scope. */
static bool sign(const struct cursor_key *key, int32_t tenant, struct str scope, struct str position,
                 uint8_t mac[SHA256_BYTES])
{
    uint8_t scope_hash[SHA256_BYTES];
    struct buf in;
    crypto_sha256(scope, scope_hash);
    buf_init(&in, MAC_INPUT_MAX);
    buf_cstr_append(&in, "sandpiper cursor");
    buf_byte(&in, VERSION);
    buf_append(&in, &tenant, sizeof tenant);
    buf_append(&in, scope_hash, sizeof scope_hash);
    buf_str(&in, position);
    bool whole = !in.failed;
    if (whole)
        crypto_hmac_sha256(str_make((const char *)key->b, sizeof key->b), buf_view(&in), mac);
    buf_deinit(&in);
    return whole;
}

void cursor_write(const struct cursor_key *key, int32_t tenant, struct str scope, struct str position,
                  struct buf *out)
{
    uint8_t mac[SHA256_BYTES];
    struct buf raw;
    buf_init(&raw, RAW_MAX);
    buf_byte(&raw, VERSION);
    buf_str(&raw, position);
    if (position.n > 0 && sign(key, tenant, scope, position, mac) && buf_append(&raw, mac, sizeof mac))
        crypto_base64url(buf_view(&raw), out);
    else
        out->failed = true;
    buf_deinit(&raw);
}

static bool check(const struct cursor_key *key, int32_t tenant, struct str scope, struct str raw,
                  struct buf *position_out)
{
    uint8_t mac[SHA256_BYTES];
    if (raw.n <= 1 + sizeof mac || raw.p[0] != VERSION)
        return false;
    struct str position = str_make(raw.p + 1, raw.n - 1 - sizeof mac);
    struct str given = str_make(position.p + position.n, sizeof mac);
    return sign(key, tenant, scope, position, mac) &&
           crypto_equal(str_make((const char *)mac, sizeof mac), given) && buf_str(position_out, position);
}

/* One cursor has one text: no padding, and none of the characters of the standard alphabet. */
static bool is_plain(struct str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '=' || text.p[i] == '+' || text.p[i] == '/')
            return false;
    return text.n <= CURSOR_TEXT_MAX;
}

int cursor_read(const struct cursor_key *key, int32_t tenant, struct str scope, struct str text,
                struct buf *position_out, struct err *err)
{
    struct buf raw;
    buf_init(&raw, RAW_MAX);
    bool ok = is_plain(text) && crypto_unbase64(text, &raw) &&
              check(key, tenant, scope, buf_view(&raw), position_out);
    buf_deinit(&raw);
    if (ok)
        return 0;
    return err_set(
        err, ERR_BAD_CURSOR,
        "the cursor is not of this list: use next_cursor as it was answered, with the same filters; or "
        "begin again without a cursor");
}
