#!/bin/bash
# Prints the table of architectures of docs/cuda.md: every kernel compiled for each with warnings, spilled registers and local memory as errors.
#   tests/cuda_host/architecture_table.sh [NVCC] [ARCHITECTURE...]
# Size and processor time are of all files of cuda/ together; the PTX is of the last architecture.
set -euo pipefail
cd "$(dirname "$0")/../.."
nvcc=${1:-nvcc}
shift || true
architectures=("$@")
[ ${#architectures[@]} -gt 0 ] || architectures=(75 80 86 89 90 100 120)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
TIMEFORMAT="%U %S"

# compile FORMAT ARCHITECTURE OPTION...: all files into $folder, what ptxas says into $folder/log, times into $folder/times
compile() {
  local format=$1 architecture=$2 source failed=
  shift 2
  : >"$folder/log"
  rm -f "$folder"/*."$format"
  { time for source in cuda/*.cu; do
    "$nvcc" -std=c++20 -O3 -I. -Ilib -DMOE_BACKEND_VERSION='""' -arch="$architecture" "-$format" -Werror all-warnings "$@" \
      -o "$folder/$(basename "$source" .cu).$format" "$source" >>"$folder/log" 2>&1 || { failed=$source; break; }
  done; } 2>"$folder/times"
  [ -z "$failed" ] || { cat "$folder/log" >&2; echo "$failed does not compile for $architecture" >&2; exit 1; }
}

# row NAME FORMAT: of what was compiled last
row() {
  local size seconds spilled
  size=$(cat "$folder"/*."$2" | wc -c)
  seconds=$(awk '{printf "%.0f", $1 + $2}' "$folder/times")
  awk -v name="$1" -v size="$size" -v seconds="$seconds" '
    /Compiling entry function/ { kernels++ }
    /spill stores/ { spilled += $(NF - 7) + $(NF - 3) }
    match($0, /Used [0-9]+ registers/) { n = substr($0, RSTART + 5, RLENGTH - 15) + 0; if (n > most) most = n }
    END { printf "| %s | %s | %s | %s | %.2f | %d |\n", name, kernels ? kernels : "", kernels ? most : "", kernels ? spilled + 0 : "", size / 1e6, seconds }
  ' "$folder/log"
}

echo "| architecture | kernels | most registers | spilled, bytes | size, MB | compiled in, seconds of a processor |"
echo "|---|---|---|---|---|---|"
for architecture in "${architectures[@]}"; do
  compile cubin "sm_$architecture" -Xptxas=-v,-warn-spills,-warn-lmem-usage,-Werror
  row "sm_$architecture" cubin
done
compile ptx "compute_${architectures[-1]}"
row "PTX of ${architectures[-1]}" ptx
