// How an op is measured: short samples, each between two measurements of the machine's limit on the same threads, because a
// virtual machine changes its speed from second to second. Reported (medians over the samples): the time of one call and
//
//   rate         operations (bytes, where reading is the limit) a second, in units of 1e9
//   limit        what this machine reached just then, in the same unit; the label says of what
//   share        time that the limit alone would take / time taken
//   handoff_ns   one way from thread to thread: about 30 ns under one L3 cache, 150 ns between two
//   dropped      samples left out because both threads shared one physical core or another program had it: two threads together
//                reached less than 1.3 of one
#pragma once
#include <benchmark/benchmark.h>

#include <functional>
#include <memory>
#include <string>

#include "moe-eval/peak.h"
#include "tensor/backend.h"

namespace moe::bench {

using cli::Limit;

// What one call of an op must do at least: operations of a kind, and bytes that have to come from memory. The one that takes
// longer at the machine's rate is the limit.
struct Work {
  double operations = 0;
  Limit kind = Limit::f32;
  double bytes = 0;
};

// The faster of f32 multiply-adds and bf16 dot products (in tiles where there are): either computes products of bf16 activations.
Limit bf16_products();

std::unique_ptr<Backend> make_backend(int threads);

// Runs op many times and reports as above; without figures when every sample had to be dropped.
void sample(benchmark::State &state, int threads, const Work &work, const std::function<void()> &op);

// Registers `body(state)` under this name, once; the time that counts is the one `sample` sets.
void add(const std::string &name, std::function<void(benchmark::State &)> body);

// The benchmarks of each file.
void add_products();
void add_attention();
void add_cross_entropy();
void add_rows();

}  // namespace moe::bench
