#!/bin/bash
# What device_bench says to arguments and without a device: one line, and an exit code that is not 0.
set -uo pipefail
bench=$1 failed=0

# expect CODE TEXT ARGUMENT...
expect() {
  local code=$1 text=$2 output got
  shift 2
  output=$("$bench" "$@" 2>&1) && got=0 || got=$?
  if [ "$got" != "$code" ] || [[ "$output" != *"$text"* ]] || { [ "$code" != 0 ] && [ "$(wc -l <<<"$output")" != 1 ]; }; then
    echo "device_bench $*: expected exit code $code and one line with '$text', found $got and: $output"
    failed=1
  fi
}

expect 2 "unknown option --devise" --devise cuda
expect 2 "--filter needs a value" --filter
expect 2 "--seconds: expected a positive number, found 0x" --seconds 0x
expect 2 "--filter: no name contains nothing_like_it" --list --filter nothing_like_it
expect 2 "expected cuda or cuda:N" --device cpu
expect 1 "the CUDA part of the library is missing" --library /does/not/exist/libmoe_cuda.so
expect 0 "gemv/qwen3_4b/down:Q4_K:2560x9728/1" --list --filter gemv/qwen3_4b
exit $failed
