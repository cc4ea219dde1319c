// moe_dataset_*: see moe.h.
#include <algorithm>
#include <charconv>
#include <map>

#include "api/dataset_open.h"
#include "data/preview.h"

namespace moe::api {
namespace {

// Router entry of a domain's rows: an index of the bundle's domains, 0 = "base", -1 without a name.
int32_t entry_of(const ModelCore &model, const std::string &domain) {
  if (!model.mixture || domain.empty()) return -1;
  if (domain == "base") return 0;
  const auto &domains = model.mixture->domains;
  const auto found = std::find(domains.begin(), domains.end(), domain);
  if (found != domains.end()) return static_cast<int32_t>(found - domains.begin()) + 1;
  std::string known = "base";
  for (const std::string &name : domains) known += ", " + name;
  fail(Code::invalid, "data: expected a domain of the bundle (", known, "), found '", domain, "'");
}

// "domain=weight" of every domain to its sources.
void set_weights(const Options &options, std::vector<DatasetSource> &sources) {
  std::map<std::string, double> weights;
  for (const auto &[domain, text] : options.named("data_weights")) {
    double weight = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), weight);
    if (error != std::errc() || end != text.data() + text.size() || !(weight > 0 && weight <= 1e9))
      fail(Code::invalid, "data_weights: expected domain=weight with a weight above 0, found '", domain, "=", text, "'");
    if (!weights.try_emplace(domain, weight).second) fail(Code::invalid, "data_weights: the domain '", domain, "' is named twice");
  }
  for (const auto &[domain, weight] : weights)
    if (std::none_of(sources.begin(), sources.end(), [&](const DatasetSource &source) { return source.domain == domain; }))
      fail(Code::invalid, "data_weights: no data has the domain '", domain, "'");
  for (DatasetSource &source : sources) {
    const auto found = weights.find(source.domain);
    if (found != weights.end()) source.weight = found->second;
    else if (!weights.empty()) fail(Code::invalid, "data_weights: the domain '", source.domain, "' has no weight; expected one for each");
  }
}

}  // namespace

std::string schema_of(const Options &options) {
  const std::string frame = options.text("template");
  return options.text("schema") + (frame == "own" ? "" : "@" + frame);
}

std::shared_ptr<Dataset> open_dataset(const ModelCore &model, const Options &options, const Cancel *cancel) {
  if (options.text("template") == "unseen") fail(Code::invalid, "template: unseen is for evaluation, expected own or common");
  std::vector<DatasetSource> sources;
  for (const auto &[domain, path] : options.named("data")) {
    sources.push_back({path, schema_of(options), domain, entry_of(model, domain)});
  }
  if (sources.empty()) fail(Code::invalid, "data: this option is needed");
  set_weights(options, sources);
  DatasetOptions settings;
  settings.memory = static_cast<uint64_t>(options.integer("data_memory"));
  settings.max_length = options.integer("max_length");
  settings.max_samples = options.integer("max_samples");
  settings.seed = static_cast<uint64_t>(options.integer("seed"));
  settings.cancel = cancel;
  const BaseModel &base = *model.base;
  settings.why_no_tokenizer = base.why_no_tokenizer();
  return Dataset::open(sources, settings, base.tokenizer(), chat_of(base).get(), base.config().vocabulary);
}

namespace {

std::shared_ptr<DatasetCore> dataset_core(std::shared_ptr<const BaseModel> base, std::shared_ptr<Dataset> data) {
  auto core = std::make_shared<DatasetCore>();
  core->base = std::move(base);
  core->data = std::move(data);
  core->size = core->data->size();
  return core;
}

std::string preview(const ModelCore *model, const Options &options) {
  const int64_t head = options.integer("head");
  std::string lines;
  for (const auto &[domain, path] : options.named("data")) {
    for (const std::string &file : data_files(path)) {
      if (options.flag("raw")) {
        lines += preview_rows(file, head, options.flag("types"));
        continue;
      }
      const std::unique_ptr<ChatRenderer> chat = model ? chat_of(*model->base) : nullptr;
      const PreviewOptions how{schema_of(options), head, options.integer("show_skipped"), options.integer("max_length")};
      lines += preview_examples(file, how, model ? model->base->tokenizer() : nullptr, chat.get());
    }
  }
  if (!options.has("data")) fail(Code::invalid, "data: this option is needed");
  return lines;
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_dataset_open(const moe_model *model, const moe_options *options, moe_cancel_token *cancel, moe_dataset **out,
                         moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto core = core_of(model, "moe_model");
    const auto token = cancel_core(cancel);
    *out = make_handle<moe_dataset>(dataset_core(core->base, open_dataset(*core, *OptionsOf(options), cancel_of(token))));
  });
}

int64_t moe_dataset_size(const moe_dataset *data) {
  const DatasetCore *core = peek(data);
  return core ? core->size.load() : 0;
}

int32_t moe_dataset_report(const moe_dataset *data, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_json(core_of(data, "moe_dataset")->data->report());
  });
}

int32_t moe_dataset_split(moe_dataset *data, double fraction, moe_dataset **validation, moe_error *error) {
  return fence(error, [&] {
    required_out(validation, "validation");
    const auto core = core_of(data, "moe_dataset");
    const Writing writing(core->use, "moe_dataset");
    if (core->in_training) moe::fail(moe::Code::state, "moe_dataset_split: a trainer uses the data set already");
    *validation = make_handle<moe_dataset>(dataset_core(core->base, core->data->take_validation(fraction)));
    core->size = core->data->size();
  });
}

int32_t moe_dataset_preview(const moe_model *model, const moe_options *options, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto core = model ? core_of(model, "moe_model") : nullptr;
    *out = new_text(preview(core.get(), *OptionsOf(options)));
  });
}

void moe_dataset_free(moe_dataset **data) { free_handle(data); }

}  // extern "C"
