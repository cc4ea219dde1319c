// copy, gather, scatter, scale_rows and add_bias move the right rows, convert exactly and leave the rest alone.
#include <gtest/gtest.h>

#include <functional>

#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16};

struct Case {
  int64_t tokens, n;
};
const Case kCases[] = {{1, 1}, {3, 17}, {7, 64}, {67, 131}, {300, 33}};

void for_every_case(const std::function<void(Case, DType, DType)> &body) {
  for (const Case c : kCases)
    for (DType from : kTypes)
      for (DType to : kTypes) {
        SCOPED_TRACE(::testing::Message() << c.tokens << " x " << c.n << (from == DType::bf16 ? " bf16" : " f32")
                                          << (to == DType::bf16 ? " to bf16" : " to f32"));
        body(c, from, to);
      }
}
float rounded(double value, DType type) {
  const float x = static_cast<float>(value);
  return type == DType::bf16 ? bf16_to_float(float_to_bf16(x)) : x;
}
std::vector<int32_t> shuffled(int64_t count, uint64_t seed) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int32_t>(i);
  for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random_bits(seed, i) % i]);
  return order;
}

TEST(Rows, CopyConvertsBetweenTheTypes) {
  for_every_case([](Case c, DType from, DType to) {
    RowsData x = random_rows(c.tokens, c.n, from, 1, 1, 5);
    on_every_backend(
        [&](Backend &backend) {
          RowsData y(c.tokens, c.n, to, 3);
          backend.copy(c.tokens, c.n, x.rows(), y.rows(), Store::set);
          return y;
        },
        [&](const RowsData &y) {
          EXPECT_TRUE(y.gap_untouched());
          for (int64_t t = 0; t < c.tokens; t++)
            for (int64_t j = 0; j < c.n; j++) ASSERT_EQ(y.at(t, j), rounded(x.at(t, j), to));
        });
  });
}

TEST(Rows, CopyAddsToF32Only) {
  for_every_case([](Case c, DType from, DType to) {
    RowsData x = random_rows(c.tokens, c.n, from, 1), start = random_rows(c.tokens, c.n, to, 2);
    if (to == DType::bf16) {
      auto backend = std::move(all_backends(1).front());
      EXPECT_FAILS(backend->copy(c.tokens, c.n, x.rows(), start.rows(), Store::add), Code::invalid, "copy");
      return;
    }
    on_every_backend(
        [&](Backend &backend) {
          RowsData y = start;
          backend.copy(c.tokens, c.n, x.rows(), y.rows(), Store::add);
          return y;
        },
        [&](const RowsData &y) {
          for (int64_t t = 0; t < c.tokens; t++)
            for (int64_t j = 0; j < c.n; j++)
              ASSERT_EQ(y.at(t, j), static_cast<float>(start.at(t, j)) + static_cast<float>(x.at(t, j)));
        });
  });
}

TEST(Rows, GatherMayRepeatRows) {
  for_every_case([](Case c, DType from, DType to) {
    RowsData x = random_rows(c.tokens, c.n, from, 1);
    const int64_t rows = 2 * c.tokens + 1;
    std::vector<int32_t> index(static_cast<size_t>(rows));
    for (size_t i = 0; i < index.size(); i++)
      index[i] = static_cast<int32_t>(random_bits(3, i) % static_cast<uint64_t>(c.tokens));
    on_every_backend(
        [&](Backend &backend) {
          RowsData y(rows, c.n, to, 1);
          backend.gather(rows, c.n, x.rows(), index.data(), y.rows());
          return y;
        },
        [&](const RowsData &y) {
          EXPECT_TRUE(y.gap_untouched());
          for (int64_t t = 0; t < rows; t++)
            for (int64_t j = 0; j < c.n; j++) ASSERT_EQ(y.at(t, j), rounded(x.at(index[static_cast<size_t>(t)], j), to));
        });
  });
}

TEST(Rows, ScatterSetsOrAddsAtDistinctRows) {
  for_every_case([](Case c, DType from, DType to) {
    for (Store store : {Store::set, Store::add}) {
      if (store == Store::add && to == DType::bf16) continue;
      const int64_t rows = (c.tokens + 1) / 2;
      RowsData x = random_rows(rows, c.n, from, 1), start = random_rows(c.tokens, c.n, to, 2);
      const std::vector<int32_t> index = shuffled(c.tokens, 4);
      std::vector<int64_t> source(static_cast<size_t>(c.tokens), -1);
      for (int64_t t = 0; t < rows; t++) source[static_cast<size_t>(index[static_cast<size_t>(t)])] = t;
      on_every_backend(
          [&](Backend &backend) {
            RowsData y = start;
            backend.scatter(rows, c.n, x.rows(), index.data(), y.rows(), store);
            return y;
          },
          [&](const RowsData &y) {
            for (int64_t t = 0; t < c.tokens; t++) {
              const int64_t from_row = source[static_cast<size_t>(t)];
              for (int64_t j = 0; j < c.n; j++) {
                double expected = start.at(t, j);
                if (from_row >= 0) expected = (store == Store::add ? expected : 0) + x.at(from_row, j);
                ASSERT_EQ(y.at(t, j), rounded(expected, to));
              }
            }
          });
    }
  });
}

TEST(Rows, ScaleRowsMultipliesByTheFactorOfTheRow) {
  for_every_case([](Case c, DType from, DType to) {
    RowsData x = random_rows(c.tokens, c.n, from, 1);
    const int64_t stride = 3;
    const std::vector<float> factor = random_floats(c.tokens * stride, 5);
    on_every_backend(
        [&](Backend &backend) {
          RowsData y(c.tokens, c.n, to, 2);
          backend.scale_rows(c.tokens, c.n, x.rows(), factor.data(), stride, 0.75f, y.rows());
          return y;
        },
        [&](const RowsData &y) {
          EXPECT_TRUE(y.gap_untouched());
          for (int64_t t = 0; t < c.tokens; t++)
            for (int64_t j = 0; j < c.n; j++)
              ASSERT_EQ(y.at(t, j),
                        rounded(factor[static_cast<size_t>(t * stride)] * 0.75f * static_cast<float>(x.at(t, j)), to));
        });
  });
}

TEST(Rows, AddBiasAddsOneVectorToEveryRow) {
  for (const Case c : kCases) {
    for (DType type : kTypes) {
      const RowsData start = random_rows(c.tokens, c.n, type, 1, 1, 2);
      const std::vector<float> bias = random_floats(c.n, 6);
      on_every_backend(
          [&](Backend &backend) {
            RowsData y = start;
            backend.add_bias(c.tokens, c.n, bias.data(), y.rows());
            return y;
          },
          [&](const RowsData &y) {
            EXPECT_TRUE(y.gap_untouched());
            for (int64_t t = 0; t < c.tokens; t++)
              for (int64_t j = 0; j < c.n; j++)
                ASSERT_EQ(y.at(t, j), rounded(static_cast<float>(start.at(t, j)) + bias[static_cast<size_t>(j)], type));
          });
    }
  }
}

}  // namespace
}  // namespace moe::test
