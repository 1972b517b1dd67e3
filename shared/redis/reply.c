/* Replies: a `struct redis_reply` is hiredis's redisReply; the cast stays here and in redis.c. */
#include <hiredis/hiredis.h>

#include "redis/redis.h"

static const redisReply *raw(const struct redis_reply *r)
{
    return (const redisReply *)(const void *)r;
}

enum redis_type redis_type_of(const struct redis_reply *r)
{
    switch (raw(r)->type) {
    case REDIS_REPLY_INTEGER:
        return REDIS_INT;
    case REDIS_REPLY_STRING:
        return REDIS_STR;
    case REDIS_REPLY_STATUS:
        return REDIS_STATUS;
    case REDIS_REPLY_ARRAY:
        return REDIS_ARRAY;
    case REDIS_REPLY_ERROR:
        return REDIS_ERROR;
    default:
        return REDIS_NIL;
    }
}

int64_t redis_int(const struct redis_reply *r)
{
    int64_t v = 0;
    if (raw(r)->type == REDIS_REPLY_INTEGER)
        return raw(r)->integer;
    str_to_i64(redis_str(r), &v);
    return v;
}

struct str redis_str(const struct redis_reply *r)
{
    int type = raw(r)->type;
    if (type != REDIS_REPLY_STRING && type != REDIS_REPLY_STATUS && type != REDIS_REPLY_ERROR)
        return STR("");
    return str_make(raw(r)->str, (size_t)raw(r)->len);
}

size_t redis_count(const struct redis_reply *r)
{
    return raw(r)->type == REDIS_REPLY_ARRAY ? raw(r)->elements : 0;
}

const struct redis_reply *redis_at(const struct redis_reply *r, size_t i)
{
    if (i >= redis_count(r))
        return NULL;
    return (const struct redis_reply *)(const void *)raw(r)->element[i];
}
