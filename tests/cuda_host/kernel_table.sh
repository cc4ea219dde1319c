#!/bin/bash
# Prints the table of kernels of docs/cuda.md: registers, shared memory and spills as ptxas reports them.
#   tests/cuda_host/kernel_table.sh [NVCC] [ARCHITECTURE]
set -euo pipefail
cd "$(dirname "$0")/../.."
nvcc=${1:-nvcc} architecture=${2:-80}
echo "| file | kernel | registers | shared memory, bytes | spilled, bytes |"
echo "|---|---|---|---|---|"
for source in cuda/*.cu; do
  "$nvcc" -std=c++20 -O3 -I. -Ilib -DMOE_BACKEND_VERSION='""' -arch=sm_$architecture -cubin -Xptxas=-v -o /dev/null "$source" 2>&1 |
    c++filt | awk -v file="$(basename "$source")" '
      /Compiling entry function/ {
        name = $0; sub(/.*function .(void )?/, "", name); gsub(/moe::cuda::|\(anonymous namespace\)::/, "", name)
        sub(/[(<].*/, "", name)
      }
      /spill stores/ { spills = $(NF - 7) + $(NF - 3) }
      /Used [0-9]+ registers/ {
        match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
        shared = 0; if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH - 11)
        if (!(name in low) || registers + 0 < low[name] + 0) low[name] = registers
        if (registers + 0 > high[name] + 0) high[name] = registers
        if (shared + 0 > most[name] + 0) most[name] = shared
        if (spills > spilled[name] + 0) spilled[name] = spills
        count[name]++
      }
      END {
        for (name in low) {
          forms = (count[name] > 1) ? " (" count[name] " forms)" : ""
          range = (low[name] == high[name]) ? low[name] : low[name] " to " high[name]
          printf "| %s | %s%s | %s | %d | %d |\n", file, name, forms, range, most[name], spilled[name]
        }
      }' | sort
done
