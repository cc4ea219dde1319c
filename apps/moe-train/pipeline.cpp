// moe-train pipeline: the adapters of all domains, one adapter on all of them, the bundle, its router, the evaluation
// (docs/pipeline.md). A stage that was made from equal options and inputs is not made again; one that was interrupted goes on from
// its checkpoint.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cli/item_progress.h"
#include "moe-train/experiment.h"
#include "moe-train/pipeline_config.h"
#include "moe-train/pipeline_state.h"
#include "moe-train/training.h"
#include "moe-train/verbs.h"

namespace moe::cli {
namespace {

// Options that do not change a result: paths (their content counts), speed, and what is logged.
bool counts(const std::string &key) {
  constexpr const char *kNot[] = {"model",        "moe",          "adapter",       "adapters",   "adapters_dir",     "data",
                                  "eval_data",    "init_adapter", "router",        "tasks",      "output_dir",       "threads",
                                  "resume",       "memory_limit", "logging_steps", "save_steps", "save_total_limit", "eval_steps",
                                  "validate_only", "data_memory",  "experiment"};
  return std::none_of(std::begin(kNot), std::end(kNot), [&](const char *one) { return key == one; });
}

void make_folder(const std::string &path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (mkdir(part.c_str(), 0777) != 0 && errno != EEXIST) throw Failure(kFailed, part + ": " + std::strerror(errno));
    if (end == std::string::npos) return;
  }
}

class Pipeline {
 public:
  Pipeline(const Context &context, const PipelineConfig &config) : context_(context), config_(config), state_(config.folder()) {}

  int run() {
    for (const std::string &domain : config_.domains()) adapter(domain);
    if (config_.has_joint()) make_adapter("joint", config_.joint(), {"evaluate"});
    build();
    if (config_.has_router()) router();
    evaluate();
    if (context_.command.json) {
      const Json json = Json::object({{"output_dir", config_.folder()}, {"stages", outcome_}, {"evaluation", results_}});
      context_.console.print(json.dump(2) + "\n");
    }
    return kDone;
  }

 private:
  // ---- what a stage is made from ----

  Json material(const Options &options, const char *verb, Json inputs) const {
    Json values = resolved(options, verb);
    const Json all = values;
    for (const auto &[key, value] : all.members()) {
      if (!counts(key)) values.erase(key);
    }
    return Json::object({{"options", std::move(values)}, {"inputs", std::move(inputs)}});
  }

  // {"data": {"medical": [sha256, ...]}} of the files of list options.
  Json hashes(const Options &options, std::initializer_list<const char *> keys) const {
    Json inputs = Json::object();
    for (const char *key : keys) {
      Json files = Json::array();
      for (const auto &[name, path] : named(options, key)) files.push(name + "=" + sha256_of(path));
      inputs.set(key, std::move(files));
    }
    return inputs;
  }

  std::vector<std::string> later_stages(bool with_build) const {
    return with_build ? std::vector<std::string>{"build", "router", "evaluate"} : std::vector<std::string>{"router", "evaluate"};
  }

  bool skip(const std::string &stage, const Json &material, const std::string &result) {
    if (!state_.finished(stage, material, result)) {
      const std::string changes = state_.changes(stage, material);
      context_.console.note("== " + stage + (changes.empty() ? "" : " (changed: " + changes + ")"));
      outcome_.set(stage, "made");
      return false;
    }
    context_.console.note("== " + stage + ": up to date");
    outcome_.set(stage, "up to date");
    return true;
  }

  // A run that was interrupted goes on. Checkpoints of another one are removed before the new material is recorded.
  void resume_or_clear(const Options &options, const std::string &stage, const Json &material) const {
    const bool resume = state_.begun(stage, material);
    set(options, "resume", resume ? "true" : "false");
    if (!resume) std::filesystem::remove_all(get(options, "output_dir") + "/checkpoints");
  }

  const Model &base() {
    if (base_) return base_;
    const Options options = config_.adapter(config_.domains()[0]);
    const std::string path = get(options, "model");
    call(moe_model_load, path.c_str(), options.get(), context_.cancel, base_.out());
    return base_;
  }

  std::string fingerprint() { return moe_model_weights_fingerprint(base().get()); }

  // ---- the stages ----

  void adapter(const std::string &domain) {
    make_adapter("adapters/" + domain, config_.adapter(domain), later_stages(true));
  }

  void make_adapter(const std::string &stage, const Options &options, const std::vector<std::string> &later) {
    const std::string folder = get(options, "output_dir"), result = folder + "/final_adapter";
    Json inputs = hashes(options, {"data", "eval_data"});
    inputs.set("base_model", fingerprint());
    const std::string start = get(options, "init_adapter");
    if (!start.empty()) inputs.set("init_adapter", sha256_of(start));
    const Json made_from = material(options, "lora", std::move(inputs));
    if (skip(stage, made_from, result)) return;
    make_folder(folder);
    resume_or_clear(options, stage, made_from);
    state_.begin(stage, made_from, later);
    tell(stage, train_adapter(context_, options, base()));
    state_.finish(stage, result);
  }

  Json build_material(const Options &options) {
    Json inputs = hashes(options, {"adapters"});
    inputs.set("base_model", fingerprint());
    const std::string start = get(options, "router");
    if (!start.empty()) inputs.set("router", sha256_of(start));
    return material(options, "build", std::move(inputs));
  }

  std::string router_file() const { return config_.bundle() + "/router.safetensors"; }
  std::string experts_folder() const { return config_.bundle() + "/adapters"; }
  std::string hash(const std::string &path) const { return file_exists(path) ? sha256_of(path) : ""; }
  std::string bundle_hash() const { return hash(config_.bundle() + "/moe_config.json"); }  // it holds the hashes of all others

  void build() {
    const Options options = config_.build();
    const Json made_from = build_material(options);
    if (!skip("build", made_from, experts_folder())) make_bundle(options, made_from);
  }

  void make_bundle(const Options &options, const Json &made_from) {
    state_.begin("build", made_from, later_stages(false));
    const auto *model = base().get();
    call(moe_bundle_build, model, options.get(), nullptr);
    state_.finish("build", experts_folder(),
                  Json::object({{"router_sha256", hash(router_file())},
                                {"adapters_sha256", hash(experts_folder())},
                                {"config_sha256", bundle_hash()}}));
  }

  void router() {
    const Options options = config_.router();
    Json inputs = hashes(options, {"data", "eval_data"});
    inputs.set("bundle", state_.built("adapters_sha256")).set("start", state_.built("router_sha256"));
    const Json made_from = material(options, "router", std::move(inputs));
    if (skip("router", made_from, router_file())) return;
    resume_or_clear(options, "router", made_from);
    if (bundle_hash() != state_.built("config_sha256")) {  // trained before: begin from what was built again
      const Options again = config_.build();
      make_bundle(again, build_material(again));
      outcome_.set("build", "made");
    }
    state_.begin("router", made_from, {"evaluate"});
    const Model bundle = open_bundle(options);
    tell("router", train_router(context_, options, bundle));
    state_.result_changed("build", experts_folder());
    state_.finish("router", router_file());
  }

  Model open_bundle(const Options &options) {
    Model bundle;
    call(moe_model_open_bundle, base().get(), config_.bundle().c_str(), options.get(), bundle.out());
    return bundle;
  }

  void evaluate() {
    const Options options = config_.evaluation();
    if (list(options, "tasks").empty()) return context_.console.note("== evaluate: no domain has 'tasks'; left out");
    const std::string result = config_.results();
    Json inputs = hashes(options, {"tasks", "data", "adapter"});
    inputs.set("base_model", fingerprint()).set("router", hash(router_file())).set("experts", hash(experts_folder()));
    const Json made_from = material(options, "run", std::move(inputs));
    if (skip("evaluate", made_from, result)) {
      results_ = Json::parse(read_file(result), result);
      return;
    }
    state_.begin("evaluate", made_from, {});
    set(options, "resume", "true");  // as far as what it left is of the same evaluation
    Text results, table;
    ItemProgress progress(context_.console);
    call(moe_eval_run, base().get(), options.get(), &ItemProgress::on_event, &progress, context_.cancel, results.out(), table.out());
    context_.console.end_progress();
    results_ = Json::parse(view(results), "results");
    if (!context_.command.json) context_.console.print(view(table));
    state_.finish("evaluate", result);
  }

  void tell(const std::string &stage, const Json &summary) {
    if (context_.command.json) return;
    context_.console.print(format("%s: loss %.4f -> %.4f, %.0f steps, %.0f tokens/s\n", stage.c_str(),
                                  summary.at("train_loss_first").number(), summary.at("train_loss_last").number(),
                                  summary.at("steps").number(), summary.at("tokens_per_s").number()));
    context_.console.flush();
  }

  const Context &context_;
  const PipelineConfig &config_;
  PipelineState state_;
  Model base_;
  Json outcome_ = Json::object(), results_;
};

void print_config(const Context &context, const PipelineConfig &config) {
  Json all = Json::object();
  for (const std::string &domain : config.domains()) all.set("adapters/" + domain, resolved(config.adapter(domain), "lora"));
  if (config.has_joint()) all.set("joint", resolved(config.joint(), "lora"));
  all.set("build", resolved(config.build(), "build"));
  if (config.has_router()) all.set("router", resolved(config.router(), "router"));
  all.set("evaluate", resolved(config.evaluation(), "run"));
  context.console.print(all.dump(2) + "\n");
}

}  // namespace

int run_pipeline(Context &context) {
  const PipelineConfig config(context);
  if (context.command.print_config) return print_config(context, config), kDone;
  for (const std::string &domain : config.domains()) config.adapter(domain);  // wrong usage shows before hours of work
  if (config.has_joint()) config.joint();
  config.build(), config.router(), config.evaluation();
  make_folder(config.folder());
  const Experiment experiment(context, config.experiment(), config.folder());
  const int status = Pipeline(context, config).run();
  experiment.report(file_exists(config.results()) ? config.evaluation_folder() : "", config.training_folders());
  return status;
}

}  // namespace moe::cli
