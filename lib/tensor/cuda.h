// The CUDA backend, which lies in a shared object of its own so that one libmoe runs with and without CUDA.
#pragma once
#include <memory>
#include <string>

#include "tensor/backend.h"

namespace moe {

// device: "cuda" or "cuda:N". Code::invalid for other words; Code::unsupported when the shared object is missing or of another
// build; Code::device when it is the driver or the device that is missing. `file` is its name or path.
std::unique_ptr<Backend> open_cuda(const std::string &device, const std::string &file = "libmoe_cuda.so");

}  // namespace moe
