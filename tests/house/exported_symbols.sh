#!/bin/bash
# exported_symbols.sh NM LIBRARY LIST: the shared library exports exactly the functions of LIST, all of them moe_*.
set -euo pipefail
nm=$1 library=$2 list=$3
found=$("$nm" -D --defined-only "$library" | awk '{print $3}' | sed 's/@.*//' | LC_ALL=C sort)
if grep -v '^moe_' <<<"$found"; then
  echo "only moe_* may be exported" >&2
  exit 1
fi
if ! diff "$list" - <<<"$found"; then
  echo "$list (<) and the exported functions (>) differ; a function that was added belongs into the list" >&2
  exit 1
fi
echo "$(wc -l <<<"$found") exported functions"
