// A backend whose ops take memory of the host and run on a device: every array of a call is copied there, in allocations that end
// where the arrays end, and what the op wrote is copied back. So the op tests, which know nothing of devices, check one. Arrays
// of a call that overlap share an allocation; arrays that the op must not change are compared afterwards.
#pragma once
#include <functional>
#include <memory>

#include "tensor/backend.h"

namespace moe::test {

// `before_op` is called before each op.
std::unique_ptr<Backend> mirrored(std::unique_ptr<Backend> device, std::function<void()> before_op = {});

}  // namespace moe::test
