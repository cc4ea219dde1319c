// Opening the data that options name.
#pragma once
#include <memory>

#include "api/handles.h"

namespace moe::api {

// The schema option with the frame of the template option (data/prompt_frame.h).
std::string schema_of(const Options &options);
std::shared_ptr<Dataset> open_dataset(const ModelCore &model, const Options &options, const Cancel *cancel);

}  // namespace moe::api
