#!/bin/bash
# The tables of tests/bench/table from known figures: medians and ranges, ratios within a round, shares of the limit, and the document
# between its marks. Skipped (77) without jq.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
type -P jq >/dev/null || { echo "jq is missing"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

machine='{"cpu": "C", "processors": 2, "level": "avx2", "version": "1", "date": "D", "busy_share_at_start": 0.01}'
# measurement ENGINE WORK THREADS ROUND VALUE [DETAILS]
measurement() {
  printf '{"engine": "%s", "model": "m", "work": "%s", "threads": %s, "round": %s, "value": %s, "unit": "tokens/s", "peak_rss_bytes": 2000000000, "details": %s}' \
    "$1" "$2" "$3" "$4" "$5" "${6:-{\}}"
}
peak='{"compute": "bf16", "machine_peak": [{"threads": 2, "f32_gflops": 100, "bf16_gflops": 400, "int8_gops": 800, "read_gb_s": 20}]}'
cat >"$work/whole.json" <<JSON
{"machine": $machine, "models": {"m": {"bytes": 1e8, "layer_operations": 2e8}}, "measurements": [
  $(measurement libmoe prompt_512 1 1 500 "$peak"), $(measurement libmoe prompt_512 2 1 900 "$peak"),
  $(measurement libmoe prompt_512 2 2 1000 "$peak"), $(measurement libmoe prompt_512 2 3 1200 "$peak"),
  $(measurement libmoe generate 2 1 150 "$peak"), $(measurement libmoe lora_gsm8k 2 1 600), $(measurement libmoe router_gsm8k 2 1 500)]}
JSON
cat >"$work/peers.json" <<JSON
{"machine": $machine, "versions": {"p": "2"}, "skipped": [{"peer": "other", "reason": "no wheel"}], "measurements": [
  $(measurement libmoe generate 2 1 100), $(measurement p generate 2 1 50), $(measurement libmoe generate 2 2 300), $(measurement p generate 2 2 100)]}
JSON

expect() { grep -qF -- "$1" "$2" || { echo "missing: $1"; cat "$2"; exit 1; }; }
"$here/table" --whole-run "$work/whole.json" --peers "$work/peers.json" >"$work/text"
expect '| m | prompt of 512 tokens | 500 | 1000 (900-1200) tokens/s | 2 | 50 % of bf16 | 2 GB |' "$work/text"
expect '| m | generation, one sequence |  | 150 tokens/s |  | 75 % of read | 2 GB |' "$work/text"
expect '| m | adapter training, 8 GSM8K rows a step, rank 16 |  | 600 tokens/s |  | 60 % of bf16 | 2 GB |' "$work/text"
expect 'm: a token of router training takes 1.2 times that of adapter training.' "$work/text"
expect '| m | generation, one sequence | p | 75 (50-100) tokens/s | 200 (100-300) | 2.5 (2-3) | 2 GB, 2 GB |' "$work/text"
expect 'other was left out: no wheel' "$work/text"

! grep -q 'not to be quoted' "$work/text" || { echo "an idle machine was called busy"; exit 1; }
sed 's/"busy_share_at_start": 0.01/"busy_share_at_start": 0.4/' "$work/whole.json" >"$work/busy.json"
"$here/table" --whole-run "$work/busy.json" >"$work/busy"
expect 'Other programs had 40 % of the machine' "$work/busy"

printf 'before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n' >"$work/doc.md"
"$here/table" --whole-run "$work/whole.json" --peers "$work/peers.json" --write "$work/doc.md"
{ printf 'before\n<!-- measured: begin -->\n\n'; cat "$work/text"; printf '\n<!-- measured: end -->\nafter\n'; } | cmp - "$work/doc.md"
echo no marks >"$work/plain.md"
if "$here/table" --whole-run "$work/whole.json" --write "$work/plain.md" 2>/dev/null; then echo "a document without marks was accepted"; exit 1; fi
for script in "$here"/table "$here"/whole_run "$here"/measure.sh "$here"/peers/run; do bash -n "$script"; done
