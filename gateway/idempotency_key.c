/* The Idempotency-Key header. The draft's form is a quoted string; bare keys count the same. */
#include "idempotency_key.h"

int idempotency_key_read(struct http_request *req, char **key_out, struct err *err)
{
    struct str key;
    *key_out = NULL;
    if (!http_header(req, "Idempotency-Key", &key))
        return 0;
    if (http_header_count(req, "Idempotency-Key") != 1)
        return err_set(err, ERR_BAD_HEADER, "Idempotency-Key was sent more than once");
    if (key.n >= 2 && key.p[0] == '"' && key.p[key.n - 1] == '"')
        key = str_make(key.p + 1, key.n - 2);
    if (key.n == 0 || key.n > 255)
        return err_set(err, ERR_BAD_HEADER, "Idempotency-Key must have 1 to 255 characters");
    for (size_t i = 0; i < key.n; i++)
        if (key.p[i] < 0x20 || key.p[i] > 0x7E || key.p[i] == '"')
            return err_set(err, ERR_BAD_HEADER,
                           "Idempotency-Key may hold printable ASCII without quotes only");
    *key_out = str_dup(key);
    return *key_out != NULL ? 0 : err_set(err, ERR_OVERLOADED, "no memory");
}
