// What a file or folder of a model, adapter, bundle or checkpoint, or a Parquet file holds, as JSON, without loading weights or rows.
#pragma once
#include <string>

#include "base/json.h"

namespace moe {

// {"kind": "gguf" | "safetensors" | "model" | "adapter" | "bundle" | "checkpoint" | "parquet", "path", ...}. Code::format when it is none.
Json inspect(const std::string &path);

}  // namespace moe
