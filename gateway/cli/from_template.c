/* deploy --template. */
#include "from_template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "json/json.h"
#include "json/writer.h"

enum { FILE_MAX = 64 << 10 };

int from_template_check(const struct from_template *t)
{
    struct stat st;
    bool said = t->entry != NULL || t->install != NULL || t->check != NULL;
    if (t->template == NULL)
        return said ? cli_error("--entry, --install and --check go with --template: a directory or a "
                                "repository says "
                                "these in its agent.json")
                    : 0;
    if (t->file == NULL)
        return t->entry != NULL
                   ? 0
                   : cli_error("a template does not say what is to run: give --entry CMD, or a file "
                               "that has agent.json's keys");
    if (said)
        return cli_error("give a file with agent.json's keys, or --entry, --install and --check, not both");
    if (strstr(t->file, "://") != NULL || (stat(t->file, &st) == 0 && S_ISDIR(st.st_mode)))
        return cli_error(
            "a directory or a repository names the template that it is built on in its agent.json "
            "(\"template\": \"%.60s\"): leave --template out",
            t->template);
    return 0;
}

/* The file's text, if it is JSON. */
static int read_file(const char *path, struct buf *out)
{
    char block[4096];
    struct err err = ERR_INIT;
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && (n = read(fd, block, sizeof block)) > 0 && buf_append(out, block, (size_t)n))
        continue;
    int why = fd < 0 || n < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (why != 0)
        return cli_error("%s: %s", path, strerror(why));
    if (out->failed)
        return cli_error("%s has more than %d bytes", path, FILE_MAX);
    return json_scan(buf_view(out), &err) == 0 ? 0 : cli_error("%s: %s", path, err.msg);
}

static void write_option(struct json_writer *w, const char *key, const char *text)
{
    if (text != NULL)
        jw_kcstr(w, key, text);
}

int from_template_body(const struct from_template *t, const char *name, struct buf *out)
{
    struct buf file;
    buf_init(&file, FILE_MAX);
    int status = t->file != NULL ? read_file(t->file, &file) : 0;
    struct json_writer w = json_writer(out);
    jw_object(&w);
    write_option(&w, "name", name);
    jw_kcstr(&w, "template", t->template);
    jw_key(&w, "manifest");
    if (t->file != NULL) {
        jw_raw(&w, buf_view(&file));
    } else {
        jw_object(&w);
        write_option(&w, "entry", t->entry);
        write_option(&w, "install", t->install);
        write_option(&w, "check", t->check);
        jw_object_end(&w);
    }
    jw_object_end(&w);
    buf_deinit(&file);
    return status == 0 && out->failed ? cli_error("the manifest is too long") : status;
}
