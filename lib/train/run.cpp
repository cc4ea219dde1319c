#include "train/run.h"

#include <sys/resource.h>

#include <chrono>
#include <cmath>

#include "base/file.h"
#include "data/leak.h"
#include "formats/event_file.h"
#include "train/checkpoint.h"

namespace moe {
namespace {

std::string summary_path(const RunOptions &options) { return join_path(options.output_dir, options.domain + "_training_summary.json"); }

uint64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<uint64_t>(usage.ru_maxrss);
#else
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

Json step_json(const StepReport &r, bool router) {
  Json json = Json::object();
  json.set("step", r.step).set("loss", r.loss);
  if (router) {
    json.set("total_loss", r.total_loss).set("balance_loss", r.balance_loss).set("z_loss", r.z_loss);
    json.set("supervised_loss", r.supervised_loss).set("supervised_weight", r.supervised_weight);
  }
  json.set("gradient_norm", r.gradient_norm).set("learning_rate", r.learning_rate).set("tokens", r.tokens);
  json.set("supervised_tokens", r.supervised_tokens).set("rows", r.rows).set("seconds", r.seconds);
  json.set("tokens_per_s", r.seconds > 0 ? static_cast<double>(r.tokens) / r.seconds : 0.0);
  if (r.skipped) json.set("skipped", true);
  return json;
}

// Mean of the first or last ten losses, of at most half of them: the ends of the curve.
struct CurveEnds {
  std::vector<double> losses;
  void add(double loss) { losses.push_back(loss); }
  double mean(bool last) const {
    const size_t n = std::min<size_t>((losses.size() + 1) / 2, 10);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += losses[last ? losses.size() - 1 - i : i];
    return n ? sum / static_cast<double>(n) : std::nan("");
  }
};

class Run {
 public:
  Run(Trainer &trainer, const BaseModel &model, const RunOptions &options, const RunCallback &callback, const Cancel *cancel)
      : trainer_(trainer), model_(model), options_(options), callback_(callback), cancel_(cancel),
        checkpoints_(join_path(options.output_dir, "checkpoints")), lock_(prepare(options)),
        metrics_(join_path(options.output_dir, "metrics.jsonl")) {}

  Json run() {
    const auto start = std::chrono::steady_clock::now();
    remove_unfinished(options_.output_dir);
    remove_unfinished(checkpoints_);
    if (options_.resume) resume();
    else forget_earlier_run();
    try {
      train();
    } catch (const Error &error) {
      if (error.code() == Code::cancelled) save();
      throw;
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return finish(seconds);
  }

 private:
  static std::string prepare(const RunOptions &options) {
    make_folders(options.output_dir);
    return join_path(options.output_dir, ".lock");
  }

  void tell(RunEvent event) {
    event.steps_planned = trainer_.steps_planned();
    stop_ |= callback_ && !callback_(event);
  }
  void check_stop() const {
    if (stop_) fail(Code::cancelled, "training was stopped after step ", trainer_.steps_done(), "; continue it with resume");
  }

  // A line that cannot be written (a full disk) costs the run nothing but the line.
  void record(const Json &line) {
    try {
      metrics_.line(line.dump());
      record_event(line);
    } catch (const Error &error) {
      log(options_.log, LogLevel::error, text("a line of the metrics was not written: ", error.message()));
    }
  }

  // The numbers of a line for TensorBoard: those of a step as train/<key>, those of a validation as eval/<key without eval_>.
  void record_event(const Json &line) {
    if (line.find("event")) return;
    std::vector<std::pair<std::string, double>> scalars;
    for (const auto &[key, value] : line.members()) {
      if (!value.is_number() || key == "step") continue;
      scalars.emplace_back(key.starts_with("eval_") ? "eval/" + key.substr(5) : "train/" + key, value.number());
    }
    const int64_t step = line.integer_at("step", "metrics");
    if (!events_) events_ = std::make_unique<EventFile>(options_.output_dir, step);
    events_->scalars(step, scalars);
  }

  // A summary says that a run is finished, so the one of the earlier run goes first.
  void forget_earlier_run() {
    remove_tree(summary_path(options_));
    if (list_checkpoints(checkpoints_).empty()) return;
    log(options_.log, LogLevel::warning, checkpoints_ + ": checkpoints of an earlier run are replaced (give resume to continue it)");
    remove_tree(checkpoints_);
  }

  void resume() {
    const std::string newest = newest_checkpoint(checkpoints_, options_.log);
    if (newest.empty()) return;
    trainer_.resume(newest);
    saved_step_ = trainer_.steps_done();
    prune();  // the run may have been killed before it could
    Json line = Json::object();
    line.set("event", "resumed").set("step", trainer_.steps_done());
    record(line);
    RunEvent event;
    event.kind = RunEvent::Kind::resumed;
    event.path = newest;
    event.step.step = trainer_.steps_done();
    tell(event);
  }

  // A validation loss over rows that are trained on says nothing.
  void check_leaks() {
    if (!options_.eval_data || !trainer_.data()) return;
    leaks_ = find_leaks(*trainer_.data(), *options_.eval_data, cancel_);
    if (leaks_.count() > 0) log(options_.log, LogLevel::warning, leaks_.line());
  }

  void train() {
    const TrainOptions &o = trainer_.options();
    check_leaks();
    while (trainer_.steps_done() < trainer_.steps_planned()) {
      check_stop();
      step();
      check_stop();
      const int64_t done = trainer_.steps_done();
      if (options_.eval_data && o.eval_steps > 0 && done % o.eval_steps == 0) evaluate();
      if (o.save_steps > 0 && done % o.save_steps == 0 && done < trainer_.steps_planned()) save();
    }
    check_stop();
    if (options_.eval_data && evaluated_step_ != trainer_.steps_done()) evaluate();
    check_stop();
    if (!trainer_.trains_router()) return;
    save();  // the result replaces what the run began with: killed after that, it goes on from here
    check_stop();
  }

  void step() {
    RunEvent event;
    event.step = trainer_.step(nullptr, cancel_);
    curve_.add(event.step.loss);
    tokens_ += event.step.tokens;
    step_seconds_ += event.step.seconds;
    if (event.step.skipped) {
      log(options_.log, LogLevel::warning, text("step ", event.step.step, ": the loss or its gradient is not finite; the step was left out"));
    }
    for (const std::string &warning : trainer_.alarms().warnings) log(options_.log, LogLevel::warning, text("step ", event.step.step, ": ", warning));
    if (event.step.step % trainer_.options().logging_steps == 0) record(step_json(event.step, trainer_.trains_router()));
    tell(event);
  }

  void evaluate() {
    RunEvent event;
    event.kind = RunEvent::Kind::evaluation;
    event.step.step = trainer_.steps_done();
    event.eval_loss = eval_loss_ = trainer_.evaluate(*options_.eval_data, cancel_);
    if (evaluated_step_ < 0) first_eval_loss_ = eval_loss_;
    evaluated_step_ = trainer_.steps_done();
    Json line = Json::object();
    line.set("step", trainer_.steps_done()).set("eval_loss", eval_loss_).set("eval_perplexity", std::exp(eval_loss_));
    record(line);
    tell(event);
  }

  // A checkpoint that cannot be written costs the run nothing but the chance to resume from there.
  void save() {
    RunEvent event;
    event.kind = RunEvent::Kind::checkpoint;
    event.path = checkpoint_path(checkpoints_, trainer_.steps_done());
    event.step.step = trainer_.steps_done();
    if (saved_step_ == event.step.step) return;
    try {
      make_folders(checkpoints_);
      trainer_.save(event.path);
      saved_step_ = event.step.step;
    } catch (const Error &error) {
      log(options_.log, LogLevel::error, text("checkpoint at step ", event.step.step, " was not saved: ", error.message()));
      return;
    }
    tell(event);
    prune();
  }

  void prune() {
    try {
      prune_checkpoints(checkpoints_, trainer_.options().save_total_limit, options_.log);
    } catch (const Error &error) {
      log(options_.log, LogLevel::error, text("older checkpoints were not removed: ", error.message()));
    }
  }

  Json finish(double seconds) {
    RunEvent event;
    event.kind = RunEvent::Kind::finished;
    Json summary = Json::object();
    summary.set("format", "libmoe.training_summary").set("format_version", 1).set("domain", options_.domain);
    summary.set("library_version", MOE_VERSION_TEXT).set("trains", trainer_.what());
    summary.set("base_model", model_.name()).set("base_model_path", model_.path());
    summary.set("architecture_fingerprint", model_.architecture_fingerprint()).set("weights_fingerprint", model_.weights_fingerprint());
    summary.set("compute", model_.compute()).set("threads", static_cast<int64_t>(model_.pool().threads()));
    for (const auto &[key, value] : options_.about.members()) summary.set(key, value);
    summary.set("training_options", trainer_.options().to_json()).set("memory_plan", trainer_.plan().to_json());
    summary.set("steps", trainer_.steps_done()).set("tokens", tokens_).set("seconds", seconds);
    summary.set("tokens_per_s", step_seconds_ > 0 ? static_cast<double>(tokens_) / step_seconds_ : 0.0);
    summary.set("train_loss_first", curve_.mean(false)).set("train_loss_last", curve_.mean(true));
    if (options_.eval_data) {
      summary.set("eval_loss_first", first_eval_loss_).set("eval_loss", eval_loss_).set("leaks", leaks_.to_json());
    }
    summary.set("peak_memory_bytes", peak_memory());
    if (trainer_.trains_router()) {
      add_usage(summary);
      trainer_.save_to_bundle(options_.bundle, summary);
      event.path = options_.bundle;
    } else {
      event.path = join_path(options_.output_dir, "final_adapter");
      AtomicFolder folder(event.path);
      trainer_.adapter()->save(model_, folder.path());
      folder.commit();
    }
    write_file_atomic(summary_path(options_), summary.dump(1) + "\n");
    tell(event);
    return summary;
  }

  void add_usage(Json &summary) {
    Json usage = Json::array(), target = Json::array();
    for (const auto &router : trainer_.usage()) {
      Json row = Json::array();
      for (double share : router) row.push(share);
      usage.push(std::move(row));
    }
    for (float share : trainer_.target_usage()) target.push(static_cast<double>(share));
    summary.set("usage", std::move(usage)).set("target_usage", std::move(target)).set("usage_entropy", trainer_.alarms().usage_entropy);
  }

  Trainer &trainer_;
  const BaseModel &model_;
  const RunOptions &options_;
  const RunCallback &callback_;
  const Cancel *cancel_;
  std::string checkpoints_;
  FileLock lock_;
  AppendFile metrics_;
  std::unique_ptr<EventFile> events_;
  CurveEnds curve_;
  LeakReport leaks_;
  int64_t tokens_ = 0, evaluated_step_ = -1, saved_step_ = -1;
  bool stop_ = false;
  double step_seconds_ = 0, eval_loss_ = 0, first_eval_loss_ = 0;
};

}  // namespace

Json run_training(Trainer &trainer, const BaseModel &model, const RunOptions &options, const RunCallback &callback, const Cancel *cancel) {
  return Run(trainer, model, options, callback, cancel).run();
}

}  // namespace moe
