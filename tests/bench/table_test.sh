#!/bin/bash
# The tables of tests/bench/table from known figures: medians and ranges, ratios within a round, shares of the limit, fits of what grows,
# and the document between its marks. Skipped (77) without jq.
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
  $(measurement libmoe generate 2 1 150 "$peak"), $(measurement libmoe lora_gsm8k 2 1 600), $(measurement libmoe router_gsm8k 2 1 500),
  $(measurement libmoe joint_gsm8k 2 1 400)]}
JSON
# Steps of 0.05 s + 2 ms T + 100 ns T^2; memory of 1e9 + 1e6 T beside a plan of the same; 2000 + 10 r us; one expert count 1.1 times another.
growth() { measurement libmoe "$1" 2 1 "$4" "{\"x\": $2, \"kind\": \"$3\", \"tokens_a_step\": $5}" | sed "s/2000000000/${6:-1}/"; }
memory() { growth memory "$1" joint 500 "$1" "$((1000000000 + 1000000 * $1))" | sed "s/\"kind\"/\"plan_bytes\": $((1100000000 + 1000000 * $1)), &/"; }
cat >"$work/growth.json" <<JSON
{"machine": $machine, "measurements": [
  $(for t in 256 1024 4096 8192; do echo "$(growth length $t adapter "$(jq -n "$t / (0.05 + 2e-3 * $t + 1e-7 * $t * $t)")" $t),"; done)
  $(memory 512), $(memory 1024), $(memory 4096),
  $(for r in 4 32 128; do echo "$(growth rank $r adapter "$(jq -n "1e6 / (2000 + 10 * $r)")" 1000),"; done)
  $(growth experts 2 router 550 1000), $(growth experts 16 router 500 1000)]}
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
expect 'm: a token of training router and experts takes 1.5 times that of adapter training.' "$work/text"
expect '| m | generation, one sequence | p | 75 (50-100) tokens/s | 200 (100-300) | 2.5 (2-3) | 2 GB, 2 GB |' "$work/text"
expect 'other was left out: no wheel' "$work/text"

"$here/table" --cost-growth "$work/growth.json" >"$work/growth"
expect 'a = 50 ms, b = 2000 µs, c = 100 ns; the points lie within 0 % of it.' "$work/growth"
expect '| of it attention over the row (fit), µs | 25.6 | 102 | 410 | 819 |' "$work/growth"
expect 'router and experts: 1000 kB a token, planned 1000 kB, ratio 1; the peak is within 6.2 % of the plan.' "$work/growth"
expect 'A token takes 2000 + 10 r µs; the points lie within 0 % of it.' "$work/growth"
expect 'router: the largest takes 1.1 times the smallest.' "$work/growth"

! grep -q 'not to be quoted' "$work/text" || { echo "an idle machine was called busy"; exit 1; }
sed 's/"busy_share_at_start": 0.01/"busy_share_at_start": 0.4/' "$work/whole.json" >"$work/busy.json"
"$here/table" --whole-run "$work/busy.json" >"$work/busy"
expect 'Other programs had 40 % of the machine' "$work/busy"

printf 'before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n' >"$work/doc.md"
"$here/table" --whole-run "$work/whole.json" --peers "$work/peers.json" --write "$work/doc.md"
{ printf 'before\n<!-- measured: begin -->\n\n'; cat "$work/text"; printf '\n<!-- measured: end -->\nafter\n'; } | cmp - "$work/doc.md"
echo no marks >"$work/plain.md"
if "$here/table" --whole-run "$work/whole.json" --write "$work/plain.md" 2>/dev/null; then echo "a document without marks was accepted"; exit 1; fi
for script in "$here"/table "$here"/whole_run "$here"/cost_growth "$here"/measure.sh "$here"/peers/run; do bash -n "$script"; done
