/* completions: prints what a shell is to source. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

extern const char completions_sandpiper_bash[], completions_sandpiper_zsh[], completions_sandpiper_fish[];

int command_completions(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {
        "completions bash | zsh | fish",
        "Prints what a shell is to source, as in\n"
        "  source <(sandpiper completions bash)      in ~/.bashrc\n"
        "  source <(sandpiper completions zsh)       in ~/.zshrc, after compinit\n"
        "  sandpiper completions fish | source       in config.fish",
        NULL, 1, 1};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    const char *shell = argv[first];
    const char *text = strcmp(shell, "bash") == 0   ? completions_sandpiper_bash
                       : strcmp(shell, "zsh") == 0  ? completions_sandpiper_zsh
                       : strcmp(shell, "fish") == 0 ? completions_sandpiper_fish
                                                    : NULL;
    if (text == NULL)
        return cli_error("there are completions for bash, zsh and fish, not for %s", shell);
    fputs(text, stdout);
    return STATUS_OK;
}
