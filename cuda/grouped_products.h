// Products of the visits of a mixture with the low-rank factors of their groups (visits.h). Factors are A [rank, in] and B [out,
// rank]. A visit's narrow row holds the values of some consecutive factors of its group one after another.
#pragma once
#include "cuda/rows.h"
#include "cuda/visits.h"

namespace moe::cuda {

struct FactorRange {
  int first, last;  // both taken
};
constexpr FactorRange kGateUp{0, 1}, kDown{2, 2};

// The row of a visit: that of its token, or one of its own.
struct VisitRows {
  View rows;
  bool of_token;
  __device__ int64_t row(const Visits &v, int32_t visit) const { return of_token ? v.token[visit] : visit; }
};
struct Narrow {  // f32 [visits, stride]
  float *data;
  int64_t stride;
};

// By what a narrow row is multiplied.
struct Scaling {
  bool scale, gate;
  __device__ float of(float scale_value, float gate_value) const {
    return (scale ? scale_value : 1.0f) * (gate ? gate_value : 1.0f);
  }
};
constexpr Scaling kScaled{true, false}, kGated{false, true}, kBoth{true, true}, kUnscaled{false, false};

// low = A x
void narrow_product(cudaStream_t stream, const Visits &v, VisitRows x, int64_t in, FactorRange factors, Scaling scaling,
                    Narrow low);
// low = s B^T dy of one factor, behind the values of the factors from `first` on
void narrow_product_back(cudaStream_t stream, const Visits &v, VisitRows dy, int64_t out, int first, int factor, Narrow low);
// y = sum of B low over the factors
void wide_product(cudaStream_t stream, const Visits &v, Narrow low, int64_t out, FactorRange factors, View y);
// y = sum of A^T low
void wide_product_back(cudaStream_t stream, const Visits &v, Narrow low, int64_t in, FactorRange factors, View y);
// Where A of the factor trains: dA += low^T x, its values in low behind those of the factors from `first` on.
void add_a_gradients(cudaStream_t stream, const Visits &v, Narrow low, int first, int factor, Scaling scaling, VisitRows x,
                     int64_t in);
// Where B trains: dB += dy^T low
void add_b_gradients(cudaStream_t stream, const Visits &v, Narrow low, int first, int factor, Scaling scaling, VisitRows dy,
                     int64_t out);

// What an expert makes of its visits: a = a0 + B^g low, b = b0 + B^u low, h = phi(a) b; a and b may be without data.
void expert_network(cudaStream_t stream, const Visits &v, Narrow low, int64_t f, Activation phi, View a0, View b0, View a, View b,
                    View h);

// y = from + the rows x of a token's visits by rising group; `from` may be y.
void add_visits(cudaStream_t stream, const Visits &v, View x, View from, View y, int64_t n);

// Calls body(visit) for the visits of token t by rising group.
template <class Body>
__device__ __forceinline__ void each_visit(const Visits &v, int64_t t, Body body) {
  for (int64_t g = 0; g < v.groups; g++) {
    const int32_t visit = v.at[t * v.groups + g];
    if (visit >= 0) body(visit);
  }
}

}  // namespace moe::cuda
