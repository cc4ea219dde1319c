// The mixture's own ops of the backend: they are queued without a wait, and long batches are taken in pieces.
#include <gtest/gtest.h>

#include "cpu/mixture_problem.h"
#include "cuda/cuda_backend.h"
#include "cuda/visits.h"
#include "cuda_host/host.h"
#include "support/mirrored_backend.h"

namespace moe::test {
namespace {

using namespace mixture;
using cuda::CudaBackend;

// Counts what the host waits for while the device's op runs on arrays that lie there.
class CountingBackend final : public CudaBackend {
 public:
  CountingBackend() : CudaBackend(0) {}
  void ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0, Rows hbar,
                   Rows y) override {
    count([&] {
      if (composite) Backend::ffn_mixture(shape, experts, u, a0, b0, hbar, y);
      else CudaBackend::ffn_mixture(shape, experts, u, a0, b0, hbar, y);
    });
  }
  void ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                            Rows dhbar, Rows delta, Rows da0, Rows db0, Rows du, float *dgates) override {
    count([&] {
      if (composite) Backend::ffn_mixture_backward(shape, experts, u, a0, b0, dhbar, delta, da0, db0, du, dgates);
      else CudaBackend::ffn_mixture_backward(shape, experts, u, a0, b0, dhbar, delta, da0, db0, du, dgates);
    });
  }
  void projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y, Store store,
                  float *scratch) override {
    count([&] { CudaBackend::projection(tokens, x, w, bias, terms, y, store, scratch); });
  }
  void projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx, Store store,
                           float *scratch) override {
    count([&] { CudaBackend::projection_backward(tokens, x, w, terms, dy, dx, store, scratch); });
  }

  bool composite = false;
  uint64_t calls = 0, waits = 0;

 private:
  template <class Op>
  void count(Op op) {
    const uint64_t before = cuda_host::statistics().waits;
    op();
    waits += cuda_host::statistics().waits - before;
    calls++;
  }
};

struct CudaMixture : testing::Test {
  CudaMixture() {
    auto device = std::make_unique<CountingBackend>();
    counting = device.get();
    backend = mirrored(std::move(device), nullptr);
  }
  ~CudaMixture() override {
    cuda_host::set_strict(false);
    cuda_host::set_async(false);
  }
  CountingBackend *counting;
  std::unique_ptr<Backend> backend;
};

TEST_F(CudaMixture, WaitsForNothing) {
  cuda_host::set_strict(true);
  cuda_host::set_async(true);
  Problem p({40, 37, 53, {{16, 4, 2}, {0, 0, 0}, {1, 0, 4}}, Activation::silu, DType::bf16});
  const Outputs own = forward(*backend, p);
  const Gradients own_gradients = backward(*backend, p, true);
  EXPECT_EQ(counting->calls, 2u);
  EXPECT_EQ(counting->waits, 0u);
  // The default, for devices without ops of their own, waits for the list of the tokens that select an expert.
  counting->composite = true;
  const Outputs composite = forward(*backend, p);
  const Gradients gradients = backward(*backend, p, true);
  EXPECT_EQ(counting->calls, 4u);
  EXPECT_GT(counting->waits, 0u);
  EXPECT_LT(nmse(doubles(composite.y), own.y.values()), tolerance(DType::f32));
  EXPECT_LT(nmse(doubles(gradients.du), own_gradients.du.values()), tolerance(DType::f32));
}

// Gated terms of which a few tokens select each.
struct Terms {
  int64_t tokens, in, out, terms;
  std::vector<float> x = random_floats(tokens * in, 1), w = random_floats(out * in, 2), dy = random_floats(tokens * out, 3),
                     a = random_floats(terms * in, 4), b = random_floats(terms * out, 5), gates, u;
  std::vector<float> da, db, dgates, y, dx;

  Terms(int64_t tokens_, int64_t in_, int64_t out_, int64_t terms_) : tokens(tokens_), in(in_), out(out_), terms(terms_) {
    const auto zeros = [](int64_t n) { return std::vector<float>(static_cast<size_t>(n)); };
    gates = dgates = zeros(tokens * terms);
    u = zeros(tokens * terms), da = zeros(terms * in), db = zeros(terms * out), y = zeros(tokens * out), dx = zeros(tokens * in);
    for (size_t i = 0; i < gates.size(); i++)
      gates[i] = random_uniform(6, i) < 0.02 ? static_cast<float>(random_uniform(7, i)) : 0;
  }
  void run(Backend &ops) {
    std::vector<LowRankTerm> all;
    for (int64_t i = 0; i < terms; i++) {
      LowRankTerm term;
      term.factors = {1, 0.5f, a.data() + i * in, b.data() + i * out};
      term.gate = gates.data() + i, term.gate_stride = terms;
      term.u = u.data() + i * tokens;
      term.gradient = {da.data() + i * in, db.data() + i * out};
      term.gate_gradient = dgates.data() + i;
      all.push_back(term);
    }
    const Matrix weights{DType::f32, out, in, w.data()};
    std::vector<float> scratch(static_cast<size_t>(Backend::projection_scratch(tokens, in, out, all)));
    ops.projection(tokens, f32_rows(x.data(), in), weights, nullptr, all, f32_rows(y.data(), out), Store::set, scratch.data());
    ops.projection_backward(tokens, f32_rows(x.data(), in), weights, all, f32_rows(dy.data(), out), f32_rows(dx.data(), in),
                            Store::set, scratch.data());
  }
};

TEST_F(CudaMixture, GatedTermsWaitForNothing) {
  cuda_host::set_strict(true);
  cuda_host::set_async(true);
  Terms terms(50, 24, 40, 3);
  terms.run(*backend);
  EXPECT_EQ(counting->calls, 2u);
  EXPECT_EQ(counting->waits, 0u);
}

TEST_F(CudaMixture, OpsTakeWhatThePlanCounts) {
  constexpr int64_t kTokens = 40, kHidden = 32, kIntermediate = 56, kVocabulary = 300;
  const PassSize size{kTokens, kTokens, kHidden, kIntermediate, kHidden, 2, kVocabulary, 4, 3};
  const int64_t before = cuda_host::statistics().live_bytes;
  Problem p({kTokens, kHidden, kIntermediate, {{4, 4, 4}, {4, 4, 4}, {4, 4, 4}}});
  forward(*backend, p);
  backward(*backend, p, true);
  Terms(kTokens, kHidden, kHidden, 3).run(*backend);
  const int64_t mixture = cuda_host::statistics().live_bytes - before;
  const std::vector<float> weights = random_floats(kVocabulary * kHidden, 1), states = random_floats(kTokens * kHidden, 2);
  const std::vector<int32_t> labels(kTokens, 7);
  std::vector<float> nll(kTokens);
  backend->cross_entropy(kTokens, f32_rows(states.data(), kHidden), {DType::f32, kVocabulary, kHidden, weights.data()}, labels.data(),
                         nll.data(), 1, {});
  const int64_t all = cuda_host::statistics().live_bytes - before;
  EXPECT_GT(mixture, 0);
  EXPECT_GT(all, mixture);
  EXPECT_EQ(static_cast<uint64_t>(all), backend->scratch_bytes(size));
}

// 64 experts at 1,024 columns: pieces are of 256 tokens.
TEST_F(CudaMixture, LongBatchesAreTakenInPieces) {
  if (cuda_host::checks_races()) GTEST_SKIP() << "too large for the checker of races, left to the program that runs at full speed";
  constexpr int64_t kTokens = 300, kWide = 1024, kExperts = 64;
  ASSERT_LT(cuda::tokens_of_piece(kExperts, kWide), kTokens);
  const auto cpu = cpu_backend(cpu::best_kernels(), 1);
  Problem p({kTokens, 8, kWide, std::vector<Ranks>(kExperts, {1, 1, 1})});
  for (size_t i = 0; i < p.selected.size(); i++) {
    if (random_uniform(9, i) < 0.96) p.selected[i] = 0, p.gates[i] = 0;
  }
  EXPECT_LT(nmse(doubles(forward(*cpu, p).y), forward(*backend, p).y.values()), tolerance(DType::f32));
  const Gradients got = backward(*backend, p, true), expected = backward(*cpu, p, true);
  EXPECT_LT(nmse(doubles(expected.da0), got.da0.values()), tolerance(DType::f32));
  EXPECT_LT(nmse(doubles(expected.du), got.du.values()), tolerance(DType::f32));
  EXPECT_LT(nmse(to_double(expected.dgates), got.dgates), 10 * tolerance(DType::f32));
  for (size_t i = 0; i < kExperts; i++)
    for (size_t which = 0; which < 3; which++)
      EXPECT_LT(nmse(to_double(expected.factors[i][which].b), got.factors[i][which].b), tolerance(DType::f32)) << i;

  Terms of_device(kTokens, kWide, kWide, kExperts), of_cpu = of_device;
  of_device.run(*backend);
  of_cpu.run(*cpu);
  EXPECT_LT(nmse(to_double(of_cpu.y), of_device.y), tolerance(DType::f32));
  EXPECT_LT(nmse(to_double(of_cpu.dx), of_device.dx), tolerance(DType::f32));
  EXPECT_LT(nmse(to_double(of_cpu.da), of_device.da), tolerance(DType::f32));
  EXPECT_LT(nmse(to_double(of_cpu.db), of_device.db), tolerance(DType::f32));
  EXPECT_LT(nmse(to_double(of_cpu.dgates), of_device.dgates), 10 * tolerance(DType::f32));
}

}  // namespace
}  // namespace moe::test
