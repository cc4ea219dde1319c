#!/bin/bash
# kernel_symbols.sh NM LEVEL OBJECT...: objects compiled for one instruction-set level define no symbol outside the namespace
# moe::cpu::LEVEL. A weak function of the standard library compiled for AVX-512 could replace the plain one for the whole
# program and stop it on an older machine.
set -euo pipefail
nm=$1 level=$2
shift 2
[ $# -gt 0 ] || { echo "no objects given" >&2; exit 1; }
leaks=$("$nm" -C --defined-only --format=bsd "$@" | awk -v own="moe::cpu::$level::" '
  $2 ~ /^[A-Za-z]$/ && $2 !~ /^[a-z]$/ || $2 ~ /^[uvw]$/ {
    name = $0
    sub(/^[0-9a-f]+ [A-Za-z] /, "", name)
    sub(/^(vtable for|typeinfo for|typeinfo name for|guard variable for) /, "", name)
    if (index(name, own) == 0 || name ~ /^std::/) print $2, name
  }')
if [ -n "$leaks" ]; then
  echo "symbols outside moe::cpu::$level:" >&2
  echo "$leaks" >&2
  exit 1
fi
echo "$# objects define symbols of moe::cpu::$level only"
