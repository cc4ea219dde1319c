// The cores behind the handles: what each noun of moe.h is made of.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/handle.h"
#include "api/options.h"
#include "base/cancel.h"
#include "data/dataset.h"
#include "generate/session.h"
#include "model/base_model.h"
#include "model/bundle.h"
#include "model/mixture.h"
#include "train/trainer.h"

namespace moe::api {

struct CancelCore {
  Cancel cancel;
};

// A base model, and where it was opened as a bundle its experts. Immutable.
struct ModelCore {
  std::shared_ptr<const BaseModel> base;
  std::shared_ptr<Mixture> mixture;  // nullptr for a base model; its router is never trained (a trainer has its own)
  BundleConfig bundle;
  std::string bundle_path;
  std::string architecture_fingerprint;
};

// `use` is written by a step of training, read by everything that computes with the weights or saves them.
struct LoraCore {
  std::shared_ptr<const BaseModel> base;
  std::shared_ptr<Adapter> adapter;
  Use use;
};

struct RouterCore {
  std::shared_ptr<Router> router;
  Use use;
};

struct DatasetCore {
  std::shared_ptr<const BaseModel> base;  // its tokenizer
  std::shared_ptr<Dataset> data;
  std::atomic<int64_t> size{0};
  std::atomic<bool> in_training{false};  // a trainer draws from it
  Use use;
};

struct TrainerCore {
  std::shared_ptr<const BaseModel> base;
  std::shared_ptr<LoraCore> lora;  // one of lora and router
  std::shared_ptr<RouterCore> router;
  std::shared_ptr<Mixture> mixture;  // with a router: the bundle's experts and this router
  std::string bundle_path;
  std::shared_ptr<DatasetCore> data;  // may be nullptr
  std::unique_ptr<Trainer> trainer;
  std::shared_ptr<CancelCore> cancel;  // may be nullptr
  std::atomic<int64_t> steps_done{0};
  Use use;

  ~TrainerCore() {
    if (data) data->in_training = false;
  }
};

struct SessionCore {
  std::unique_ptr<Session> session;
  SamplerOptions sampler;
  std::shared_ptr<CancelCore> cancel;  // may be nullptr
  std::shared_ptr<LoraCore> lora;      // what is in force, to notice training at the same time
  std::shared_ptr<RouterCore> router;
  std::shared_ptr<Mixture> mixture;
  Piece piece;  // the last one given out by next
  Use use;
};

struct GenerationCore {
  Generation generation;
};

// The Cancel of a token, nullptr for none; the token's core lives as long as the result of cancel_core is held.
std::shared_ptr<CancelCore> cancel_core(moe_cancel_token *token);
inline const Cancel *cancel_of(const std::shared_ptr<CancelCore> &core) { return core ? &core->cancel : nullptr; }

// Options to the structs of the layers below.
ModelOptions model_options(const Options &options);
LoraConfig lora_config(const Options &options, const BaseModel &model);
TrainOptions train_options(const Options &options, bool router);
SamplerOptions sampler_options(const Options &options);
bool sets_sampler(const Options &options);
RouterConfig router_settings(const Options &options, RouterConfig otherwise);  // top_k, form, temperature where set
std::unique_ptr<ChatRenderer> chat_of(const BaseModel &model);                 // nullptr when it has no (known) template

moe_text *new_text(std::string text);
moe_text *new_json(const Json &json);

}  // namespace moe::api

struct moe_text : moe::api::Handle<const std::string, 0x6d6f652d74657874> {};
struct moe_cancel_token : moe::api::Handle<moe::api::CancelCore, 0x6d6f652d73746f70> {};
struct moe_model : moe::api::Handle<const moe::api::ModelCore, 0x6d6f652d6d6f646c> {};
struct moe_lora : moe::api::Handle<moe::api::LoraCore, 0x6d6f652d6c6f7261> {};
struct moe_router : moe::api::Handle<moe::api::RouterCore, 0x6d6f652d726f7574> {};
struct moe_dataset : moe::api::Handle<moe::api::DatasetCore, 0x6d6f652d64617461> {};
struct moe_trainer : moe::api::Handle<moe::api::TrainerCore, 0x6d6f652d74726e72> {};
struct moe_session : moe::api::Handle<moe::api::SessionCore, 0x6d6f652d73657373> {};
struct moe_generation : moe::api::Handle<const moe::api::GenerationCore, 0x6d6f652d67656e65> {};
