// What the verbs that train have in common: opening data, running a trainer with progress, and the summary.
#pragma once
#include <optional>

#include "cli/models.h"

namespace moe::cli {

struct TrainingData {
  Dataset training, held_out;  // held_out may be empty
};

// Data of `data`, and of `eval_data` or the share `validation_split` of it. `model` may be a bundle: then the names are its
// domains.
TrainingData open_data(const Context &context, const Options &options, const Model &model);

// An adapter run (J1) with output in `output_dir`; the summary of the run.
Json train_adapter(const Context &context, const Options &options, const Model &base);

// A router run (J3): starts from the bundle's router and ends with the trained one in the bundle.
Json train_router(const Context &context, const Options &options, const Model &bundle);

// With `resume`: the summary of a run in `output_dir` that is finished. Failure when it was made with other options for `verb`
// that change its result.
std::optional<Json> finished_run(const Options &options, const char *verb, const std::string &domain);

// The lines for people, or with --json the summary itself.
void print_summary(const Context &context, const Json &summary, const std::string &result);

}  // namespace moe::cli
