// Attention forward and backward against plain double-precision loops, whose own gradient is checked by central differences.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

using Values = std::vector<double>;

// One packed batch whose keys and values are rows of one array each.
struct Problem {
  AttentionShape shape;
  std::vector<int64_t> lengths;
  int64_t tokens() const {
    int64_t sum = 0;
    for (int64_t n : lengths) sum += n;
    return sum;
  }
  int64_t query_width() const { return shape.heads * shape.head_dimension; }
  int64_t key_width() const { return shape.kv_heads * shape.head_dimension; }
};

Problem make_problem(int64_t heads, int64_t kv_heads, int64_t h, int64_t window, std::vector<int64_t> lengths) {
  return {{heads, kv_heads, h, window, static_cast<float>(1 / std::sqrt(static_cast<double>(h)))}, std::move(lengths)};
}

struct Reference {
  Values out, log_sum_exp;  // [T, H h], [T, H]
  Values dq, dk, dv;
};

// The definition, one query and head at a time. Backward when dout is not empty.
Reference reference(const Problem &p, const Values &q, const Values &k, const Values &v, const Values &dout) {
  const int64_t H = p.shape.heads, h = p.shape.head_dimension, group = H / p.shape.kv_heads, qw = p.query_width(),
                kw = p.key_width();
  Reference r{Values(q.size()), Values(static_cast<size_t>(p.tokens() * H)), Values(q.size()), Values(k.size()),
              Values(v.size())};
  int64_t start = 0;
  for (int64_t n : p.lengths) {
    for (int64_t i = 0; i < n; i++) {
      for (int64_t head = 0; head < H; head++) {
        const int64_t kv = head / group, first = p.shape.window > 0 ? std::max<int64_t>(0, i - p.shape.window + 1) : 0;
        const auto at_q = [&](int64_t c) { return static_cast<size_t>((start + i) * qw + head * h + c); };
        const auto at_k = [&](int64_t j, int64_t c) { return static_cast<size_t>((start + j) * kw + kv * h + c); };
        Values s(static_cast<size_t>(i + 1), -INFINITY);
        double maximum = -INFINITY, sum = 0;
        for (int64_t j = first; j <= i; j++) {
          double dot = 0;
          for (int64_t c = 0; c < h; c++) dot += q[at_q(c)] * k[at_k(j, c)];
          s[static_cast<size_t>(j)] = p.shape.scale * dot;
          maximum = std::max(maximum, s[static_cast<size_t>(j)]);
        }
        for (double &x : s) sum += x = std::exp(x - maximum);
        for (double &x : s) x /= sum;
        r.log_sum_exp[static_cast<size_t>((start + i) * H + head)] = maximum + std::log(sum);
        for (int64_t j = first; j <= i; j++)
          for (int64_t c = 0; c < h; c++) r.out[at_q(c)] += s[static_cast<size_t>(j)] * v[at_k(j, c)];
        if (dout.empty()) continue;
        double d = 0;
        for (int64_t c = 0; c < h; c++) d += dout[at_q(c)] * r.out[at_q(c)];
        for (int64_t j = first; j <= i; j++) {
          double dp = 0;
          for (int64_t c = 0; c < h; c++) dp += dout[at_q(c)] * v[at_k(j, c)];
          const double ds = s[static_cast<size_t>(j)] * (dp - d) * p.shape.scale;
          for (int64_t c = 0; c < h; c++) {
            r.dq[at_q(c)] += ds * k[at_k(j, c)];
            r.dk[at_k(j, c)] += ds * q[at_q(c)];
            r.dv[at_k(j, c)] += s[static_cast<size_t>(j)] * dout[at_q(c)];
          }
        }
      }
    }
    start += n;
  }
  return r;
}

Values doubles(const RowsData &x) { return to_double(x.values()); }

struct Inputs {
  RowsData q, k, v, dout;
  Inputs(const Problem &p, DType dtype, double deviation = 1, int64_t gap = 0)
      : q(random_rows(p.tokens(), p.query_width(), dtype, 1, deviation, gap)),
        k(random_rows(p.tokens(), p.key_width(), dtype, 2, deviation, gap)),
        v(random_rows(p.tokens(), p.key_width(), dtype, 3, 1, gap)),
        dout(random_rows(p.tokens(), p.query_width(), dtype, 4, 1, gap)) {}
  Reference reference_of(const Problem &p) const { return reference(p, doubles(q), doubles(k), doubles(v), doubles(dout)); }
};

Rows from_row(Rows x, int64_t row) {
  x.data = static_cast<char *>(x.data) + row * x.stride * (x.dtype == DType::bf16 ? 2 : 4);
  return x;
}
std::vector<AttentionSequence> sequences_of(const Problem &p, Inputs &in) {
  std::vector<AttentionSequence> sequences;
  int64_t start = 0;
  for (int64_t n : p.lengths) {
    sequences.push_back({start, n, from_row(in.k.rows(), start), from_row(in.v.rows(), start), n});
    start += n;
  }
  return sequences;
}

struct Result {
  RowsData out, dq, dk, dv;
  std::vector<float> log_sum_exp;
  bool same_bits_as(const Result &other) const {
    return out.same_bits(other.out) && dq.same_bits(other.dq) && dk.same_bits(other.dk) && dv.same_bits(other.dv) &&
           same_bits(log_sum_exp, other.log_sum_exp);
  }
};
Result run(Backend &backend, const Problem &p, Inputs &in, DType out_type = DType::f32, int64_t gap = 0) {
  Result r{RowsData(p.tokens(), p.query_width(), out_type, gap), RowsData(p.tokens(), p.query_width(), DType::f32, gap),
           RowsData(p.tokens(), p.key_width(), DType::f32, gap), RowsData(p.tokens(), p.key_width(), DType::f32, gap),
           std::vector<float>(static_cast<size_t>(p.tokens() * p.shape.heads), NAN)};
  const auto sequences = sequences_of(p, in);
  backend.attention(p.shape, sequences, in.q.rows(), r.out.rows(), r.log_sum_exp.data());
  backend.attention_backward(p.shape, sequences, in.q.rows(), r.out.rows(), r.log_sum_exp.data(), in.dout.rows(), r.dq.rows(),
                             r.dk.rows(), r.dv.rows());
  return r;
}
void expect_close(const Reference &expected, const Result &got, double limit) {
  EXPECT_LT(nmse(expected.out, got.out.values()), limit) << "out";
  EXPECT_LT(nmse(expected.log_sum_exp, got.log_sum_exp), limit) << "log_sum_exp";
  EXPECT_LT(nmse(expected.dq, got.dq.values()), limit) << "dq";
  EXPECT_LT(nmse(expected.dk, got.dk.values()), limit) << "dk";
  EXPECT_LT(nmse(expected.dv, got.dv.values()), limit) << "dv";
}

const std::vector<int64_t> kRagged = {1, 2, 5, 17, 41, 200, 333};

TEST(AttentionReference, ItsGradientIsTheCentralDifference) {
  const Problem p = make_problem(4, 2, 6, 3, {1, 5, 4});
  Inputs in(p, DType::f32);
  Values q = doubles(in.q), k = doubles(in.k), v = doubles(in.v);
  const Values dout = doubles(in.dout);
  const Reference r = reference(p, q, k, v, dout);
  const auto loss = [&] {
    const Values out = reference(p, q, k, v, {}).out;
    double sum = 0;
    for (size_t i = 0; i < out.size(); i++) sum += out[i] * dout[i];
    return sum;
  };
  const auto check = [&](Values &x, const Values &gradient) {
    for (size_t i = 0; i < x.size(); i++) {
      const double kept = x[i], step = 1e-6;
      x[i] = kept + step;
      const double above = loss();
      x[i] = kept - step;
      const double below = loss();
      x[i] = kept;
      ASSERT_NEAR((above - below) / (2 * step), gradient[i], 1e-7);
    }
  };
  check(q, r.dq);
  check(k, r.dk);
  check(v, r.dv);
}

TEST(Attention, MatchesTheReferenceForGroupsHeadDimensionsAndRaggedLengths) {
  LARGE_CASE();
  struct Case {
    int64_t heads, kv_heads, h;
  };
  for (const Case &c : {Case{3, 3, 12}, Case{6, 2, 20}, Case{9, 3, 64}, Case{7, 1, 24}, Case{2, 1, 2}, Case{2, 1, 100}}) {
    const Problem p = make_problem(c.heads, c.kv_heads, c.h, 0, kRagged);
    Inputs in(p, DType::f32);
    const Reference expected = in.reference_of(p);
    for (const auto &backend : all_backends(2)) {
      SCOPED_TRACE(text(backend->name(), " heads ", c.heads, "/", c.kv_heads, " h ", c.h));
      expect_close(expected, run(*backend, p, in), tolerance(DType::f32));
    }
  }
}

TEST(Attention, WideHeadsAndLargeGroupsMatchTheReference) {
  struct Case {
    int64_t heads, kv_heads, h;
  };
  for (const Case &c : {Case{1, 1, 128}, Case{4, 1, 256}, Case{100, 1, 8}}) {
    const Problem p = make_problem(c.heads, c.kv_heads, c.h, 0, {3, 131});
    Inputs in(p, DType::f32);
    const Reference expected = in.reference_of(p);
    for (const auto &backend : all_backends(2)) {
      SCOPED_TRACE(text(backend->name(), " heads ", c.heads, "/", c.kv_heads, " h ", c.h));
      expect_close(expected, run(*backend, p, in), tolerance(DType::f32));
    }
  }
}

TEST(Attention, AWindowHidesOlderKeys) {
  const bool small = small_cases_only();
  for (int64_t window : small ? std::vector<int64_t>{7, 33} : std::vector<int64_t>{2, 7, 33, 150, 256, 1000}) {
    const std::vector<int64_t> few = {1, 2, 5, 41, 100}, many = {1, 2, 5, 41, 200, 333, 700};
    const Problem p = make_problem(6, 2, 20, window, small ? few : many);
    Inputs in(p, DType::f32);
    const Reference expected = in.reference_of(p);
    for (const auto &backend : all_backends(2)) {
      SCOPED_TRACE(text(backend->name(), " window ", window));
      expect_close(expected, run(*backend, p, in), tolerance(DType::f32));
    }
  }
}

TEST(Attention, AWindowOfOneIsTheValueItself) {
  LARGE_CASE();
  const Problem p = make_problem(2, 2, 20, 1, {1, 3, 300});
  Inputs in(p, DType::f32);
  for (const auto &backend : all_backends(1)) {
    const Result got = run(*backend, p, in);
    EXPECT_EQ(got.out.values(), in.v.values()) << backend->name();
    EXPECT_LT(nmse(doubles(in.dout), got.dv.values()), tolerance(DType::f32)) << backend->name();
    for (float x : got.dq.values()) ASSERT_NEAR(x, 0, 1e-4) << backend->name();
  }
}

TEST(Attention, TakesBf16RowsWithGapsAndLeavesTheGapsAlone) {
  const Problem p = make_problem(6, 2, 20, 0, {1, 2, 17, 333});
  Inputs in(p, DType::bf16, 1, 10);
  const Reference expected = in.reference_of(p);
  for (const auto &backend : all_backends(2)) {
    SCOPED_TRACE(backend->name());
    // an f32 result from bf16 inputs is exact to f32 rounding; a bf16 result is rounded once
    expect_close(expected, run(*backend, p, in, DType::f32, 3), tolerance(DType::f32));
    const Result rounded = run(*backend, p, in, DType::bf16, 6);
    expect_close(expected, rounded, tolerance(DType::bf16));
    EXPECT_TRUE(rounded.out.gap_untouched() && rounded.dq.gap_untouched() && rounded.dk.gap_untouched() &&
                rounded.dv.gap_untouched());
  }
}

// Where bf16 rows meet tensor cores the weights are rounded as well; others are exact in f32.
TEST(Attention, Bf16PromptsOfCommonHeadSizesMatchTheReference) {
  for (const int64_t h : {64, 128}) {
    for (const int64_t window : {0, 70}) {
      const Problem p = make_problem(6, 2, h, window, {1, 9, 64, 65, 150});
      Inputs in(p, DType::bf16, 1, 8);
      const Reference expected = in.reference_of(p);
      for (const auto &backend : all_backends(2)) {
        SCOPED_TRACE(text(backend->name(), " h ", h, " window ", window));
        RowsData out(p.tokens(), p.query_width(), DType::f32);
        std::vector<float> log_sum_exp(static_cast<size_t>(p.tokens() * p.shape.heads), NAN);
        backend->attention(p.shape, sequences_of(p, in), in.q.rows(), out.rows(), log_sum_exp.data());
        EXPECT_LT(nmse(expected.out, out.values()), tolerance(is_cuda(*backend) ? DType::bf16 : DType::f32));
        EXPECT_LT(nmse(expected.log_sum_exp, log_sum_exp), tolerance(DType::f32));
      }
    }
  }
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const Problem p = make_problem(2, 1, 20, 0, {3, 300});
  Inputs in(p, DType::f32, 30);  // scores of some thousand
  const Reference expected = in.reference_of(p);
  for (const auto &backend : all_backends(1)) {
    SCOPED_TRACE(backend->name());
    const Result got = run(*backend, p, in);
    EXPECT_LT(nmse(expected.out, got.out.values()), 1e-6);
    EXPECT_LT(nmse(expected.log_sum_exp, got.log_sum_exp), 1e-11);
    for (float x : got.dq.values()) ASSERT_TRUE(std::isfinite(x));
  }
}

TEST(Attention, IsBitEqualForAnyNumberOfThreads) {
  LARGE_CASE();
  const bool emulated = is_cuda(*best_backend(1));
  const Problem p = make_problem(9, 3, 64, 0, {1, 3, 41, 200, 333, emulated ? 90 : 1100});
  Inputs in(p, DType::f32);
  for (const BackendMaker &make : backend_makers()) {
    const Result one = run(*make(1), p, in);
    for (int threads : {2, 3})
      EXPECT_TRUE(one.same_bits_as(run(*make(threads), p, in))) << make(1)->name() << " " << threads;
  }
}

TEST(Attention, ASequenceDoesNotDependOnItsNeighbours) {
  LARGE_CASE();
  const Problem together = make_problem(6, 2, 20, 50, kRagged);
  Inputs all(together, DType::f32);
  for (const auto &backend : all_backends(2)) {
    const Result batch = run(*backend, together, all);
    int64_t start = 0;
    for (int64_t n : kRagged) {
      const Problem alone = make_problem(6, 2, 20, 50, {n});
      Inputs in(alone, DType::f32);
      const auto copy = [&](const RowsData &from, RowsData &to) {
        for (int64_t t = 0; t < n; t++)
          for (int64_t j = 0; j < from.n(); j++) to.set(t, j, static_cast<float>(from.at(start + t, j)));
      };
      copy(all.q, in.q), copy(all.k, in.k), copy(all.v, in.v), copy(all.dout, in.dout);
      const Result single = run(*backend, alone, in);
      const auto same = [&](const RowsData &part, const RowsData &whole) {
        for (int64_t t = 0; t < n; t++)
          for (int64_t j = 0; j < part.n(); j++)
            if (part.at(t, j) != whole.at(start + t, j)) return false;
        return true;
      };
      EXPECT_TRUE(same(single.out, batch.out) && same(single.dq, batch.dq) && same(single.dk, batch.dk) &&
                  same(single.dv, batch.dv))
          << backend->name() << " length " << n;
      start += n;
    }
  }
}

// The queries [first, end) of one sequence against keys and values of all its tokens up to `end`, as generation does.
RowsData run_cached(Backend &backend, const Problem &p, Inputs &in, int64_t first, int64_t end,
                    std::vector<float> *log_sum_exp = nullptr) {
  RowsData out(end - first, p.query_width(), DType::f32);
  const AttentionSequence sequence{0, end - first, in.k.rows(), in.v.rows(), end};
  if (log_sum_exp) log_sum_exp->assign(static_cast<size_t>((end - first) * p.shape.heads), NAN);
  backend.attention(p.shape, {&sequence, 1}, from_row(in.q.rows(), first), out.rows(),
                    log_sum_exp ? log_sum_exp->data() : nullptr);
  return out;
}

TEST(Attention, DecodingWithACacheEqualsThePrompt) {
  const bool small = small_cases_only();
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int64_t window : {0, 90, 300}) {
      const Problem p = make_problem(9, 3, 20, window, {801});
      Inputs in(p, dtype);
      const Reference expected = in.reference_of(p);
      for (const auto &backend : all_backends(2)) {
        for (int64_t end : {1, 2, 31, 256, 257, 600, 801}) {
          for (int64_t queries : {1, 2, 3, 4, 5, 40}) {
            if (queries > end || (small && (queries % 4 != 1 || end % 2 == 0))) continue;
            SCOPED_TRACE(text(backend->name(), " window ", window, " end ", end, " queries ", queries));
            std::vector<float> log_sum_exp;
            const RowsData out = run_cached(*backend, p, in, end - queries, end, &log_sum_exp);
            const int64_t w = p.query_width(), H = p.shape.heads;
            ASSERT_LT(nmse(expected.out.data() + (end - queries) * w, out.values().data(), queries * w), tolerance(DType::f32));
            ASSERT_LT(nmse(expected.log_sum_exp.data() + (end - queries) * H, log_sum_exp.data(), queries * H),
                      tolerance(DType::f32));
          }
        }
      }
    }
  }
}

TEST(Attention, APromptInPiecesIsBitEqualToThePromptAtOnce) {
  LARGE_CASE();
  const Problem p = make_problem(6, 2, 64, 0, {777});
  Inputs in(p, DType::bf16);
  for (const auto &backend : all_backends(2)) {
    const RowsData whole = run_cached(*backend, p, in, 0, 777);
    for (int64_t first = 0; first < 777; first += 111) {
      const RowsData piece = run_cached(*backend, p, in, first, first + 111);
      for (int64_t t = 0; t < 111; t++)
        for (int64_t j = 0; j < p.query_width(); j++) ASSERT_EQ(piece.at(t, j), whole.at(first + t, j)) << backend->name();
    }
  }
}

TEST(Attention, DecodesSequencesOfDifferentLengthsInOneCall) {
  const Problem p = make_problem(4, 2, 24, 0, {700, 1, 300, 65, 513, 2, 256});
  Inputs in(p, DType::bf16);
  const Reference expected = in.reference_of(p);
  for (const auto &backend : all_backends(2)) {
    const std::vector<int64_t> counts = {1, 1, 2, 30, 1, 2, 3};  // the last queries of each
    std::vector<AttentionSequence> sequences = sequences_of(p, in);
    RowsData q(40, p.query_width(), DType::f32), out(40, p.query_width(), DType::f32);
    Values rows;
    int64_t row = 0, start = 0;
    for (size_t s = 0; s < counts.size(); s++) {
      sequences[s].first_query = row;
      sequences[s].queries = counts[s];
      start += p.lengths[s];
      for (int64_t t = start - counts[s]; t < start; t++, row++) {
        for (int64_t j = 0; j < p.query_width(); j++) {
          q.set(row, j, static_cast<float>(in.q.at(t, j)));
          rows.push_back(expected.out[static_cast<size_t>(t * p.query_width() + j)]);
        }
      }
    }
    backend->attention(p.shape, sequences, q.rows(), out.rows(), nullptr);
    EXPECT_LT(nmse(rows, out.values()), tolerance(DType::f32)) << backend->name();
  }
}

TEST(Attention, LongSequencesMatchTheReference) {
  LARGE_CASE();
  const Problem p = make_problem(3, 1, 12, 0, {2000});
  Inputs in(p, DType::f32);
  const Reference expected = in.reference_of(p);
  for (const auto &backend : all_backends(2)) {
    SCOPED_TRACE(backend->name());
    expect_close(expected, run(*backend, p, in), tolerance(DType::f32));
  }
}

TEST(Attention, LongSequencesNeedNoMemoryForAllPairs) {
  if (is_cuda(*best_backend(1))) GTEST_SKIP() << "it is the host's memory that is measured";
  constexpr int64_t kTokens = 12000;  // all pairs: 576 MB
  const Problem p = make_problem(1, 1, 8, 0, {kTokens});
  Inputs in(p, DType::f32);
  const auto peak_kilobytes = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const auto backend = best_backend(2);
  const auto before = peak_kilobytes();
  run(*backend, p, in);
  EXPECT_LT(peak_kilobytes() - before, 64 << 10);
}

TEST(Attention, ANumberThatIsNotOneReachesTheOutput) {
  const Problem p = make_problem(2, 1, 20, 0, {2, 40});
  Inputs in(p, DType::f32);
  in.q.set(1, 3, NAN);
  in.k.set(2, 3, NAN);
  for (const auto &backend : all_backends(1)) {
    const Result got = run(*backend, p, in);
    EXPECT_FALSE(std::isnan(got.out.at(0, 3))) << backend->name();
    EXPECT_TRUE(std::isnan(got.out.at(1, 3))) << backend->name();
    for (int64_t t = 2; t < 42; t++) EXPECT_TRUE(std::isnan(got.out.at(t, 3))) << backend->name() << " " << t;
  }
}

TEST(Attention, RefusesImpossibleShapes) {
  const Problem p = make_problem(2, 1, 4, 0, {3});
  Inputs in(p, DType::f32);
  RowsData out(3, 8, DType::f32);
  const auto backend = best_backend(1);
  std::vector<AttentionSequence> sequences = sequences_of(p, in);
  AttentionShape shape = p.shape;
  shape.kv_heads = 3;
  EXPECT_FAILS(backend->attention(shape, sequences, in.q.rows(), out.rows(), nullptr), Code::invalid,
               "multiple of key/value heads");
  sequences[0].key_count = 2;
  EXPECT_FAILS(backend->attention(p.shape, sequences, in.q.rows(), out.rows(), nullptr), Code::invalid, "as many keys");
}

}  // namespace
}  // namespace moe::test
