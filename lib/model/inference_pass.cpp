#include "model/inference_pass.h"

#include <algorithm>
#include <mutex>

#include "model/decoder_layer.h"
#include "model/router_statistics.h"

namespace moe {
namespace {

constexpr int64_t kPieceTokens = 512;   // of one segment in one round
constexpr int64_t kRoundTokens = 2048;  // of all segments in one round
constexpr int64_t kRoundFronts = 65536;  // positions of fronts that one round copies: bounds its memory

// The part of a segment that one round appends.
struct Piece {
  Segment *segment = nullptr;
  int64_t first = 0, tokens = 0;  // within the segment
  int64_t row = 0;                // first row in the round
  int64_t prefix_row = 0;         // of the segment it continues
  int64_t joined_row = -1;        // of its keys among the joined ones, -1 = they stand elsewhere
  size_t joined_index = 0;        // of the rows gathered for it

  int64_t front() const { return segment->front ? segment->front->size() : 0; }
  int64_t before() const { return segment->cache ? segment->cache->size() : front() + segment->prefix_tokens; }
  int64_t own_keys() const { return segment->prefix_tokens + tokens; }  // without a cache: not of the front
};

// One round: all pieces go through the decoder together.
class Round {
 public:
  Round(const BaseModel &model, const Overlay &overlay, std::span<Piece> pieces)
      : model_(model), config_(model.config()), overlay_(overlay), ops_(model.backend()), pieces_(pieces),
        tokens_(pieces.back().row + pieces.back().tokens), layer_(model, overlay_, request_, tokens_) {
    collect_rows();
    layer_.inference = true;
    join_prefixes();
    for (const std::vector<int32_t> *array : {&ids_, &positions_, &label_rows_, &labels_, &logit_rows_, &joined_}) {
      inputs_.add(std::span<const int32_t>(*array));
    }
    if (overlay.mixture && overlay.mixture->router) routing_ = RoutingMemory(overlay.mixture->router->config(), tokens_);
  }

  size_t bytes() {
    Arena measuring;
    take_memory(measuring);
    return measuring.peak();
  }

  void run(InferenceScratch &scratch, const Cancel *cancel) {
    take_memory(scratch.arena(ops_, bytes()));
    layer_.bring_overlay();
    inputs_.bring(ops_, input_memory_);
    for (const Piece &piece : pieces_)
      if (piece.segment->cache) piece.segment->cache->make_room(piece.tokens);
    embed();
    float *x = stream_[0], *y = stream_[1];
    for (int64_t i = 0; i < config_.layers; i++) {
      check_cancel(cancel);
      point_attention(i);
      layer_.point_routers(i, routing_, state_);
      layer_.forward(i, x, y, state_, scratch_, [&] { store_keys(i); });
      std::swap(x, y);
    }
    for (const Piece &piece : pieces_)
      if (piece.segment->cache) piece.segment->cache->advance(piece.tokens);
    head(x);
    read_routing();
  }

 private:
  enum Input : size_t { ids, positions, label_rows, labels, logit_rows, joined };
  const int32_t *op_input(Input input) const { return inputs_.at<int32_t>(input); }

  void collect_rows() {
    for (const Piece &piece : pieces_) {
      const Segment &segment = *piece.segment;
      for (int64_t t = 0; t < piece.tokens; t++) {
        ids_.push_back(segment.tokens[static_cast<size_t>(piece.first + t)]);
        positions_.push_back(static_cast<int32_t>(piece.before() + t));
        const int32_t label = segment.labels.empty() ? kNoLabel : segment.labels[static_cast<size_t>(piece.first + t)];
        if (segment.nll) segment.nll[piece.first + t] = 0;
        if (label == kNoLabel) continue;
        label_rows_.push_back(static_cast<int32_t>(piece.row + t));
        labels_.push_back(label);
        label_targets_.push_back(segment.nll + piece.first + t);
      }
      const bool last = piece.first + piece.tokens == static_cast<int64_t>(segment.tokens.size());
      if (segment.logits && last) {
        logit_rows_.push_back(static_cast<int32_t>(piece.row + piece.tokens - 1));
        logit_targets_.push_back(segment.logits);
      }
    }
  }

  // Attention wants the keys of a sequence in neighbouring rows: those of a continuation are brought together, first the ones of
  // its front, then of its prefix. All other rows without a cache stand together already.
  void join_prefixes() {
    for (Piece &piece : pieces_) {
      if (piece.segment->cache || piece.before() == 0) continue;
      piece.joined_row = joined_rows_;
      piece.joined_index = joined_.size();
      for (int64_t t = 0; t < piece.segment->prefix_tokens; t++) joined_.push_back(static_cast<int32_t>(piece.prefix_row + t));
      for (int64_t t = 0; t < piece.tokens; t++) joined_.push_back(static_cast<int32_t>(piece.row + t));
      joined_rows_ += piece.front() + piece.own_keys();
    }
  }

  void take_memory(Arena &arena) {
    const size_t stream = static_cast<size_t>(tokens_ * config_.hidden);
    tables_.clear();
    for (size_t i = 0; i < config_.ropes.size(); i++) tables_.push_back(arena.take<float>(static_cast<size_t>(tokens_ * config_.head_dimension)));
    for (float *&buffer : stream_) buffer = arena.take<float>(stream);
    input_memory_ = arena.take_bytes(HostArrays::bytes(ops_, inputs_.words()));
    routing_.take(arena, false);
    state_ = layer_.take_state(arena, false);
    scratch_ = layer_.take_scratch(arena, false);
    const size_t rows = std::max(labels_.size(), logit_rows_.size());
    head_input_ = arena.take<float>(rows * static_cast<size_t>(config_.hidden));
    const int64_t width = config_.kv_width();
    const DType key_type = model_.activation_type();
    for (Rows *part : {&joined_keys_, &joined_values_}) {
      *part = {arena.take_bytes(static_cast<size_t>(row_bytes(key_type, joined_rows_ * width))), key_type, width};
    }
    const DType type = model_.takes_int8(model_.head(), static_cast<int64_t>(rows)) ? DType::i8 : model_.activation_type();
    final_rows_ = {arena.take_bytes(static_cast<size_t>(row_bytes(type, static_cast<int64_t>(rows) * config_.hidden))), type, config_.hidden};
    nll_ = arena.take<float>(labels_.size());
    if (!writes_logits_in_place()) logits_ = arena.take<float>(logit_rows_.size() * static_cast<size_t>(config_.vocabulary));
  }

  // The product of one row can stand where the caller wants it.
  bool writes_logits_in_place() const { return logit_rows_.size() == 1 && ops_.host_memory(); }

  void embed() {
    for (size_t i = 0; i < config_.ropes.size(); i++) {
      ops_.rotary_table(tokens_, config_.head_dimension, op_input(positions), model_.rope_frequencies(i), config_.ropes[i].factor, tables_[i]);
    }
    layer_.rotary_tables.assign(tables_.begin(), tables_.end());
    ops_.embedding(tokens_, op_input(ids), model_.embedding(), config_.embedding_scale, f32_rows(stream_[0], config_.hidden));
  }

  static Rows at(Rows rows, int64_t row) {
    return {static_cast<char *>(rows.data) + row_bytes(rows.dtype, row * rows.stride), rows.dtype, rows.stride};
  }

  void point_attention(int64_t layer) {
    layer_.sequences.clear();
    for (const Piece &piece : pieces_) {
      const KvCache *cache = piece.segment->cache;
      Rows keys, values;
      if (cache) keys = cache->keys(layer), values = cache->values(layer);
      else if (piece.joined_row >= 0) keys = at(joined_keys_, piece.joined_row), values = at(joined_values_, piece.joined_row);
      else keys = at(state_.k, piece.row), values = at(state_.v, piece.row);
      layer_.sequences.push_back({piece.row, piece.tokens, keys, values, piece.before() + piece.tokens});
    }
  }

  void store_keys(int64_t layer) {
    const int64_t width = config_.kv_width();
    for (const Piece &piece : pieces_) {
      const KvCache *cache = piece.segment->cache;
      if (!cache) continue;
      ops_.copy(piece.tokens, width, at(state_.k, piece.row), at(cache->keys(layer), cache->size()), Store::set);
      ops_.copy(piece.tokens, width, at(state_.v, piece.row), at(cache->values(layer), cache->size()), Store::set);
    }
    const int32_t *rows = op_input(joined);
    if (joined_rows_ == static_cast<int64_t>(joined_.size())) {  // no fronts between them: all at once
      if (joined_rows_ == 0) return;
      ops_.gather(joined_rows_, width, state_.k, rows, joined_keys_);
      ops_.gather(joined_rows_, width, state_.v, rows, joined_values_);
      return;
    }
    for (const Piece &piece : pieces_) {
      if (piece.joined_row < 0) continue;
      const int64_t front = piece.front(), row = piece.joined_row;
      const int32_t *index = rows + piece.joined_index;
      if (front > 0) {
        ops_.copy(front, width, piece.segment->front->keys(layer), at(joined_keys_, row), Store::set);
        ops_.copy(front, width, piece.segment->front->values(layer), at(joined_values_, row), Store::set);
      }
      ops_.gather(piece.own_keys(), width, state_.k, index, at(joined_keys_, row + front));
      ops_.gather(piece.own_keys(), width, state_.v, index, at(joined_values_, row + front));
    }
  }

  // What the FFN routers did: the mean over the layers of each token's weights, the sum over the tokens of each layer's.
  void read_routing() {
    const auto wants = [](const Piece &piece) { return piece.segment->routing || piece.segment->usage; };
    if (std::none_of(pieces_.begin(), pieces_.end(), wants)) return;
    const size_t experts = overlay_.mixture ? overlay_.mixture->experts.size() : 0, entries = experts + 1;
    for (const Piece &piece : pieces_) {
      if (!piece.segment->routing) continue;
      float *first = piece.segment->routing + static_cast<size_t>(piece.first) * entries;
      std::fill_n(first, static_cast<size_t>(piece.tokens) * entries, 0.0f);
    }
    if (!layer_.routes(RouterKind::ffn)) return;
    routing_.download_states(ops_);
    for (int64_t i = 0; i < config_.layers; i++) {
      const RouterState router = routing_.host_state(router_index(overlay_.mixture->router->config(), i, RouterKind::ffn));
      for (const Piece &piece : pieces_) {
        if (wants(piece)) add_routing(*piece.segment, piece, i, router.gates, experts);
      }
    }
  }

  void add_routing(const Segment &segment, const Piece &piece, int64_t layer, const float *layer_gates, size_t experts) const {
    const size_t entries = experts + 1;
    const float share = 1.0f / static_cast<float>(config_.layers);
    double *usage = segment.usage ? segment.usage + static_cast<size_t>(layer) * entries : nullptr;
    for (int64_t t = 0; t < piece.tokens; t++) {
      float *out = segment.routing ? segment.routing + static_cast<size_t>(piece.first + t) * entries : nullptr;
      const float *gates = layer_gates + static_cast<size_t>(piece.row + t) * experts;
      float base = 1;
      for (size_t i = 0; i < experts; i++) base -= gates[i];
      for (size_t e = 0; e < entries; e++) {
        const float weight = e == 0 ? base : gates[e - 1];
        if (out) out[e] += share * weight;
        if (usage) usage[e] += weight;
      }
    }
  }

  Rows normed(const float *x, Input rows, size_t count) {
    const int64_t d = config_.hidden, n = static_cast<int64_t>(count);
    ops_.gather(n, d, f32_rows(x, d), op_input(rows), f32_rows(head_input_, d));
    ops_.rms_norm(n, d, f32_rows(head_input_, d), model_.final_norm(), config_.norm_epsilon, final_rows_, Store::set);
    return final_rows_;
  }

  void head(const float *x) {
    if (!labels_.empty()) {
      const Rows rows = normed(x, label_rows, labels_.size());
      ops_.cross_entropy(static_cast<int64_t>(labels_.size()), rows, model_.head(), op_input(labels), nll_, 0.0f, {});
    }
    if (!logit_rows_.empty()) {
      const Rows rows = normed(x, logit_rows, logit_rows_.size());
      float *out = writes_logits_in_place() ? logit_targets_[0] : logits_;
      ops_.matmul(static_cast<int64_t>(logit_rows_.size()), rows, model_.head(), f32_rows(out, config_.vocabulary), Store::set);
    }
    // the host waits for a device only here
    if (!labels_.empty()) {
      const std::vector<float> nll = downloaded(ops_, static_cast<const float *>(nll_), labels_.size());
      for (size_t i = 0; i < nll.size(); i++) *label_targets_[i] = nll[i];
    }
    const size_t v = static_cast<size_t>(config_.vocabulary);
    for (size_t i = 0; i < logit_targets_.size() && !writes_logits_in_place(); i++) {
      ops_.download(logit_targets_[i], logits_ + i * v, v * sizeof(float));
    }
  }

  const BaseModel &model_;
  const DecoderConfig &config_;
  Overlay overlay_;
  PassRequest request_;  // forward only
  Backend &ops_;
  std::span<Piece> pieces_;
  int64_t tokens_;
  DecoderLayer layer_;
  std::vector<int32_t> ids_, positions_, label_rows_, labels_, logit_rows_;
  std::vector<int32_t> joined_;  // rows of this round whose keys and values are brought together
  int64_t joined_rows_ = 0;      // with those of the fronts
  HostArrays inputs_;            // those of `Input`
  void *input_memory_ = nullptr;
  RoutingMemory routing_;
  std::vector<float *> label_targets_, logit_targets_, tables_;
  float *stream_[2] = {nullptr, nullptr}, *head_input_ = nullptr, *nll_ = nullptr, *logits_ = nullptr;
  Rows final_rows_, joined_keys_, joined_values_;
  LayerState state_;
  LayerScratch scratch_;
};

void check_prefix(std::span<Segment> segments, size_t index, size_t first) {
  const Segment &segment = segments[index], &prefix = segments[first];
  if (segment.prefix < 0) return;
  if (segment.cache || prefix.cache || static_cast<size_t>(segment.prefix) != first) {
    fail(Code::invalid, "segment ", index, " continues segment ", segment.prefix, ": expected the last one without prefix, ", first,
         ", both without a cache");
  }
  if (segment.front != prefix.front) fail(Code::invalid, "segment ", index, " continues segment ", first, ": expected the same front");
  if (segment.prefix_tokens < 0 || segment.prefix_tokens > static_cast<int64_t>(prefix.tokens.size())) {
    fail(Code::invalid, "segment ", index, " continues ", segment.prefix_tokens, " tokens of a segment of ",
         prefix.tokens.size());
  }
}

void check_segments(const BaseModel &model, std::span<Segment> segments) {
  size_t first = 0;  // the last one without prefix
  for (size_t i = 0; i < segments.size(); i++) {
    const Segment &segment = segments[i];
    if (segment.prefix < 0) first = i;
    if (segment.cache && segment.front) fail(Code::invalid, "segment ", i, ": expected a cache or a front, found both");
    check_prefix(segments, i, first);
    for (int32_t id : segment.tokens) {
      if (id < 0 || id >= model.config().vocabulary) {
        fail(Code::invalid, "token ", id, ": the vocabulary has ", model.config().vocabulary, " entries");
      }
    }
    if (!segment.labels.empty() && (segment.labels.size() != segment.tokens.size() || !segment.nll)) {
      fail(Code::invalid, "labels: expected ", segment.tokens.size(), " and a place for the results, found ", segment.labels.size());
    }
    for (int32_t label : segment.labels) {
      if (label != kNoLabel && (label < 0 || label >= model.config().vocabulary)) fail(Code::invalid, "label ", label, " is not in the vocabulary");
    }
  }
}

// What the next round computes: pieces of segments with a cache, and whole families: a segment without one and those that
// continue it.
class Plan {
 public:
  explicit Plan(std::span<Segment> segments) : segments_(segments), done_(segments.size(), 0) {}

  std::span<Piece> next() {
    pieces_.clear();
    rows_ = 0;
    int64_t fronts = 0;
    for (size_t i = 0, end = 0; i < segments_.size() && rows_ < kRoundTokens; i = end) {
      end = i + 1;
      if (segments_[i].cache) {
        add(i, std::min({left(i), kPieceTokens, kRoundTokens - rows_}), 0);
        continue;
      }
      int64_t tokens = left(i);
      while (end < segments_.size() && segments_[end].prefix >= 0) tokens += left(end++);
      if (segments_[i].front) fronts += segments_[i].front->size() * static_cast<int64_t>(end - i);
      if (rows_ > 0 && (rows_ + tokens > kRoundTokens || fronts > kRoundFronts)) break;
      const int64_t prefix_row = rows_;
      for (size_t s = i; s < end; s++) add(s, left(s), prefix_row);
    }
    return pieces_;
  }

 private:
  int64_t left(size_t segment) const { return static_cast<int64_t>(segments_[segment].tokens.size()) - done_[segment]; }
  void add(size_t segment, int64_t tokens, int64_t prefix_row) {
    if (tokens == 0) return;
    pieces_.push_back({&segments_[segment], done_[segment], tokens, rows_, prefix_row});
    rows_ += tokens;
    done_[segment] += tokens;
  }

  std::span<Segment> segments_;
  std::vector<int64_t> done_;
  std::vector<Piece> pieces_;
  int64_t rows_ = 0;
};

}  // namespace

void inference_pass(const BaseModel &model, const Overlay &overlay, std::span<Segment> segments, InferenceScratch &scratch, const Cancel *cancel) {
  check_segments(model, segments);
  const std::lock_guard<std::mutex> one_pass(model.pass_mutex());
  Plan plan(segments);
  for (std::span<Piece> pieces = plan.next(); !pieces.empty(); pieces = plan.next()) {
    Round(model, overlay, pieces).run(scratch, cancel);
  }
}

uint64_t inference_pass_bytes(const BaseModel &model, const Overlay &overlay, std::span<Segment> segments) {
  check_segments(model, segments);
  Plan plan(segments);
  uint64_t bytes = 0;
  for (std::span<Piece> pieces = plan.next(); !pieces.empty(); pieces = plan.next())
    bytes = std::max<uint64_t>(bytes, Round(model, overlay, pieces).bytes());
  return bytes;
}

}  // namespace moe
