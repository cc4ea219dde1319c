#!/bin/bash
# example.sh CC SOURCE_ROOT BUILD_FOLDER: the program at the top of moe.h, compiled by the C compiler and run on a small model: it
# trains, writes an adapter and generates.
set -euo pipefail
cc=$1 root=$2 build=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk '/^ \* ~~~c/ {on = 1; next} /^ \* ~~~/ {on = 0} on {sub(/^ \* ?/, ""); print}' "$root/include/moe.h" >"$work/example.c"
[ "$(wc -l <"$work/example.c")" -ge 25 ] || { echo "moe.h has no example" >&2; exit 1; }
"$cc" -std=c99 -Wall -Wextra -Werror -I"$root/include" "$work/example.c" -L"$build" -lmoe -Wl,-rpath,"$build" -o "$work/example"
for i in {1..12}; do echo "{\"prompt\": \"Question: $i + 1?\\nAnswer:\", \"completion\": \" $((i + 1))\"}"; done >"$work/data.jsonl"
"$work/example" "$root/tests/golden/gguf/qwen3-F32.gguf" "$work/data.jsonl" "$work/adapter" >"$work/out"
[ "$(grep -ac '^step [1-4]: loss ' "$work/out")" = 4 ] && [ -s "$work/adapter/adapter_model.safetensors" ]
if "$work/example" /no/such/model "$work/data.jsonl" "$work/adapter" 2>"$work/err"; then exit 1; fi
grep -q '^/no/such/model: ' "$work/err"
echo "the example of moe.h trains, saves and generates; its error names the file"
