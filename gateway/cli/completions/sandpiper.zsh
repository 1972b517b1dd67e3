# Completion for zsh: source <(sandpiper completions zsh)
# Commands and options are asked of sandpiper itself, names of agents of the gateway.

_sandpiper() {
    local -a found
    local command=${words[2]}
    if (( CURRENT == 2 )); then
        found=(${(f)"$(sandpiper --help | awk '/^$/ { part++ } part == 1 && /^  [a-z]/ { print $1 }')"})
    elif [[ ${words[CURRENT]} == -* ]]; then
        found=(${(f)"$(sandpiper $command --help 2>/dev/null | grep -oE '^  --[a-z-]+' | tr -d ' ')"})
    elif (( CURRENT == 3 )); then
        case $command in
        invoke | versions | rollback | logs | get)
            found=(${(f)"$(sandpiper agents --json 2>/dev/null | sed -n 's/.*"name":"\([a-z0-9-]*\)".*/\1/p')"}) ;;
        completions) found=(bash zsh fish) ;;
        *) found=(${=$(sandpiper --help | awk -v c="$command" '$1 == c && $3 ~ /\|/ { gsub(/[|:]/, " ", $3); print $3 }')}) ;;
        esac
    fi
    (( $#found )) && compadd -- $found || _files
}
compdef _sandpiper sandpiper
