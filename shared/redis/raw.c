/* Commands without the loop. */
#include <hiredis/hiredis.h>

#include "redis/link.h"

bool redis_format(const struct str *argv, int argc, struct buf *out)
{
    enum { MOST = 8 };
    const char *ptr[MOST];
    size_t len[MOST];
    char *bytes;
    INVARIANT(argc <= MOST);
    for (int i = 0; i < argc; i++) {
        ptr[i] = argv[i].p;
        len[i] = argv[i].n;
    }
    int n = redisFormatCommandArgv(&bytes, argc, ptr, len);
    if (n < 0)
        return false;
    bool fits = buf_append(out, bytes, (size_t)n);
    redisFreeCommand(bytes);
    return fits;
}
