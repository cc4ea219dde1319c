// What a file or folder of a model, adapter, bundle or checkpoint holds, as JSON, without loading weights.
#pragma once
#include <string>

#include "base/json.h"

namespace moe {

// {"kind": "gguf" | "safetensors" | "model" | "adapter" | "bundle" | "checkpoint", "path", ...}. Code::format when it is none.
Json inspect(const std::string &path);

}  // namespace moe
