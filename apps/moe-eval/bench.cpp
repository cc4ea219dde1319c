// moe-eval bench: speed of a model on this machine. Every rate is measured in several rounds, all kinds in each round, with the
// peak rates of the machine between them, so that a busy moment does not fall on one of them; reported are the best and the
// median.
#include <sys/resource.h>

#include <algorithm>
#include <random>

#include "cli/models.h"
#include "moe-eval/peak.h"
#include "moe-eval/verbs.h"

namespace moe::cli {
namespace {

constexpr int kRounds = 5;
constexpr double kEnough = 60;  // seconds of measuring after which three rounds are enough

class Samples {
 public:
  void add(double value) { values_.push_back(value); }
  bool empty() const { return values_.empty(); }
  double best() const { return *std::max_element(values_.begin(), values_.end()); }
  double smallest() const { return *std::min_element(values_.begin(), values_.end()); }
  double median() const {
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    const size_t middle = sorted.size() / 2;
    return sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

 private:
  std::vector<double> values_;
};

// Rows of about 200 tokens that a step trains on.
struct TrainingBatch {
  std::vector<int32_t> tokens, labels, starts{0};

  TrainingBatch(std::mt19937_64 &random, int64_t vocabulary) {
    for (int row = 0; row < 8; row++) {
      const int length = 186 + 4 * row;
      for (int t = 0; t < length; t++) tokens.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocabulary)));
      starts.push_back(static_cast<int32_t>(tokens.size()));
    }
    labels.assign(tokens.begin() + 1, tokens.end());
    labels.push_back(-100);
    for (size_t row = 1; row < starts.size(); row++) labels[static_cast<size_t>(starts[row]) - 1] = -100;
  }

  moe_batch view() const {
    moe_batch batch = MOE_BATCH_INIT;
    batch.n_tokens = static_cast<int64_t>(tokens.size());
    batch.n_sequences = static_cast<int64_t>(starts.size()) - 1;
    batch.tokens = tokens.data();
    batch.sequence_starts = starts.data();
    batch.labels = labels.data();
    return batch;
  }
};

class Bench {
 public:
  explicit Bench(const Context &context)
      : context_(context), random_(static_cast<uint64_t>(integer(context.options(), "seed"))),
        prompt_tokens_(integer(context.options(), "prompt_tokens")),
        generate_tokens_(integer(context.options(), "generate_tokens")),
        batch_size_(has(context.options(), "batch_size") ? integer(context.options(), "batch_size") : 1),
        wants_peak_(!has(context.options(), "measure") || flag(context.options(), "measure")) {}

  Json run() {
    load();
    if (flag(context_.options(), "train")) prepare_training();
    const double start = seconds_now();
    for (int round = 0; round < kRounds && (round < 3 || seconds_now() - start < kEnough); round++) {
      context_.console.progress(format("round %d of %d", round + 1, kRounds), true);
      if (wants_peak_) measure_peaks();
      generate();
      if (trainer_) train();
    }
    context_.console.end_progress();
    return result();
  }

 private:
  const moe_model *model() const { return model_.get(); }
  const moe_options *options() const { return context_.options().get(); }

  void load() {
    for (int i = 0; i < 3; i++) {
      model_ = Model();
      const double start = seconds_now();
      model_ = load_model(context_);
      load_seconds_.add(seconds_now() - start);
    }
    lora_ = load_adapter(context_, model_);
    threads_ = static_cast<int>(Json::parse(text_of(moe_model_info, model()), "model").at("threads").integer());
  }

  void prepare_training() {
    const Options settings = context_.copied();
    set(settings, "max_steps", "1000");
    call(moe_lora_create, model(), settings.get(), trained_.out());
    call(moe_trainer_create_lora, trained_.get(), nullptr, settings.get(), context_.cancel, trainer_.out());
    batch_.emplace_back(random_, moe_model_vocabulary_size(model()));
    train_step();  // the first one allocates
  }

  double train_step() {
    const moe_batch batch = batch_[0].view();
    const double start = seconds_now();
    call(moe_lora_train_step, trainer_.get(), &batch, nullptr);
    return static_cast<double>(batch.n_tokens) / (seconds_now() - start);
  }

  void train() {
    for (int i = 0; i < 2; i++) train_rate_.add(train_step());
  }

  Session new_session() {
    Session session;
    call(moe_session_create, model(), options(), context_.cancel, session.out());
    if (lora_) call(moe_session_set_adapter, session.get(), lora_.get());
    return session;
  }

  // Reads a prompt of random tokens, then goes on with `batch_size` copies of the session.
  void generate() {
    std::vector<int32_t> prompt(static_cast<size_t>(prompt_tokens_));
    for (int32_t &token : prompt)
      token = static_cast<int32_t>(random_() % static_cast<uint64_t>(moe_model_vocabulary_size(model())));
    std::vector<float> logits(static_cast<size_t>(moe_model_vocabulary_size(model())));
    std::vector<Session> sessions;
    sessions.push_back(new_session());
    size_t needed = 0;
    double start = seconds_now();
    call(moe_session_append, sessions[0].get(), static_cast<const int32_t *>(prompt.data()), prompt.size());
    call(moe_session_logits, sessions[0].get(), logits.data(), logits.size(), &needed);
    prompt_rate_.add(static_cast<double>(prompt_tokens_) / (seconds_now() - start));
    if (generate_tokens_ == 0) return;
    while (static_cast<int64_t>(sessions.size()) < batch_size_) {
      Session copy;
      call(moe_session_fork, sessions[0].get(), copy.out());
      sessions.push_back(std::move(copy));
    }
    std::vector<moe_session *> handles;
    for (const Session &session : sessions) handles.push_back(session.get());
    std::vector<moe_piece> pieces(handles.size(), moe_piece MOE_PIECE_INIT);
    call(moe_sessions_next, handles.data(), handles.size(), pieces.data());  // its logits were there: no pass
    start = seconds_now();
    for (int64_t i = 0; i < generate_tokens_; i++) call(moe_sessions_next, handles.data(), handles.size(), pieces.data());
    generate_rate_.add(static_cast<double>(generate_tokens_ * batch_size_) / (seconds_now() - start));
  }

  void measure_peaks() {
    one_ = best_of(one_, measure_peak(1));
    if (threads_ > 1) all_ = best_of(all_, measure_peak(threads_));
  }

  static Json peak_json(int threads, const Peak &peak) {
    const auto rate = [](double value) { return value > 0 ? Json(value / 1e9) : Json(); };
    return Json::object({{"threads", threads},
                         {"f32_gflops", rate(peak.f32_flops)},
                         {"bf16_gflops", rate(peak.bf16_flops)},
                         {"int8_gops", rate(peak.int8_ops)},
                         {"read_gb_s", rate(peak.read_bytes)}});
  }

  static void add(Json &json, const std::string &key, const Samples &samples) {
    json.set(key, samples.empty() ? Json() : Json(samples.best()));
    json.set(key + "_median", samples.empty() ? Json() : Json(samples.median()));
  }

  Json result() const {
    const Json info = Json::parse(text_of(moe_model_info, model()), "model");
    Json json = Json::object({{"model", info.at("path")},
                              {"compute", info.at("compute")},
                              {"backend", info.at("backend")},
                              {"threads", threads_},
                              {"prompt_tokens", prompt_tokens_},
                              {"generate_tokens", generate_tokens_},
                              {"batch_size", batch_size_},
                              {"model_load_s", load_seconds_.smallest()},
                              {"model_load_s_median", load_seconds_.median()}});
    add(json, "prompt_tokens_per_s", prompt_rate_);
    add(json, "generate_tokens_per_s", generate_rate_);
    add(json, "train_tokens_per_s", train_rate_);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    json.set("peak_rss_bytes", static_cast<int64_t>(usage.ru_maxrss));
#else
    json.set("peak_rss_bytes", static_cast<int64_t>(usage.ru_maxrss) * 1024);
#endif
    Json peaks = Json::array();
    if (wants_peak_) peaks.push(peak_json(1, one_));
    if (wants_peak_ && threads_ > 1) peaks.push(peak_json(threads_, all_));
    return std::move(json.set("machine_peak", std::move(peaks)));
  }

  const Context &context_;
  std::mt19937_64 random_;
  int64_t prompt_tokens_, generate_tokens_, batch_size_;
  bool wants_peak_;
  int threads_ = 1;
  Model model_;
  Lora lora_, trained_;
  Trainer trainer_;
  std::vector<TrainingBatch> batch_;  // one, when training is measured
  Samples load_seconds_, prompt_rate_, generate_rate_, train_rate_;
  Peak one_, all_;
};

void print_rate(Console &console, const Json &json, const std::string &key) {
  if (json.at(key).is_null()) return;
  console.print(format("%-24s %12.1f   median %.1f\n", key.c_str(), json.at(key).number(), json.at(key + "_median").number()));
}

void print_table(Console &console, const Json &json) {
  console.print(format("%-24s %12.3f   median %.3f\n", "model_load_s", json.at("model_load_s").number(),
                       json.at("model_load_s_median").number()));
  for (const char *key : {"prompt_tokens_per_s", "generate_tokens_per_s", "train_tokens_per_s"}) print_rate(console, json, key);
  console.print(format("%-24s %12s\n", "peak_rss_bytes", bytes_text(json.at("peak_rss_bytes").number()).c_str()));
  for (const Json &peak : json.at("machine_peak").items()) {
    std::string line = format("machine, %s thread(s):", peak.at("threads").string().c_str());
    for (const char *key : {"f32_gflops", "bf16_gflops", "int8_gops", "read_gb_s"}) {
      line += std::string("  ") + key + " " + (peak.at(key).is_null() ? "-" : format("%.1f", peak.at(key).number()));
    }
    console.print(line + "\n");
  }
}

}  // namespace

int run_bench(Context &context) {
  const Json json = Bench(context).run();
  if (context.command.json) context.console.print(json.dump(2) + "\n");
  else print_table(context.console, json);
  return kDone;
}

}  // namespace moe::cli
