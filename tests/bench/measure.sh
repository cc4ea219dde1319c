# Measurements of libmoe, one JSON object a line on standard output. Sourced by whole_run and peers/run.
#
#   {"engine", "model", "work", "threads", "round", "value", "unit", "peak_rss_bytes", "details"}
#
# A value is the median within its process; how they vary from process to process is for the reader of several rounds. Memory is
# what the system counted for the process (GNU time), not what it says itself.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
programs=${MOE_PROGRAMS:-$root/build/release/bin}
models=${MOE_MODELS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/libmoe/models}
gnu_time=$(type -P time || true)
round=0  # set by the caller

stop() { echo "$(basename "$0"): $*" >&2; exit 1; }

need_tools() {
  type -P jq >/dev/null || stop "jq is missing (Debian: apt-get install jq)"
  [ -n "$gnu_time" ] || stop "GNU time is missing (Debian: apt-get install time)"
  [ -x "$programs/moe-eval" ] ||
    stop "no $programs/moe-eval: cmake --preset release && cmake --build build/release, or set MOE_PROGRAMS"
  "$root/scripts/get-models" "$models" "$@" >&2
}

model_file() {
  case $1 in
    smollm2) echo "$models/SmolLM2-135M-Instruct.Q4_1.gguf" ;;
    gemma3) echo "$models/gemma-3-270m-q4_k_m.gguf" ;;
  esac
}

# timed OUTPUT COMMAND...: runs it with its standard output in OUTPUT; $rss is then the largest memory of the process in bytes.
timed() {
  local output=$1 kilobytes
  shift
  "$gnu_time" -f %M -o "$work/rss" "$@" >"$output" 2>"$work/stderr" || {
    { tail -n 20 "$work/stderr"; echo "failed: $* ($(head -n 1 "$work/rss"))"; } >&2
    return 1
  }
  kilobytes=$(tail -n 1 "$work/rss")
  rss=$((kilobytes * 1024))
}

# record MODEL WORK THREADS VALUE UNIT [DETAILS]
record() {
  jq -nc --arg model "$1" --arg work "$2" --argjson threads "$3" --argjson value "$4" --arg unit "$5" \
    --argjson details "${6:-{\}}" --argjson round "$round" --argjson rss "${rss:-null}" \
    '{engine: "libmoe", model: $model, work: $work, threads: $threads, round: $round, value: $value, unit: $unit,
      peak_rss_bytes: $rss, details: $details}'
}

# speed MODEL THREADS [ARGUMENT...]: of moe-eval bench. With --batch-size only the generation counts; training has a process of its
# own (--train --prompt-tokens 1 --generate-tokens 0), so that its memory is not that of generation.
speed() {
  local model=$1 threads=$2 details batch work_name key unit value
  shift 2
  timed "$work/bench.json" "$programs/moe-eval" bench --model "$(model_file "$model")" --threads "$threads" --json --quiet "$@"
  details=$(jq -c '{backend, compute, machine_peak}' "$work/bench.json")
  batch=$(jq .batch_size "$work/bench.json")
  # The peak is measured in a child with large buffers, which the system counts as well: then the process's own count holds.
  [ "$(jq '.machine_peak | length' "$work/bench.json")" -eq 0 ] || rss=$(jq .peak_rss_bytes "$work/bench.json")
  while read -r work_name key unit; do
    value=$(jq --arg key "$key" 'if .train_tokens_per_s and $key != "train_tokens_per_s" then empty
      else .[$key + "_median"] // empty end' "$work/bench.json")
    [ -n "$value" ] || continue
    if [ "$batch" -gt 1 ]; then
      [ "$work_name" = generate ] || continue
      work_name=generate_batch_$batch
    fi
    record "$model" "$work_name" "$threads" "$value" "$unit" "$details"
  done <<'KEYS'
load model_load_s s
prompt_512 prompt_tokens_per_s tokens/s
generate generate_tokens_per_s tokens/s
lora_random_rows train_tokens_per_s tokens/s
KEYS
}

# choice MODEL THREADS TASK ROWS: items a second of multiple choice by likelihood, the held-out loss of the right answer included.
choice() {
  local model=$1 threads=$2 task=$3 rows=$4
  timed /dev/null "$programs/moe-eval" run --model "$(model_file "$model")" --threads "$threads" --quiet \
    --tasks "$task=$root/data/$task/heldout.jsonl" --limit "$rows" --scoring likelihood --output-dir "$work/choice"
  local result
  result=$(jq -c '.results[] | select(.evaluation_type == "multiple_choice")' "$work/choice/evaluation_results.json")
  record "$model" "choice_$task" "$threads" "$(jq '.total_samples / .seconds' <<<"$result")" items/s \
    "$(jq -c '{rows: .total_samples, accuracy}' <<<"$result")"
}

# step_rate METRICS: tokens a second of the steps after the first, which allocates.
step_rate() { jq -s '[.[] | select(.seconds and .step > 1)] | (map(.tokens) | add) / (map(.seconds) | add)' "$1"; }
step_details() {
  jq -sc '[.[] | select(.seconds)]
    | {tokens: (map(.tokens) | add), supervised_tokens: (map(.supervised_tokens) | add), losses: map(.loss)}' "$1"
}
record_steps() { record "$1" "$2" "$3" "$(step_rate "$4")" tokens/s "$(step_details "$4")"; }  # MODEL WORK THREADS METRICS

training_rows=(--max-length 512 --batch-size 8 --learning-rate 1e-4)

# lora MODEL THREADS STEPS [RANK]: an adapter, of rank 16, on the first rows of GSM8K, eight a step.
lora() {
  local model=$1 threads=$2 steps=$3 rank=${4:-16}
  rm -rf "$work/lora"
  timed /dev/null "$programs/moe-train" lora --model "$(model_file "$model")" --threads "$threads" --quiet --domain math --rank "$rank" \
    --data "$root/data/gsm8k/train.jsonl" --max-samples $((8 * steps)) "${training_rows[@]}" --output-dir "$work/lora"
}

# bundle MODEL COUNT: a mixture of that many experts, each the adapter that `lora` left (values do not change the work), two of them for
# each token.
bundle() {
  local model=$1 count=$2 adapters=math=$work/lora/final_adapter i
  for ((i = 2; i <= count; i++)); do adapters+=,expert$i=$work/lora/final_adapter; done
  rm -rf "$work/bundle"
  "$programs/moe-train" build --model "$(model_file "$model")" --output-dir "$work/bundle" --top-k 2 --quiet --adapters "$adapters" >/dev/null
}

# router THREADS STEPS [ARGUMENT...]: the router of the bundle on the same rows; with --train-experts the experts with it.
router() {
  local threads=$1 steps=$2
  shift 2
  rm -rf "$work/router"
  timed /dev/null "$programs/moe-train" router --moe "$work/bundle" --threads "$threads" --quiet \
    --data "math=$root/data/gsm8k/train.jsonl" --max-samples $((8 * steps)) "${training_rows[@]}" --output-dir "$work/router" "$@"
}

# What the shares of a model are counted in: operations of a token in the linear maps of its layers, bytes of all its weights.
model_facts() {
  "$programs/moe-eval" inspect "$(model_file "$1")" --json | jq -c --arg name "$1" '{
    ($name): {file: (.path | split("/") | last), bytes: .tensor_bytes,
              layer_operations: (2 * ([.tensors[] | select((.name | startswith("blk.")) and (.shape | length == 2))
                                       | .shape[0] * .shape[1]] | add))}}'
}

# Share of the processors that other programs have, over two seconds; empty where the system does not tell.
busy_share() {
  [ -r /proc/stat ] || return 0
  { head -n 1 /proc/stat; sleep 2; head -n 1 /proc/stat; } | awk '
    { idle[NR] = $5 + $6; for (i = 2; i <= 9; i++) all[NR] += $i }
    END { printf "%.3f", 1 - (idle[2] - idle[1]) / (all[2] - all[1]) }'
}

machine_facts() {
  jq -nc --arg cpu "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)" \
    --argjson processors "$(getconf _NPROCESSORS_ONLN)" --arg busy "$(busy_share)" \
    --arg date "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --argjson doctor "$("$programs/moe-train" doctor --json)" \
    '{cpu: $cpu, processors: $processors, memory_bytes: $doctor.memory_bytes, level: $doctor.cpu_level, version: $doctor.version,
      date: $date, busy_share_at_start: ($busy | tonumber? // null)}'
}
