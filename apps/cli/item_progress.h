// The progress of an evaluation: "medical: moe 120/200  eta 0:12".
#pragma once
#include "cli/console.h"

namespace moe::cli {

class ItemProgress {
 public:
  explicit ItemProgress(Console &console) : console_(console) {}

  // The moe_event_callback; `user` is the ItemProgress.
  static int32_t on_event(const moe_event *event, void *user);

 private:
  void tell(const moe_event &event);

  Console &console_;
  std::string what_;
  double started_ = 0;
};

}  // namespace moe::cli
