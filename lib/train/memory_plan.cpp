#include "train/memory_plan.h"

#include <algorithm>

#include "base/error.h"

namespace moe {
namespace {

// What a run holds beside the base, and of that what it trains.
struct Parameters {
  uint64_t held = 0, trained = 0;
};

Parameters count_parameters(const Overlay &overlay, Trainable train) {
  if (overlay.adapter) {
    const uint64_t count = overlay.adapter->size();
    return {count, train == Trainable::adapter ? count : 0};
  }
  if (!overlay.mixture) return {};
  uint64_t experts = 0;
  for (const auto &expert : overlay.mixture->experts) experts += expert->size();
  const uint64_t router = overlay.mixture->router ? overlay.mixture->router->size() : 0;
  const bool train_experts = train == Trainable::experts || train == Trainable::joint;
  Parameters count{experts + router, train == Trainable::router || train == Trainable::joint ? router : 0};
  if (train_experts) count.held += experts, count.trained += experts;
  return count;
}

PassSize pass_size(const DecoderConfig &config, const Overlay &overlay, const Parameters &parameters, int64_t tokens,
                   int64_t supervised) {
  PassSize size;
  size.tokens = tokens;
  size.supervised = supervised;
  size.hidden = config.hidden;
  size.intermediate = config.intermediate;
  size.heads = config.heads;
  size.query_width = config.query_width();
  size.vocabulary = config.vocabulary;
  size.trained = static_cast<int64_t>(parameters.trained);
  if (overlay.adapter) size.rank = overlay.adapter->largest_rank();
  if (!overlay.mixture) return size;
  for (const auto &expert : overlay.mixture->experts) size.rank = std::max(size.rank, expert->largest_rank());
  if (!overlay.mixture->router) return size;
  size.experts = overlay.mixture->router->config().experts;
  size.top_k = overlay.mixture->router->config().top_k;
  return size;
}

}  // namespace

uint64_t MemoryPlan::total() const {
  uint64_t sum = 0;
  for (const auto &[purpose, count] : bytes) sum += count;
  return sum;
}

std::string MemoryPlan::text() const {
  std::string parts;
  for (const auto &[purpose, count] : bytes) parts += moe::text(parts.empty() ? "" : ", ", count, " ", purpose);
  return moe::text(total(), " bytes: ", parts);
}

Json MemoryPlan::to_json() const {
  Json purposes = Json::object();
  for (const auto &[purpose, count] : bytes) purposes.set(purpose, count);
  Json json = Json::object();
  json.set("bytes", std::move(purposes)).set("total_bytes", total()).set("layers", layers);
  json.set("checkpointed_layers", checkpointed_layers).set("micro_batch_tokens", micro_batch_tokens);
  return json;
}

MemoryPlan plan_training(const BaseModel &model, const Overlay &overlay, Trainable train, int64_t tokens, int64_t supervised,
                         uint64_t memory_limit) {
  const Parameters parameters = count_parameters(overlay, train);
  const uint64_t trained = parameters.trained * sizeof(float);
  const uint64_t scratch = model.backend().scratch_bytes(pass_size(model.config(), overlay, parameters, tokens, supervised));
  MemoryPlan plan;
  plan.micro_batch_tokens = tokens;
  plan.micro_batch_supervised = supervised;
  plan.layers = model.config().layers;
  uint64_t plain = 0;
  for (int64_t checkpointed = 0; checkpointed <= plan.layers; checkpointed++) {
    PassRequest request;
    request.train = train;
    request.checkpointed_layers = plan.checkpointed_layers = checkpointed;
    plan.bytes = {{"weights", model.weight_bytes()},
                  {"adapters and routers", parameters.held * sizeof(float)},
                  {"gradients", trained},
                  {"optimizer", 2 * trained},
                  {"activations", training_pass_bytes(model, overlay, request, tokens, supervised)},
                  {"kernel scratch", scratch}};
    if (const uint64_t staging = model.backend().staging_bytes()) plan.bytes.push_back({"staging", staging});
    if (memory_limit == 0 || plan.total() <= memory_limit) return plan;
    if (checkpointed == 0) plain = plan.total();
  }
  fail(Code::no_memory, "memory_limit: ", memory_limit, " bytes are allowed, but a micro-batch of ", tokens, " tokens needs ", plan.total(),
       " with activation checkpointing (", plain, " without); use a smaller batch_size or max_length");
}

}  // namespace moe
