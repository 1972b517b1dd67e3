/* Unpacking gzip. A file may hold several members, one after the other. */
#include "gunzip.h"

#include <stdlib.h>
#include <zlib.h>

struct gunzip {
    z_stream z;
    bool member_ended;
    char out[GUNZIP_PIECE_BYTES];
};

struct gunzip *gunzip_new(void)
{
    struct gunzip *g = calloc(1, sizeof *g);
    if (g != NULL && inflateInit2(&g->z, 16 + MAX_WBITS) != Z_OK) { /* 16: gzip and nothing else */
        free(g);
        g = NULL;
    }
    return g;
}

void gunzip_free(struct gunzip **g)
{
    if (g == NULL || *g == NULL)
        return;
    inflateEnd(&(*g)->z);
    free(*g);
    *g = NULL;
}

bool gunzip_whole(const struct gunzip *g)
{
    return g->member_ended;
}

int gunzip_step(struct gunzip *g, struct str *in, struct str *out, struct err *err)
{
    *out = STR("");
    g->z.next_out = (unsigned char *)g->out;
    g->z.avail_out = sizeof g->out;
    g->z.next_in = (unsigned char *)(uintptr_t)in->p;
    g->z.avail_in = (unsigned)in->n;
    if (g->member_ended && in->n > 0) {
        inflateReset(&g->z);
        g->member_ended = false;
    }
    int rc = g->member_ended ? Z_BUF_ERROR : inflate(&g->z, Z_NO_FLUSH);
    if (rc == Z_STREAM_END)
        g->member_ended = true;
    else if (rc != Z_OK && rc != Z_BUF_ERROR) /* the latter: nothing to do */
        return err_set(err, ERR_BAD_REQUEST, "the body is not gzip, or it is damaged: %s",
                       g->z.msg != NULL ? g->z.msg : "unexpected bytes");
    *in = str_make((const char *)g->z.next_in, g->z.avail_in);
    *out = str_make(g->out, sizeof g->out - g->z.avail_out);
    return 0;
}
