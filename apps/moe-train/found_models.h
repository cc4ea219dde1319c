// What a user has to work with: base models in the folder of scripts/get-models, and the adapters and the bundle that earlier
// runs left below the working folder under their default names.
#pragma once
#include <string>

#include "cli/json_text.h"

namespace moe::cli {

// MOE_MODELS_DIR, else <cache of the user>/libmoe/models; "" without a home.
std::string models_folder();

// [{"kind", "path", and what is known: "family", "parameters", "bytes", "base_model", "domains", or "error"}]
Json found_models();

}  // namespace moe::cli
