#!/bin/sh
# The prompt is a table: a line of names, then lines of values, with commas between them (quotes are not understood, and
# refused). The answer has a line for each column. What a shell has is enough for many an agent.
set -eu

table=$(mktemp)
trap 'rm -f "$table"' EXIT
cat >"$table"

if [ "$(wc -l <"$table")" -lt 2 ]; then
    echo 'the prompt is no table: it needs a line of names and lines of values' >&2
    exit 1
fi
if grep -q '"' "$table"; then
    echo 'the prompt has quotes, which this agent does not understand' >&2
    exit 1
fi

awk -F, '
    NR == 1 { columns = NF; for (i = 1; i <= NF; i++) name[i] = $i; next }
    NF != columns { printf "line %d has %d values, not %d\n", NR, NF, columns >"/dev/stderr"; bad = 1; exit 1 }
    {
        for (i = 1; i <= NF; i++) {
            if ($i == "") continue
            values[i]++
            if (!((i, $i) in seen)) { seen[i, $i]; different[i]++ }
            if ($i ~ /^-?[0-9]+(\.[0-9]+)?$/) {
                if (!numbers[i] || $i + 0 < least[i]) least[i] = $i + 0
                if (!numbers[i] || $i + 0 > greatest[i]) greatest[i] = $i + 0
                numbers[i]++
                sum[i] += $i
            }
        }
    }
    END {
        if (bad) exit 1
        printf "%-20s %8s %10s %10s %10s %10s\n", "column", "values", "different", "least", "greatest", "mean"
        for (i = 1; i <= columns; i++) {
            printf "%-20s %8d %10d", name[i], values[i], different[i]
            if (numbers[i] && numbers[i] == values[i]) printf " %10g %10g %10g", least[i], greatest[i], sum[i] / numbers[i]
            printf "\n"
        }
        printf "%d lines\n", NR - 1 >"/dev/stderr"
    }' "$table"
