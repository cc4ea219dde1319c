// moe_eval_run and moe_perplexity: see moe.h.
#include <algorithm>
#include <chrono>
#include <optional>

#include "api/dataset_open.h"
#include "api/handles.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "data/leak.h"
#include "eval/evaluation.h"
#include "eval/journal.h"
#include "eval/report.h"

namespace moe::api {
namespace {

constexpr const char *kModelTypes[] = {"base", "lora", "uniform", "moe", "domain", "oracle"};

std::string name_of(const std::string &name, const std::string &path) {
  if (!name.empty()) return name;
  const std::string last = base_name(path);
  return last == "final_adapter" ? base_name(parent_path(path)) : last;
}

// The models that the options ask for, opened on the base.
class Models {
 public:
  Models(const ModelCore &model, const Options &options)
      : base_(model.base), options_(options), mixture_(model.mixture), bundle_path_(model.bundle_path) {
    const bool strict = options.flag("strict_base");
    for (const auto &[name, path] : options.named("adapter")) {
      adapters_.push_back({name_of(name, path), path, Adapter::load(*base_, path, strict)});
    }
    if (options.has("moe")) {
      bundle_path_ = options.text("moe");
      mixture_ = std::make_shared<Mixture>(load_bundle(*base_, bundle_path_, strict));
    }
    if (!mixture_ || !adapters_.empty()) return;  // a mixture brings its experts as the single adapters
    for (size_t i = 0; i < mixture_->experts.size(); i++) {
      const std::string &domain = mixture_->domains[i];
      adapters_.push_back({domain, bundle_path_ + "/adapters/" + domain, mixture_->experts[i]});
    }
  }

  std::vector<EvalModel> wanted() const {
    std::vector<std::string> types = options_.list("model_type");
    const bool all = std::find(types.begin(), types.end(), "all") != types.end();
    if (types.empty() || all) types = available(all);
    std::vector<EvalModel> models;
    for (const char *type : kModelTypes) {
      if (std::find(types.begin(), types.end(), type) != types.end()) add(type, models);
    }
    return models;
  }

 private:
  struct Named {
    std::string name, path;
    std::shared_ptr<Adapter> adapter;
  };

  std::vector<std::string> available(bool all) const {
    std::vector<std::string> types{"base"};
    if (!adapters_.empty()) types.push_back("lora");
    if (all && mixture_ && mixture_->router) types.push_back("uniform");
    if (mixture_) types.insert(types.end(), {"moe", "oracle"});
    return types;
  }

  void add(const std::string &type, std::vector<EvalModel> &models) const {
    if (type == "lora") {
      if (adapters_.empty()) fail(Code::invalid, "adapter: this option is needed for model_type lora");
      for (const Named &one : adapters_) models.push_back({one.name, type, one.path, one.adapter, nullptr, {}});
      return;
    }
    EvalModel model;
    model.name = model.type = type;
    model.path = type == "base" ? base_->path() : bundle_path_;
    if (type == "moe") model.mixture = need_mixture(type);
    if (type == "uniform") model.mixture = uniform_mixture(*need_mixture(type));
    if (type == "domain" || type == "oracle") model.by_domain = by_domain(type);
    models.push_back(std::move(model));
  }

  std::shared_ptr<Mixture> need_mixture(const std::string &type) const {
    if (!mixture_) fail(Code::invalid, "moe: this option is needed for model_type ", type);
    return mixture_;
  }

  // Named adapters, else the experts of the bundle.
  std::vector<std::pair<std::string, std::shared_ptr<Adapter>>> by_domain(const std::string &type) const {
    std::vector<std::pair<std::string, std::shared_ptr<Adapter>>> result;
    if (type == "oracle" || adapters_.empty()) {
      const auto mixture = need_mixture(type);
      for (size_t i = 0; i < mixture->domains.size(); i++) result.emplace_back(mixture->domains[i], mixture->experts[i]);
    } else {
      for (const Named &one : adapters_) result.emplace_back(one.name, one.adapter);
    }
    return result;
  }

  std::shared_ptr<const BaseModel> base_;
  const Options &options_;
  std::vector<Named> adapters_;
  std::shared_ptr<Mixture> mixture_;
  std::string bundle_path_;
};

// The one of the task's domain, or one without a name for all.
std::string fewshot_path(const Options &options, const std::string &domain) {
  std::string found;
  for (const auto &[name, path] : options.named("fewshot_data"))
    if (name == domain || (name.empty() && found.empty())) found = path;
  return found;
}

std::vector<EvalTask> eval_tasks(const Options &options) {
  std::vector<EvalTask> tasks;
  for (const auto &[domain, path] : options.named("tasks")) {
    std::string name = domain.empty() ? base_name(path) : domain;
    if (domain.empty()) name = name.substr(0, name.find('.'));
    tasks.push_back({name, path, schema_of(options), options.integer("limit"), fewshot_path(options, name)});
  }
  if (tasks.empty()) fail(Code::invalid, "tasks: this option is needed");
  return tasks;
}

// The tasks' rows that stand in the training data which the options name, if they do.
LeakReport training_leaks(const BaseModel &base, const Options &options, const std::vector<EvalTask> &tasks,
                          const EvalOptions &settings, const Cancel *cancel) {
  std::vector<DatasetSource> training;
  for (const auto &[domain, path] : options.named("data")) training.push_back({path, schema_of(options), domain});
  DatasetOptions how;
  how.max_length = settings.max_length;
  how.cancel = cancel;
  const auto chat = chat_of(base);
  const auto open = [&](const std::vector<DatasetSource> &sources) {
    return Dataset::open(sources, how, &base.require_tokenizer(), chat.get(), base.config().vocabulary);
  };
  const auto trained = open(training);
  LeakReport report;
  for (const EvalTask &task : tasks) {
    how.max_samples = task.limit > 0 ? task.limit + settings.num_fewshot : 0;
    report.add(find_leaks(*trained, *open({{task.path, task.schema, task.domain}}), cancel));
  }
  if (report.count() > 0) log(base.log(), LogLevel::warning, report.line());
  return report;
}

EvalOptions eval_options(const Options &options) {
  EvalOptions result;
  result.scoring = options.text("scoring");
  result.max_length = options.integer("max_length");
  if (options.has("max_new_tokens")) result.max_new_tokens = options.integer("max_new_tokens");
  result.num_fewshot = options.integer("num_fewshot");
  result.log_samples = options.flag("log_samples");
  result.memory_limit = static_cast<uint64_t>(options.integer("memory_limit"));
  result.allow_code_execution = options.flag("allow_code_execution");
  result.seed = static_cast<uint64_t>(options.integer("seed"));
  result.check();
  return result;
}

// A file with its hash; of a folder those of its files, one after another.
Json input_json(const std::string &path) {
  if (!folder_exists(path)) return Json::object({{"path", path}, {"sha256", file_exists(path) ? sha256_file(path) : ""}});
  std::string all;
  for (const std::string &name : list_folder(path)) {
    const std::string file = join_path(path, name);
    if (file_exists(file)) all += name + " " + sha256_file(file) + "\n";
  }
  return Json::object({{"path", path}, {"sha256", sha256_hex(all.data(), all.size())}});
}

Json run_json(const BaseModel &base, const std::string &bundle, const Options &options) {
  Json inputs = Json::array();
  for (const char *key : {"tasks", "adapter", "fewshot_data"})
    for (const auto &[name, path] : options.named(key)) inputs.push(input_json(path).set("name", name).set("option", key));
  if (!bundle.empty()) inputs.push(input_json(bundle).set("name", "").set("option", "moe"));
  return Json::object({{"library_version", MOE_VERSION_TEXT},
                       {"time", utc_now()},
                       {"command", options.command("moe-eval", "run")},
                       {"inputs", std::move(inputs)},
                       {"base_model", base.name()},
                       {"base_model_path", base.path()},
                       {"weights_fingerprint", base.weights_fingerprint()},
                       {"compute", base.inference_compute()},
                       {"options", options.resolved("run")}});
}

bool tell(moe_event_callback on_event, void *user, const std::string &model, const std::string &domain, int64_t done,
          int64_t total) {
  if (!on_event) return true;
  moe_event event{};
  event.struct_size = sizeof event;
  event.kind = MOE_EVENT_ITEM;
  event.done = done;
  event.total = total;
  event.name = model.c_str();
  event.domain = domain.c_str();
  return on_event(&event, user) == 0;
}

struct EvalOutcome {
  Json json;
  std::string table;
};

// Those of an earlier evaluation must not stand beside the results of another.
void write_samples(const std::string &folder, bool wanted, const std::vector<EvalResult> &results) {
  const std::pair<const char *, std::string (*)(const std::vector<EvalResult> &)> files[] = {
      {"evaluation_items.jsonl", evaluation_items}, {"evaluation_samples.jsonl", evaluation_samples}};
  for (const auto &[name, lines] : files) {
    const std::string path = join_path(folder, name);
    if (wanted) write_file_atomic(path, lines(results));
    else remove_tree(path);
  }
}

ReportInput report_input(const Json &evaluation, const std::vector<EvalResult> &results) {
  ReportInput input;
  input.evaluation = evaluation;
  input.items = json_lines(evaluation_items(results), "items");
  input.samples = json_lines(evaluation_samples(results), "samples");
  for (const std::string &folder : training_folders(evaluation)) input.training.push_back(read_training(folder));
  return input;
}

// Everything that the numbers depend on: the hashes of the inputs and the options, not where results go and how fast.
std::string journal_key(const Json &about, const Options &options, const std::vector<EvalModel> &models) {
  Json key = Json::array();
  for (const char *part : {"library_version", "weights_fingerprint", "compute", "inputs"}) key.push(about.at(part, "run"));
  for (const char *option : {"schema", "template", "limit", "num_fewshot", "fewshot_data", "scoring", "max_length", "max_new_tokens",
                             "allow_code_execution"})
    key.push(options.as_text(option));
  for (const EvalModel &model : models) key.push(model.type + "=" + model.name);
  const std::string all = key.dump();
  return sha256_hex(all.data(), all.size());
}

EvalOutcome run(const ModelCore &model, const Options &options, moe_event_callback on_event, void *user, const Cancel *cancel) {
  const EvalOptions settings = eval_options(options);
  const std::vector<EvalTask> tasks = eval_tasks(options);
  const std::vector<EvalModel> models = Models(model, options).wanted();
  const auto progress = [&](const std::string &name, const std::string &domain, int64_t done, int64_t total) {
    return tell(on_event, user, name, domain, done, total);
  };
  Json about = run_json(*model.base, options.has("moe") ? options.text("moe") : model.bundle_path, options);
  if (options.has("data")) about.set("leaks", training_leaks(*model.base, options, tasks, settings, cancel).to_json());
  const std::string folder = options.text("output_dir"), journal_path = join_path(folder, "evaluation_progress.jsonl");
  std::optional<EvalJournal> journal;
  if (!folder.empty()) {
    make_folders(folder);
    journal.emplace(journal_path, journal_key(about, options, models), options.flag("resume"));
    if (journal->units() > 0) log(model.base->log(), LogLevel::info, text(folder, ": goes on after ", journal->units(), " groups of items"));
  }
  const std::vector<EvalResult> results =
      evaluate(*model.base, models, tasks, settings, progress, cancel, journal ? &*journal : nullptr);
  EvalOutcome outcome{evaluation_json(results, settings, about), evaluation_table(results, settings)};
  if (!folder.empty()) {
    write_file_atomic(join_path(folder, "evaluation_results.json"), outcome.json.dump(2) + "\n");
    write_samples(folder, settings.log_samples, results);
    write_file_atomic(join_path(folder, "report.html"), report_html(report_input(outcome.json, results)));
    remove_tree(journal_path);
  }
  return outcome;
}

Json perplexity_json(const ModelCore &model, const LoraCore *lora, std::string_view text, const Options &options,
                     const Cancel *cancel) {
  Overlay overlay;
  if (lora) overlay.adapter = lora->adapter.get();
  else if (model.mixture && !model.mixture->router)
    fail(Code::state, "moe_perplexity: a bundle with domain gating needs the adapter of a domain");
  else overlay.mixture = model.mixture.get();
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> tokens = model.base->require_tokenizer().encode(text);
  const PerplexityResult result =
      perplexity(*model.base, overlay, tokens, options.integer("window"), options.integer("stride"), cancel);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return Json::object({{"perplexity", result.perplexity},
                       {"mean_nll", result.mean_nll},
                       {"tokens", result.tokens},
                       {"tokens_scored", result.tokens_scored},
                       {"window", result.window},
                       {"stride", result.stride},
                       {"seconds", seconds}});
}

std::string make_report(const Options &options) {
  const std::string results = options.text("results");
  const std::vector<std::string> training = options.list("training");
  if (results.empty() && training.empty()) fail(Code::invalid, "results or training: one of these options is needed");
  std::string html = report_html(read_report_input(results, training));
  if (const std::string output = options.text("output"); !output.empty()) write_file_atomic(output, html);
  return html;
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_eval_run(const moe_model *base, const moe_options *options, moe_event_callback on_event, void *user,
                     moe_cancel_token *cancel, moe_text **results, moe_text **table, moe_error *error) {
  return fence(error, [&] {
    if (results) *results = nullptr;
    if (table) *table = nullptr;
    const auto core = core_of(base, "moe_model");
    const auto token = cancel_core(cancel);
    EvalOutcome outcome = run(*core, *OptionsOf(options), on_event, user, cancel_of(token));
    if (results) *results = new_json(outcome.json);
    if (table) *table = new_text(std::move(outcome.table));
  });
}

int32_t moe_eval_report(const moe_options *options, moe_text **html, moe_error *error) {
  return fence(error, [&] {
    if (html) *html = nullptr;
    std::string page = make_report(*OptionsOf(options));
    if (html) *html = new_text(std::move(page));
  });
}

int32_t moe_perplexity(const moe_model *model, const moe_lora *lora, const char *text, size_t length, const moe_options *options,
                       moe_cancel_token *cancel, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto core = core_of(model, "moe_model");
    const auto adapter = lora ? core_of(lora, "moe_lora") : nullptr;
    if (adapter && adapter->base != core->base) moe::fail(moe::Code::invalid, "moe_lora: it was made on another model");
    const Reading reading(adapter ? &adapter->use : nullptr, "moe_lora");
    const auto token = cancel_core(cancel);
    *out = new_json(perplexity_json(*core, adapter.get(), content(text, length, "text"), *OptionsOf(options), cancel_of(token)));
  });
}

}  // extern "C"
