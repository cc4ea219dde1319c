// Opening the data that options name.
#pragma once
#include <memory>

#include "api/handles.h"

namespace moe::api {

std::shared_ptr<Dataset> open_dataset(const ModelCore &model, const Options &options, const Cancel *cancel);

}  // namespace moe::api
