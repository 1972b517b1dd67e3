/* Values that must not be seen: from the terminal without echo, else from stdin. */
#include "typed.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"

int typed_all(int fd, const char *what, struct buf *out)
{
    for (;;) {
        char *to = buf_reserve(out, 4096);
        if (to == NULL)
            return cli_error("%s is too long", what);
        ssize_t n = read(fd, to, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cli_error("cannot read %s: %s", what, strerror(errno));
        if (n == 0)
            return STATUS_OK;
        buf_commit(out, (size_t)n);
    }
}

/* The next character; 0 at the end, -1 after Ctrl-C. */
static int read_char(int interrupts, char *out)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = interrupts, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return 0;
    if (fds[1].revents != 0)
        return -1;
    return read(STDIN_FILENO, out, 1) == 1 && *out != '\n' ? 1 : 0;
}

/* One line without echo. Ctrl-C comes as a descriptor, so that echo is on again whatever happens. */
static int read_terminal(const char *prompt, struct buf *out)
{
    struct termios before, silent;
    sigset_t interrupt, mask;
    char c;
    int got, status = STATUS_OK;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &mask);
    int interrupts = signalfd(-1, &interrupt, SFD_CLOEXEC);
    bool can = tcgetattr(STDIN_FILENO, &before) == 0;
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    if (can) /* before the prompt, after which somebody types: what came earlier is thrown away */
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    fprintf(stderr, "%s: ", prompt);
    while ((got = read_char(interrupts, &c)) > 0)
        buf_byte(out, c);
    if (can)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputc('\n', stderr);
    if (interrupts >= 0)
        close(interrupts);
    if (got < 0)
        status = STATUS_INTERRUPTED;
    else if (out->failed)
        status = cli_error("the value is too long");
    if (got >= 0)
        sigprocmask(SIG_SETMASK, &mask, NULL);
    return status;
}

/* What echo and editors put at the end of a text is not part of it; a file is taken as it is. */
static void drop_line_end(struct buf *value)
{
    if (value->len > 0 && value->data[value->len - 1] == '\n')
        value->len--;
    if (value->len > 0 && value->data[value->len - 1] == '\r')
        value->len--;
}

int typed_secret(const char *prompt, struct buf *out)
{
    if (isatty(STDIN_FILENO) != 0)
        return read_terminal(prompt, out);
    int status = typed_all(STDIN_FILENO, "stdin", out);
    drop_line_end(out);
    return status;
}
