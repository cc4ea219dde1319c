// A routed mixture: domain experts (adapters) and the router that chooses between them and the base. Mathematics: tensor/backend.h
// (FfnMixtureShape, RouterShape). What a mixture adds to a base model in a pass is an Overlay.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/adapter.h"
#include "model/router.h"

namespace moe {

struct Mixture {
  std::vector<std::string> domains;                  // expert i serves domains[i]; router entry i + 1
  std::vector<std::shared_ptr<Adapter>> experts;
  std::shared_ptr<Router> router;                    // nullptr with gating "domain": the caller picks one expert
};

// What a pass runs besides the base: nothing, one adapter, or a mixture (never both).
struct Overlay {
  Adapter *adapter = nullptr;
  Mixture *mixture = nullptr;
};

}  // namespace moe
