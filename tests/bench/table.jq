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
  joint_gsm8k: "router and experts together, the same",
  choice_medmcqa: "multiple choice, MedMCQA", choice_casehold: "multiple choice, CaseHOLD",
  parquet_columns: "texts of a Parquet file, as columns", parquet_objects: "the same, as objects"}[.] // .;
def order: ["load", "prompt_512", "generate", "generate_batch_8", "lora_random_rows", "lora_gsm8k", "router_gsm8k", "joint_gsm8k", "choice_medmcqa", "choice_casehold", "parquet_columns", "parquet_objects"] as $all
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
  | ([$products, (if $compute == "int8" then {rate: ($peak | best("int8_gops") * 1e9), of: "int8"} else empty end)] | max_by(.rate)) as $inference
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
      | ({router_gsm8k: "router training", joint_gsm8k: "training router and experts"} | to_entries[]) as {key: $work, value: $name}
      | [$of_model[] | select(.work == $work)] | select(length > 0)
      | map(. as $one | $of_model[] | select(.work == "lora_gsm8k" and .round == $one.round and .threads == $one.threads) | .value / $one.value)
      | "\($of_model[0].model): a token of \($name) takes \(spread) times that of adapter training."),
    (peak($threads) | select(length > 0)
      | "The machine on \($threads) threads in these runs, best of all: f32 \(best("f32_gflops") | digits) GF/s, bf16 \(best("bf16_gflops") | digits) GF/s, int8 \(best("int8_gops") | digits) Gop/s, read \(best("read_gb_s") | digits) GB/s."),
    "Shares count the products of the layers' stored matrices alone (forward; for training forward and input gradients), for generation reading every stored weight once.";

# ---- growth of the cost ----
# Solves the augmented rows of linear equations (Gauss-Jordan; normal equations need no pivots).
def solve: length as $n
  | reduce range($n) as $i (.; .[$i] as $pivot
      | [to_entries[] | .key as $j | .value | if $j == $i then . else (.[$i] / $pivot[$i]) as $times | [range($n + 1) as $k | .[$k] - $times * $pivot[$k]] end])
  | [range($n) as $i | .[$i][$n] / .[$i][$i]];

# Coefficients of the polynomial through [[x, y], ...] with the smallest relative errors squared, from the constant on.
def fit($degree): . as $points | (map(.[0]) | max) as $scale
  | [range($degree + 1) as $i | [range($degree + 1) as $j | $points | map(pow(.[0] / $scale; $i + $j) / (.[1] * .[1])) | add]
      + [$points | map(pow(.[0] / $scale; $i) / .[1]) | add]]
  | solve | [to_entries[] | .value / pow($scale; .key)];
def value_at($x): . as $coefficients | reduce range(length) as $i (0; . + $coefficients[$i] * pow($x; $i));
# The largest relative distance of the points from it.
def worst($coefficients): map(.[0] as $x | .[1] as $y | ($coefficients | value_at($x)) / $y - 1 | fabs) | max;

# Points of a series: [{x, kind, per_token: microseconds, step: seconds, peak, plan}], medians over the rounds.
def points($work): [.measurements[] | select(.work == $work)] | group_by([.details.kind, .details.x])
  | map({kind: .[0].details.kind, x: .[0].details.x, tokens: .[0].details.tokens_a_step, per_token: (map(1e6 / .value) | median),
         step: (map(.details.tokens_a_step / .value) | median), peak: (map(.peak_rss_bytes) | max), plan: .[0].details.plan_bytes});
def kinds: group_by(.kind) | map({kind: .[0].kind, points: .});
def kind_title: {adapter: "adapter", router: "router", joint: "router and experts"}[.];
def milliseconds: . * 1000 | digits;
def percent_digits: "\(. * 1000 | round / 10) %";

def cost_growth:
  . as $run
  | "\(.machine | machine) \([.measurements[].model] | unique | join(", ")), \([.measurements[].threads] | max) threads, medians of \([.measurements[].round] | max) rounds.",
    ((points("length") | select(length > 0)) as $p | ($p | map([.x, .step]) | fit(2)) as $fit
      | "", (["tokens of a row"] + [$p[].x | tostring] | header), (["time of a token, µs"] + [$p[].per_token | digits] | row),
        (["of it attention over the row (fit), µs"] + [$p[] | .x * $fit[2] * 1e6 | digits] | row),
        (["without it, µs"] + [$p[] | .per_token - .x * $fit[2] * 1e6 | digits] | row),
        "", "A step of one row of T tokens takes a + bT + cT² with a = \($fit[0] | milliseconds) ms, b = \($fit[1] * 1e6 | digits) µs, c = \($fit[2] * 1e9 | digits) ns; the points lie within \($p | map([.x, .step]) | worst($fit) | percent_digits) of it."),
    ((points("memory") | select(length > 0)) as $p
      | "", (["tokens of a batch"] + [$p | map(.x) | unique[] | tostring] | header),
        ($p | kinds[] | ([.kind | kind_title | . + ": peak"] + [.points[].peak | gigabytes] | row), ([.kind | kind_title | . + ": plan"] + [.points[].plan | gigabytes] | row)),
        ($p | kinds[] | (.points | map([.x, .peak]) | fit(1)) as $peak | (.points | map([.x, .plan]) | fit(1)) as $plan
          | "", "\(.kind | kind_title): \($peak[1] / 1000 | digits) kB a token, planned \($plan[1] / 1000 | digits) kB, ratio \($peak[1] / $plan[1] | . * 1000 | round / 1000); the peak is within \(.points | map(.peak / .plan - 1 | fabs) | max | percent_digits) of the plan.")),
    ((points("rank") | select(length > 0)) as $p | ($p | map([.x, .per_token]) | fit(1)) as $fit
      | "", (["rank"] + [$p[].x | tostring] | header), (["time of a token, µs"] + [$p[].per_token | digits] | row),
        "", "A token takes \($fit[0] | digits) + \($fit[1] | digits) r µs; the points lie within \($p | map([.x, .per_token]) | worst($fit) | percent_digits) of it."),
    ((points("experts") | select(length > 0)) as $p
      | "", (["experts, top-2"] + [$p | map(.x) | unique[] | tostring] | header),
        ($p | kinds[] | [.kind | kind_title | . + ": time of a token, µs"] + [.points[].per_token | digits] | row),
        "", ($p | kinds | map("\(.kind | kind_title): the largest takes \((.points | max_by(.per_token).per_token) / (.points | min_by(.per_token).per_token) | digits) times the smallest") | join("; ") + "."));

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
