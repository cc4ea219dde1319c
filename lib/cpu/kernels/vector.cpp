// The vector kernels of one level: reductions and elementwise functions of contiguous rows of floats. A reduction keeps
// four registers of partial sums (element i goes to register i / kWidth % 4), adds the rest of the row to the first of
// them and folds them in a fixed order, so that a result depends on n and the values only.
#include "cpu/kernels.h"
#include "cpu/kernels/simd.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {

void fill_vector_kernels(Kernels &table);

namespace {

// How a loop reads and writes one register: whole, or its first n lanes at the end of a row.
struct Whole {
  MOE_INLINE Vec get(const float *p) { return load(p); }
  MOE_INLINE void put(float *p, Vec v) { store(p, v); }
};
struct Part {
  int64_t n;
  inline __attribute__((always_inline)) Vec get(const float *p) const { return load_part(p, n); }
  inline __attribute__((always_inline)) void put(float *p, Vec v) const { store_part(p, v, n); }
};
// Calls body(i, lanes) for i = 0, kWidth, ... < n.
template <class Body>
MOE_INLINE void for_each_register(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) body(i, Whole{});
  if (i < n) body(i, Part{n - i});
}

// ---- reductions ----
float dot(int64_t n, const float *x, const float *y) {
  Vec sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
    for (int64_t r = 0; r < 4; r++) sums[r] = fma(load(x + i + r * kWidth), load(y + i + r * kWidth), sums[r]);
  for_each_register(n - i, [&](int64_t j, auto lanes) { sums[0] = fma(lanes.get(x + i + j), lanes.get(y + i + j), sums[0]); });
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

float sum(int64_t n, const float *x) {
  Vec sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
    for (int64_t r = 0; r < 4; r++) sums[r] += load(x + i + r * kWidth);
  for_each_register(n - i, [&](int64_t j, auto lanes) { sums[0] += lanes.get(x + i + j); });
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// -infinity for n = 0; NaN elements are passed over
float maximum(int64_t n, const float *x) {
  const Vec lowest = broadcast(-__builtin_inff());
  Vec best[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
    for (int64_t r = 0; r < 4; r++) best[r] = max(load(x + i + r * kWidth), best[r]);
  for (; i + kWidth <= n; i += kWidth) best[0] = max(load(x + i), best[0]);
  if (i < n) best[0] = max(choose_part(load_part(x + i, n - i), n - i, lowest), best[0]);
  return reduce_max(max(max(best[0], best[1]), max(best[2], best[3])));
}

// ---- linear ----
void axpy(int64_t n, float alpha, const float *x, float *y) {
  const Vec a = broadcast(alpha);
  for_each_register(n, [&](int64_t i, auto lanes) { lanes.put(y + i, fma(a, lanes.get(x + i), lanes.get(y + i))); });
}
void scale(int64_t n, float alpha, const float *x, float *y) {
  const Vec a = broadcast(alpha);
  for_each_register(n, [&](int64_t i, auto lanes) { lanes.put(y + i, a * lanes.get(x + i)); });
}
void multiply(int64_t n, const float *x, const float *y, float *z) {
  for_each_register(n, [&](int64_t i, auto lanes) { lanes.put(z + i, lanes.get(x + i) * lanes.get(y + i)); });
}
void add(int64_t n, const float *x, float *y) {
  for_each_register(n, [&](int64_t i, auto lanes) { lanes.put(y + i, lanes.get(x + i) + lanes.get(y + i)); });
}

void to_f32(const uint16_t *bf16, int64_t count, float *out) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(out + i, load_bf16(bf16 + i));
  if (i < count) store_part(out + i, load_bf16_part(bf16 + i, count - i), count - i);
}
void to_bf16(const float *in, int64_t count, uint16_t *out) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store_bf16(out + i, load(in + i));
  if (i < count) store_bf16_part(out + i, load_part(in + i, count - i), count - i);
}

// ---- exponentials and gates ----
float exp_shifted(int64_t n, const float *x, float shift, float *y) {
  const Vec s = broadcast(shift);
  Vec sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    for (int64_t r = 0; r < 4; r++) {
      const Vec e = exp(load(x + i + r * kWidth) - s);
      store(y + i + r * kWidth, e);
      sums[r] += e;
    }
  }
  for (; i + kWidth <= n; i += kWidth) {
    const Vec e = exp(load(x + i) - s);
    store(y + i, e);
    sums[0] += e;
  }
  if (i < n) {
    const Vec e = choose_part(exp(load_part(x + i, n - i) - s), n - i, zero());
    store_part(y + i, e, n - i);
    sums[0] += e;
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

struct Gate {
  Vec value, slope;  // phi(a), phi'(a); whichever is not used costs nothing
};
// silu(a) = a s(a), s the sigmoid; slope s (1 + a (1 - s))
MOE_INLINE Gate silu(Vec a) {
  const Vec one = broadcast(1.0f), s = sigmoid(a);
  return {a * s, s * fma(a, one - s, one)};
}
// gelu(a) = a/2 (1 + tanh u) = a s(2u) with u = sqrt(2/pi) (a + 0.044715 a^3); slope s + a s (1 - s) 2u'
// (Hendrycks & Gimpel 2016). Beyond |a| = 20 s is 0 or 1 in f32: a is cut there inside u, so that a^3 cannot overflow.
MOE_INLINE Gate gelu_tanh(Vec a) {
  const Vec one = broadcast(1.0f), two_c = broadcast(1.59576912f), cubic = broadcast(0.044715f);
  const Vec cut = min(broadcast(20.0f), max(broadcast(-20.0f), a)), square = cut * cut;
  const Vec s = sigmoid(two_c * cut * fma(cubic, square, one));
  const Vec du = two_c * fma(broadcast(3.0f) * cubic, square, one);
  return {a * s, fma(cut * s * (one - s), du, s)};
}

void gated_silu(int64_t n, const float *a, const float *b, float *h) {
  for_each_register(n, [&](int64_t i, auto lanes) { lanes.put(h + i, silu(lanes.get(a + i)).value * lanes.get(b + i)); });
}
void gated_gelu(int64_t n, const float *a, const float *b, float *h) {
  for_each_register(n, [&](int64_t i, auto lanes) { lanes.put(h + i, gelu_tanh(lanes.get(a + i)).value * lanes.get(b + i)); });
}
void gated_silu_backward(int64_t n, const float *a, const float *b, const float *dh, float *da, float *db) {
  for_each_register(n, [&](int64_t i, auto lanes) {
    const Gate gate = silu(lanes.get(a + i));
    const Vec d = lanes.get(dh + i), db_dh = gate.value * d;
    lanes.put(da + i, d * lanes.get(b + i) * gate.slope);
    lanes.put(db + i, db_dh);
  });
}
void gated_gelu_backward(int64_t n, const float *a, const float *b, const float *dh, float *da, float *db) {
  for_each_register(n, [&](int64_t i, auto lanes) {
    const Gate gate = gelu_tanh(lanes.get(a + i));
    const Vec d = lanes.get(dh + i), db_dh = gate.value * d;
    lanes.put(da + i, d * lanes.get(b + i) * gate.slope);
    lanes.put(db + i, db_dh);
  });
}

// ---- rotary, optimizer ----
void rotate(int64_t n, const float *in, const float *table, float sign, float *out) {
  const int64_t half = n / 2;
  const Vec s = broadcast(sign < 0 ? -1.0f : 1.0f);
  for_each_register(half, [&](int64_t i, auto lanes) {
    const Vec x = lanes.get(in + i), y = lanes.get(in + half + i);
    const Vec cosine = lanes.get(table + i), sine = s * lanes.get(table + half + i);
    lanes.put(out + i, x * cosine - y * sine);
    lanes.put(out + half + i, fma(y, cosine, x * sine));
  });
}

void adamw(int64_t n, float *p, const float *g, float *m, float *v, float gradient_scale, float beta1, float beta2, float decay,
           float step_size, float inverse_sqrt_correction2, float epsilon) {
  const Vec b1 = broadcast(beta1), b2 = broadcast(beta2), rest1 = broadcast(1 - beta1), rest2 = broadcast(1 - beta2);
  for_each_register(n, [&](int64_t i, auto lanes) {
    const Vec gradient = broadcast(gradient_scale) * lanes.get(g + i);
    const Vec mean = fma(b1, lanes.get(m + i), rest1 * gradient);
    const Vec square = fma(b2, lanes.get(v + i), rest2 * gradient * gradient);
    const Vec denominator = fma(square_root(square), broadcast(inverse_sqrt_correction2), broadcast(epsilon));
    lanes.put(m + i, mean);
    lanes.put(v + i, square);
    const Vec old = lanes.get(p + i);  // one rounding at the size of p: 1 - decay would be rounded alike in every step
    lanes.put(p + i, old - fma(broadcast(decay), old, broadcast(step_size) * mean / denominator));
  });
}

// ---- dropout: Philox4x32-10, kWidth blocks at a time ----
typedef uint64_t WideVec __attribute__((vector_size(kWidth * 4)));
// the 64-bit products of the low halves of the lanes with a 32-bit factor
MOE_INLINE WideVec multiply_low(WideVec x, uint32_t factor) {
  [[maybe_unused]] const WideVec f = WideVec{} + factor;
#if defined(__AVX512F__)
  return reinterpret_cast<WideVec>(_mm512_mul_epu32(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(f)));
#elif defined(__AVX2__)
  return reinterpret_cast<WideVec>(_mm256_mul_epu32(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(f)));
#elif defined(__SSE2__)
  return reinterpret_cast<WideVec>(_mm_mul_epu32(reinterpret_cast<__m128i>(x), reinterpret_cast<__m128i>(f)));
#elif MOE_NEON
  return reinterpret_cast<WideVec>(vmull_n_u32(vmovn_u64(reinterpret_cast<uint64x2_t>(x)), factor));
#else
  return (x & 0xffffffff) * f;
#endif
}
// words[0..3] of the kWidth blocks from `block` on (all of one 16-aligned group, so the low half does not overflow). Even and
// odd blocks are computed apart, each in the low half of a 64-bit lane as the multiplication takes it; the high halves hold
// what the multiplication ignores until the two are put together.
MOE_INLINE void philox(uint64_t seed, uint64_t stream, uint64_t block, BitVec words[4]) {
  WideVec c[2][4], even = {};
  const WideVec none = {};
  for (uint64_t i = 0; i < kWidth / 2; i++) even[i] = 2 * i;
  for (uint64_t odd = 0; odd < 2; odd++) {
    c[odd][0] = even + (block + odd);
    c[odd][1] = none + (block >> 32);
    c[odd][2] = none + stream;
    c[odd][3] = none + (stream >> 32);
  }
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    for (int odd = 0; odd < 2; odd++) {
      WideVec *state = c[odd];
      const WideVec product0 = multiply_low(state[0], 0xD2511F53), product1 = multiply_low(state[2], 0xCD9E8D57);
      state[0] = (product1 >> 32) ^ state[1] ^ key0;
      state[1] = product1;
      state[2] = (product0 >> 32) ^ state[3] ^ key1;
      state[3] = product0;
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  for (int w = 0; w < 4; w++) words[w] = reinterpret_cast<BitVec>((c[0][w] & 0xffffffff) | (c[1][w] << 32));
}
void dropout(int64_t n, const float *x, uint64_t seed, uint64_t stream, uint64_t first_block, uint32_t threshold, float scale,
             float *y) {
  const Vec factor = broadcast(scale);
  for (int64_t group = 0; group < n; group += 64, first_block += 16) {
    for (int64_t lane = 0; lane < 16; lane += kWidth) {
      BitVec words[4];
      philox(seed, stream, first_block + static_cast<uint64_t>(lane), words);
      for (int64_t w = 0; w < 4; w++) {
        const int64_t i = group + 16 * w + lane;
        const BitVec kept = reinterpret_cast<BitVec>(words[w] >= threshold);
        if (i >= n) break;
        for_each_register(n - i < kWidth ? n - i : kWidth,
                          [&](int64_t, auto lanes) { lanes.put(y + i, from_bits(to_bits(lanes.get(x + i) * factor) & kept)); });
      }
    }
  }
}

// ---- transpose: blocks of 4 x 4, edges one by one ----
void transpose(int64_t rows, int64_t columns, const float *in, int64_t ldi, float *out, int64_t ldo) {
  const int64_t whole_rows = rows & ~int64_t{3}, whole_columns = columns & ~int64_t{3};
  constexpr int64_t kStrip = 64;  // columns whose output rows stay in the first-level cache
  for (int64_t first = 0; first < whole_columns; first += kStrip) {
    const int64_t end = first + kStrip < whole_columns ? first + kStrip : whole_columns;
    for (int64_t i = 0; i < whole_rows; i += 4)
      for (int64_t j = first; j < end; j += 4) transpose_4x4(in + i * ldi + j, ldi, out + j * ldo + i, ldo);
  }
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; j++) out[j * ldo + i] = in[i * ldi + j];
}

}  // namespace

void fill_vector_kernels(Kernels &table) {
  table.to_f32 = to_f32;
  table.to_bf16 = to_bf16;
  table.dot = dot;
  table.sum = sum;
  table.max = maximum;
  table.axpy = axpy;
  table.scale = scale;
  table.multiply = multiply;
  table.add = add;
  table.exp_shifted = exp_shifted;
  table.gated_silu = gated_silu;
  table.gated_gelu = gated_gelu;
  table.gated_silu_backward = gated_silu_backward;
  table.gated_gelu_backward = gated_gelu_backward;
  table.rotate = rotate;
  table.adamw = adamw;
  table.dropout = dropout;
  table.transpose = transpose;
}

}  // namespace moe::cpu::MOE_KERNEL_LEVEL
