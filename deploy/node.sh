# shellcheck shell=bash
# Node.js 20 or newer, wherever it comes from. Sourced by deploy/quickstart and tests/run.

is_node_20() { # the path of a node
    local version
    version=$("$1" --version 2>/dev/null) && [[ $version =~ ^v([0-9]+) ]] && ((BASH_REMATCH[1] >= 20))
}

# node_directory DIR: "/usr" when the machine's own serves (sandboxes see /usr), else the directory of another one (of
# DIR, where fetch_node put it, or of the PATH), "" without any.
node_directory() {
    local own=$1 node found
    for node in /usr/local/bin/node /usr/bin/node; do
        if [[ $(readlink -f "$node" 2>/dev/null) == /usr/* ]]; then
            if is_node_20 "$node"; then echo /usr; return; fi
            break
        fi
    done
    for node in "$own/bin/node" "$(command -v node || true)"; do
        found=$(readlink -f "$node" 2>/dev/null) || continue
        if [[ $found == */bin/node ]] && is_node_20 "$found"; then
            [[ $node == "$own"/* ]] && found=$node
            echo "${found%/bin/node}"
            return
        fi
    done
}

# fetch_node DIR: npm's package `node` is Node.js itself; both it and npm are laid out as an installation has them.
fetch_node() {
    local dir=$1 modules=$1/lib/node_modules
    rm -rf "$dir"
    mkdir -p "$dir/bin"
    npm install --prefix "$dir/lib" --no-audit --no-fund node@20 npm@10 </dev/null || return 1
    cp "$(readlink -f "$modules/node/bin/node")" "$dir/bin/node"
    ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$dir/bin/npm"
    ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$dir/bin/npx"
}
