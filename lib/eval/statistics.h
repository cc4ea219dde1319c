// Intervals and tests of an evaluation. Everything is deterministic: the bootstrap draws by a counter-based generator.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace moe {

struct Interval {
  double low = 0, high = 0;
};

// 95 % interval of a proportion (Wilson 1927); [0, 1] without samples.
Interval wilson(int64_t successes, int64_t samples);

// Paired test of two models on the same items (McNemar 1947): only items on which exactly one of them is right count.
struct McNemar {
  int64_t first_only = 0, second_only = 0;
  double p_exact = 1;  // two-sided binomial
  double p_mid = 1;    // mid-p (Fagerland, Lydersen, Laake 2013): less conservative
};
McNemar mcnemar(int64_t first_only, int64_t second_only);

// Percentile bootstrap over samples (Efron 1979), 95 %. sizes[g] samples in group g are drawn with replacement inside their
// group; `statistic` gets the indices drawn for each group. Draws where it is not finite are left out. One draw for several
// models makes the comparison a paired one.
using Draw = std::vector<std::vector<int32_t>>;
struct Bootstrap {
  Interval interval;  // NaN when no draw gave a number
  int64_t draws = 0;  // that gave a number
};
Bootstrap bootstrap(std::span<const int64_t> sizes, const std::function<double(const Draw &)> &statistic, uint64_t seed,
                    int64_t draws = 1000);

// Mean over the classes of the F1 of each, over all classes that were predicted or are right; a class of neither counts for
// nothing.
struct Classified {
  int32_t predicted = 0, gold = 0;
};
double macro_f1(std::span<const Classified> items);

// How far the confidence of predictions is from their accuracy: expected calibration error (Naeini et al. 2015) over ten bins of
// equal width, sum over the bins of share * |accuracy - mean confidence|.
struct CalibrationBin {
  int64_t samples = 0, correct = 0;
  double confidence = 0;  // mean
};
struct Calibration {
  double error = 0;
  std::vector<CalibrationBin> bins;  // by confidence: [0, 0.1), [0.1, 0.2), ..., [0.9, 1]
};
struct Confidence {
  double value = 0;
  bool correct = false;
};
Calibration calibration(std::span<const Confidence> predictions);

}  // namespace moe
