// All measures of one model on the held-out rows of one task.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "eval/held_out.h"
#include "model/mixture.h"

namespace moe {

// What a model runs on one domain.
struct EvalWeights {
  std::shared_ptr<Adapter> adapter;
  std::shared_ptr<Mixture> mixture;
  Overlay overlay() const { return {adapter.get(), mixture.get()}; }
  bool operator==(const EvalWeights &) const = default;
};

// What all models of a task have in common.
struct RunSetting {
  const BaseModel &model;
  const HeldOut &task;
  const EvalOptions &options;
  uint64_t memory = 0;                      // bytes for passes, 0 = no limit
  const CodeRunner *code_runner = nullptr;  // with code tests
  EvalJournal *journal = nullptr;
  const Cancel *cancel = nullptr;
};

using RunProgress = std::function<bool(int64_t done, int64_t total)>;  // item evaluations; false cancels

// One result for each evaluation type; the first carries the loss. `label`: of the weights, in the journal.
std::vector<EvalResult> run_model(const RunSetting &setting, const EvalWeights &weights, const std::string &label,
                                  const RunProgress &progress);

}  // namespace moe
