# Completion for fish: sandpiper completions fish | source
# Commands and options are asked of sandpiper itself, names of agents of the gateway.

function __sandpiper_commands
    sandpiper --help | awk '/^$/ { part++ } part == 1 && /^  [a-z]/ { print $1 }'
end
function __sandpiper_parts
    set -l command (commandline -opc)[2]
    switch $command
        case invoke versions rollback logs get
            sandpiper agents --json 2>/dev/null | sed -n 's/.*"name":"\([a-z0-9-]*\)".*/\1/p'
        case completions
            printf '%s\n' bash zsh fish
        case '*'
            sandpiper --help | awk -v c="$command" '$1 == c && $3 ~ /\|/ { gsub(/[|:]/, "\n", $3); print $3 }'
    end
end
function __sandpiper_options
    sandpiper (commandline -opc)[2] --help 2>/dev/null | grep -oE '^  --[a-z-]+' | tr -d ' '
end
complete -c sandpiper -n 'test (count (commandline -opc)) -eq 1' -f -a '(__sandpiper_commands)'
complete -c sandpiper -n 'test (count (commandline -opc)) -eq 2' -a '(__sandpiper_parts)'
complete -c sandpiper -n 'test (count (commandline -opc)) -ge 2' -a '(__sandpiper_options)'
