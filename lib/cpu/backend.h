// The CPU backend: the ops of tensor/backend.h over a thread pool and the kernels of one instruction-set level.
#pragma once
#include <memory>

#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "tensor/backend.h"

namespace moe::cpu {

// A task cannot allocate: each thread owns a scratch block that only grows between tasks.
std::unique_ptr<Backend> make_backend(std::shared_ptr<ThreadPool> pool, const Kernels &kernels);

}  // namespace moe::cpu
