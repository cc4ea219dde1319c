// What the calls on a trainer share.
#pragma once
#include <optional>

#include "api/handles.h"

namespace moe::api {

// A step changes the trainer, the weights that are trained and the place in the data: nobody else may use them meanwhile.
class TrainingUse {
 public:
  explicit TrainingUse(TrainerCore &core);

 private:
  Writing trainer_, weights_;
  std::optional<Writing> data_;
};

moe_step step_struct(const StepReport &report);
// Code::invalid unless `router` can stand where `other` does.
void check_router_fits(const Router &router, const Router &other);

}  // namespace moe::api
