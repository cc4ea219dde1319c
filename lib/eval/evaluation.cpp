#include "eval/evaluation.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"
#include "eval/model_run.h"
#include "eval/routing_trace.h"

namespace moe {
namespace {

EvalWeights weights_on(const EvalModel &model, const std::string &domain) {
  if (model.type == "lora") return {model.adapter, nullptr};
  if (model.type == "uniform" || (model.type == "moe" && model.mixture->router)) return {nullptr, model.mixture};
  if (model.type == "moe") {
    const std::vector<std::string> &domains = model.mixture->domains;
    const auto found = std::find(domains.begin(), domains.end(), domain);
    return {found == domains.end() ? nullptr : model.mixture->experts[static_cast<size_t>(found - domains.begin())], nullptr};
  }
  for (const auto &[name, adapter] : model.by_domain)
    if (name == domain) return {adapter, nullptr};
  return {};
}

void check_tasks(const std::vector<EvalTask> &tasks) {
  if (tasks.empty()) fail(Code::invalid, "there is no task to evaluate on");
  for (const EvalTask &task : tasks) {
    const auto same = [&](const EvalTask &other) { return other.domain == task.domain; };
    if (std::count_if(tasks.begin(), tasks.end(), same) > 1) fail(Code::invalid, "two tasks have the domain '", task.domain, "'");
    if (task.limit < 0) fail(Code::invalid, "limit is ", task.limit, ", expected 0 (all rows) or more");
  }
}

void check_models(const std::vector<EvalModel> &models) {
  if (models.empty()) fail(Code::invalid, "there is no model to evaluate");
  for (const EvalModel &model : models) {
    constexpr const char *kTypes[] = {"base", "lora", "uniform", "moe", "oracle", "domain"};
    if (std::none_of(std::begin(kTypes), std::end(kTypes), [&](const char *type) { return model.type == type; }))
      fail(Code::invalid, "model '", model.name, "': type '", model.type,
           "', expected base, lora, uniform, moe, oracle or domain");
    if (model.type == "lora" && !model.adapter) fail(Code::invalid, "model '", model.name, "': type lora without an adapter");
    if ((model.type == "moe" || model.type == "uniform") && !model.mixture)
      fail(Code::invalid, "model '", model.name, "': type ", model.type, " without a mixture");
    const auto same = [&](const EvalModel &other) { return other.name == model.name; };
    if (std::count_if(models.begin(), models.end(), same) > 1) fail(Code::invalid, "two models have the name '", model.name, "'");
  }
}

// What the limit leaves for passes when the weights of all models are there; 0 = no limit.
uint64_t pass_memory(const BaseModel &model, const std::vector<EvalModel> &models, uint64_t limit) {
  if (limit == 0) return 0;
  std::set<const Adapter *> adapters;
  std::set<const Router *> routers;
  for (const EvalModel &column : models) {
    if (column.adapter) adapters.insert(column.adapter.get());
    for (const auto &[domain, adapter] : column.by_domain) adapters.insert(adapter.get());
    if (!column.mixture) continue;
    for (const auto &expert : column.mixture->experts) adapters.insert(expert.get());
    if (column.mixture->router) routers.insert(column.mixture->router.get());
  }
  uint64_t parameters = 0;
  for (const Adapter *adapter : adapters) parameters += adapter->size();
  for (const Router *router : routers) parameters += router->size();
  const uint64_t held = model.weight_bytes() + parameters * sizeof(float) + model.backend().scratch_bytes({});
  if (held >= limit) {
    fail(Code::no_memory, "memory_limit: ", limit, " bytes are allowed, but weights, adapters and kernel scratch take ", held);
  }
  return limit - held;
}

// The text of an item as its loss reads it, or as far as it is there.
std::span<const int32_t> tokens_of(const HeldOutItem &item) {
  if (!item.sequences.empty()) return item.sequences.front().tokens;
  if (!item.question.choices.empty()) return item.question.choices[static_cast<size_t>(item.question.routed)].tokens;
  return item.prompt_tokens;
}

}  // namespace

void EvalOptions::check() const {
  if (scoring != "likelihood" && scoring != "generation" && scoring != "both") {
    fail(Code::invalid, "scoring is '", scoring, "', expected likelihood, generation or both");
  }
  if (max_length < 2) fail(Code::invalid, "max_length is ", max_length, ", expected at least 2");
  if (max_new_tokens < 1) fail(Code::invalid, "max_new_tokens is ", max_new_tokens, ", expected at least 1");
  if (num_fewshot < 0) fail(Code::invalid, "num_fewshot is ", num_fewshot, ", expected 0 or more");
  if (allow_code_execution && scoring == "likelihood")
    fail(Code::invalid, "allow_code_execution: scoring is 'likelihood', expected generation or both");
}

std::shared_ptr<Mixture> uniform_mixture(const Mixture &mixture) {
  if (!mixture.router) fail(Code::invalid, "uniform mixing: the bundle has no router to replace (gating domain)");
  RouterConfig config = mixture.router->config();
  config.top_k = config.entries();
  config.form = GateForm::delta;
  config.temperature = 1;
  auto uniform = std::make_shared<Mixture>(mixture);
  uniform->router = Router::create(config, 0);
  std::ranges::fill(uniform->router->parameters(), 0.0f);
  for (const Router::Entry &entry : uniform->router->entries())
    if (entry.key.ends_with(".bias")) uniform->router->parameters()[entry.offset] = -1e4f;  // the base: its probability is 0
  return uniform;
}

std::vector<EvalResult> evaluate(const BaseModel &model, const std::vector<EvalModel> &models, const std::vector<EvalTask> &tasks,
                                 const EvalOptions &options, const EvalProgress &progress, const Cancel *cancel,
                                 EvalJournal *journal) {
  options.check();
  check_models(models);
  check_tasks(tasks);
  const uint64_t memory = pass_memory(model, models, options.memory_limit);
  std::optional<CodeRunner> code_runner;
  if (options.allow_code_execution) code_runner.emplace(ProcessLimits(), cancel);
  std::vector<EvalResult> all;
  for (const EvalTask &task : tasks) {
    const HeldOut held_out = read_held_out(model, task, options);
    const RunSetting setting = {model, held_out, options, memory, code_runner ? &*code_runner : nullptr, journal, cancel};
    std::vector<std::pair<EvalWeights, std::vector<EvalResult>>> computed;
    for (const EvalModel &column : models) {
      const EvalWeights weights = weights_on(column, task.domain);
      auto known = std::find_if(computed.begin(), computed.end(), [&](const auto &one) { return one.first == weights; });
      if (known == computed.end()) {
        const auto report = [&](int64_t done, int64_t total) {
          return !progress || progress(column.name, task.domain, done, total);
        };
        known = computed.insert(computed.end(), {weights, run_model(setting, weights, column.name, report)});
        if (column.type == "moe" && weights.mixture && options.traces > 0) {
          std::vector<RoutingTrace> &traces = known->second.front().traces;
          for (size_t i = 0; i < std::min<size_t>(held_out.items.size(), static_cast<size_t>(options.traces)); i++)
            traces.push_back(trace_routing(model, *weights.mixture, held_out.items[i].id, tokens_of(held_out.items[i]), cancel));
        }
      }
      for (EvalResult result : known->second) {
        result.model_name = column.name;
        result.model_type = column.type;
        result.model_path = column.path;
        all.push_back(std::move(result));
      }
    }
  }
  return all;
}

}  // namespace moe
