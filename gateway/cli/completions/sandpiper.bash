# Completion for bash: source <(sandpiper completions bash)
# Commands and options are asked of sandpiper itself, names of agents of the gateway.

_sandpiper() {
    local cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words=$(sandpiper --help | awk '/^$/ { part++ } part == 1 && /^  [a-z]/ { print $1 }')
    elif [ "${cur#-}" != "$cur" ]; then
        words=$(sandpiper "$command" --help 2>/dev/null | grep -oE '^  --[a-z-]+')
    elif [ "$COMP_CWORD" -eq 2 ]; then
        words=$(sandpiper --help | awk -v c="$command" '$1 == c && $3 ~ /\|/ { gsub(/[|:]/, " ", $3); print $3 }')
        case $command in
        invoke | versions | rollback | logs | get)
            words=$(sandpiper agents --json 2>/dev/null | sed -n 's/.*"name":"\([a-z0-9-]*\)".*/\1/p')
            ;;
        completions) words='bash zsh fish' ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _sandpiper sandpiper
