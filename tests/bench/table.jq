# Measurements (measure.sh) as markdown tables.

def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def digits: if . >= 100 then round elif . >= 10 then (. * 10 | round / 10) else (. * 100 | round / 100) end | tostring;
def spread: "\(median | digits)" + (if length > 1 then " (\(min | digits)-\(max | digits))" else "" end);
def percent: "\(. * 100 | round) %";
def gigabytes: if . == null then "" else "\(. / 1e7 | round / 100) GB" end;
def row: "| " + join(" | ") + " |";
def header: row, (map("---") | row);

def title: {
  load: "loading", prompt_512: "prompt of 512 tokens", generate: "generation, one sequence", generate_batch_8: "generation, eight sequences together",
  lora_random_rows: "adapter steps, 8 random rows of 200 tokens", lora_gsm8k: "adapter training, 8 GSM8K rows a step, rank 16",
  router_gsm8k: "router training, the same rows, 4 experts of rank 16, top-2",
  choice_medmcqa: "multiple choice, MedMCQA", choice_casehold: "multiple choice, CaseHOLD"}[.] // .;
def order: ["load", "prompt_512", "generate", "generate_batch_8", "lora_random_rows", "lora_gsm8k", "router_gsm8k", "choice_medmcqa", "choice_casehold"] as $all
  | . as $work | $all | index($work) // length;

def machine: "\(.cpu), \(.processors) processors, level \(.level), libmoe \(.version), \(.date)."
  + (if .busy_share_at_start > 0.05 then " **Other programs had \(.busy_share_at_start | percent) of the machine: these figures are not to be quoted.**" else "" end);

# ---- whole runs ----
def peak($threads): [.measurements[] | select(.threads == $threads) | .details.machine_peak // [] | .[] | select(.threads == $threads)];
def best($key): map(.[$key] // 0) | if length > 0 then max else 0 end;

# What the limit alone would reach: {rate, of}; null where it is not counted. $facts: operations and bytes of the model.
def limit($work; $facts; $peak; $compute):
  ($peak | if best("bf16_gflops") > best("f32_gflops") then {rate: best("bf16_gflops"), of: "bf16"} else {rate: best("f32_gflops"), of: "f32"} end
    | .rate *= 1e9) as $products
  | (if $compute == "int8" then {rate: ($peak | best("int8_gops") * 1e9), of: "int8"} else $products end) as $inference
  | if $work == "prompt_512" then $inference | .rate /= $facts.layer_operations
    elif $work == "generate" then {rate: ($peak | best("read_gb_s") * 1e9 / $facts.bytes), of: "read"}
    elif $work == "lora_random_rows" or $work == "lora_gsm8k" then $products | .rate /= 2 * $facts.layer_operations
    else null end;

def whole_run:
  . as $run | ([.measurements[].threads] | max) as $threads
  | "\(.machine | machine) Medians of \([.measurements[].round] | max) rounds (smallest-largest).", "",
    (["model", "work", "1 thread", "\($threads) threads", "times", "of the limit", "memory"] | header),
    (.measurements | group_by(.model) | sort_by(.[0].model) | reverse | .[] | . as $of_model
      | ([.[].details.compute // empty] | first) as $compute
      | group_by(.work) | sort_by(.[0].work | order) | .[]
      | (map(select(.threads == 1))) as $one | (map(select(.threads == $threads))) as $all
      | limit(.[0].work; $run.models[.[0].model]; $run | peak($threads); $compute) as $limit
      | [.[0].model, (.[0].work | title), ($one | if length > 0 then map(.value) | spread else "" end), "\($all | map(.value) | spread) \(.[0].unit)",
         (if ($one | length) > 0 and .[0].unit != "s" then ($all | map(.value) | median) / ($one | map(.value) | median) | digits else "" end),
         (if $limit and $limit.rate > 0 then "\(($all | map(.value) | median) / $limit.rate | percent) of \($limit.of)" else "" end),
         ($all | map(.peak_rss_bytes // 0) | max | gigabytes)]
      | row),
    "",
    (.measurements | group_by(.model) | sort_by(.[0].model) | reverse | .[] | . as $of_model
      | [$of_model[] | select(.work == "router_gsm8k")] | select(length > 0)
      | map(. as $router | $of_model[] | select(.work == "lora_gsm8k" and .round == $router.round and .threads == $router.threads) | .value / $router.value)
      | "\($of_model[0].model): a token of router training takes \(spread) times that of adapter training."),
    (peak($threads) | select(length > 0)
      | "The machine on \($threads) threads in these runs, best of all: f32 \(best("f32_gflops") | digits) GF/s, bf16 \(best("bf16_gflops") | digits) GF/s, int8 \(best("int8_gops") | digits) Gop/s, read \(best("read_gb_s") | digits) GB/s."),
    "Shares count the products of the layers' stored matrices alone (forward; for training forward and input gradients), for generation reading every stored weight once.";

# ---- peers ----
def peers:
  . as $run
  | "\(.machine | machine) Peers: \(.versions | to_entries | map("\(.key) \(.value)") | join(", ")). Medians of \([.measurements[].round] | max) rounds (smallest-largest); ratios within a round.", "",
    (["model", "work", "peer", "peer's", "libmoe", "ratio", "memory: peer, libmoe"] | header),
    ([.measurements[] | select(.engine != "libmoe")] | group_by([.model, .work, .engine])
      | sort_by([(.[0].work | order), .[0].model, .[0].engine]) | .[] | . as $peer
      | [$run.measurements[] | select(.engine == "libmoe" and .model == $peer[0].model and .work == $peer[0].work and .threads == $peer[0].threads)] as $own
      | [$peer[] | . as $one | ([$own[] | select(.round == $one.round) | .value] | select(length > 0) | median) / $one.value] as $ratios
      | select($ratios | length > 0)
      | [.[0].model, (.[0].work | title), .[0].engine, "\(map(.value) | spread) \(.[0].unit)", ($own | map(.value) | spread),
         ($ratios | spread), "\(map(.peak_rss_bytes) | max | gigabytes), \($own | map(.peak_rss_bytes) | max | gigabytes)"]
      | row),
    (.skipped[] | "", "\(.peer) was left out: \(.reason)"),
    ([.measurements[] | select(.work == "lora_gsm8k")] | select(length > 0) | "", "Mean loss of the training steps (the same rows, in another order): "
      + (group_by(.engine) | map("\(.[0].engine) \(.[0].details.losses | add / length | . * 1000 | round / 1000)") | join(", ")) + "."),
    ([.measurements[] | select(.work | startswith("choice_"))] | select(length > 0) | group_by(.work) | .[]
      | "", "Accuracy, \(.[0].work | title), \(.[0].details.rows) rows: " + (group_by(.engine) | map("\(.[0].engine) \(.[0].details.accuracy | percent)") | join(", ")) + ".");
