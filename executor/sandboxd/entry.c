/* Entries (entry.h). Pure. */
#include "entry.h"

#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

static const char *type_name(uint32_t mode)
{
    if (S_ISREG(mode))
        return "FILE_TYPE_FILE";
    if (S_ISDIR(mode))
        return "FILE_TYPE_DIRECTORY";
    if (S_ISLNK(mode))
        return "FILE_TYPE_SYMLINK";
    return "FILE_TYPE_UNSPECIFIED";
}

/* "-rw-r--r--", as Go's FileMode prints it. */
static void permissions(uint32_t mode, char out[11])
{
    static const char letters[] = "rwxrwxrwx";
    out[0] = S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'L' : '-';
    for (int i = 0; i < 9; i++)
        out[1 + i] = (mode >> (8 - i) & 1) != 0 ? letters[i] : '-';
    out[10] = '\0';
}

static void put_time(struct json_writer *w, const char *key, uint64_t ns)
{
    char text[64];
    time_t sec = (time_t)(ns / 1000000000U);
    struct tm tm;
    size_t n = gmtime_r(&sec, &tm) != NULL ? strftime(text, sizeof text - 16, "%Y-%m-%dT%H:%M:%S", &tm) : 0;
    snprintf(text + n, sizeof text - n, ".%09lluZ", (unsigned long long)(ns % 1000000000U));
    jw_kcstr(w, key, text);
}

void entry_put(struct json_writer *w, struct wire_reader *r)
{
    struct wire_entry e;
    char text[32];
    wire_get_entry(r, &e);
    jw_object(w);
    jw_kcstr(w, "name", e.name);
    jw_kcstr(w, "type", type_name(e.mode));
    jw_kcstr(w, "path", e.path);
    snprintf(text, sizeof text, "%llu", (unsigned long long)e.size);
    if (e.size > 0)
        jw_kcstr(w, "size", text);
    if ((e.mode & 07777) != 0)
        jw_kint(w, "mode", e.mode & 07777);
    permissions(e.mode, text);
    jw_kcstr(w, "permissions", text);
    jw_kcstr(w, "owner", e.owner);
    jw_kcstr(w, "group", e.group);
    put_time(w, "modifiedTime", e.mtime_ns);
    if (e.target[0] != '\0')
        jw_kcstr(w, "symlinkTarget", e.target);
    jw_object_end(w);
}

void entry_put_written(struct json_writer *w, const struct wire_entry *e)
{
    jw_object(w);
    jw_kcstr(w, "path", e->path);
    jw_kcstr(w, "name", e->name);
    jw_kcstr(w, "type", "file");
    jw_object_end(w);
}
