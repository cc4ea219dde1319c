#include "eval/journal.h"

#include "base/error.h"

namespace moe {
namespace {

constexpr const char *kFormat = "libmoe.evaluation_progress";

template <class Number>
std::vector<Number> numbers_of(const Json &json, const char *key) {
  std::vector<Number> numbers;
  for (const Json &item : json.at(key, kFormat).items()) numbers.push_back(static_cast<Number>(item.number()));
  return numbers;
}

Json state_json(const EvalItem &item) {
  return Json::object({{"log_likelihood", Json::array_of(item.choice_log_likelihood)},
                       {"alone", Json::array_of(item.choice_log_likelihood_alone)},
                       {"nll", item.nll},
                       {"nll_tokens", item.nll_tokens},
                       {"generated", item.generated},
                       {"routing", Json::array_of(item.routing)},
                       {"layers", Json::array_of(item.layer_routing)},
                       {"routing_tokens", item.routing_tokens}});
}

void restore_state(const Json &json, EvalItem &item) {
  item.choice_log_likelihood = numbers_of<double>(json, "log_likelihood");
  item.choice_log_likelihood_alone = numbers_of<double>(json, "alone");
  item.nll = json.number_at("nll", kFormat);
  item.nll_tokens = json.integer_at("nll_tokens", kFormat);
  item.generated = json.string_at("generated", kFormat);
  item.routing = numbers_of<float>(json, "routing");
  item.layer_routing = numbers_of<float>(json, "layers");
  item.routing_tokens = json.integer_at("routing_tokens", kFormat);
}

}  // namespace

EvalJournal::EvalJournal(const std::string &path, const std::string &key, bool resume) {
  if (resume && file_exists(path)) read(path, key);
  if (units_.empty()) remove_tree(path);
  const bool begins = !file_exists(path);
  file_ = std::make_unique<AppendFile>(path);
  if (begins) file_->line(Json::object({{"format", kFormat}, {"key", key}}).dump());
}

void EvalJournal::read(const std::string &path, const std::string &key) {
  const std::string content = read_file(path);
  bool ours = false;
  for (size_t at = 0, end; at < content.size(); at = end + 1) {
    end = std::min(content.find('\n', at), content.size());
    Json line;
    try {
      line = Json::parse(std::string_view(content).substr(at, end - at), path);
    } catch (const Error &) {
      continue;
    }
    if (at == 0) ours = line.is_object() && line.string_or("key", "", path) == key;
    else if (ours && line.is_object() && line.find("items")) units_[line.string_at("unit", path)] = line.at("items", path);
  }
}

bool EvalJournal::restore(const std::string &unit, std::span<const size_t> group, std::vector<EvalItem> &items) const {
  const auto found = units_.find(unit);
  if (found == units_.end() || found->second.size() != group.size()) return false;
  for (size_t n = 0; n < group.size(); n++) restore_state(found->second.items()[n], items[group[n]]);
  return true;
}

void EvalJournal::keep(const std::string &unit, std::span<const size_t> group, const std::vector<EvalItem> &items) {
  Json states = Json::array();
  for (const size_t i : group) states.push(state_json(items[i]));
  file_->line(Json::object({{"unit", unit}, {"items", std::move(states)}}).dump());
}

}  // namespace moe
