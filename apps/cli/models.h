// Opening what the options name: a base model, a bundle on its base model, adapters.
#pragma once
#include <string>

#include "cli/program.h"

namespace moe::cli {

// The base model of `model`; wrong usage without it.
Model load_base(const Context &context);

// The base model of a bundle: the option `model`, otherwise the path the bundle recorded, which is logged.
std::string base_path_of(const Context &context, const std::string &bundle);

// The bundle of `moe` on its base model when that option is set, otherwise the base model.
Model load_model(const Context &context);

// The one adapter of `adapter`, or nothing.
Lora load_adapter(const Context &context, const Model &model);

}  // namespace moe::cli
