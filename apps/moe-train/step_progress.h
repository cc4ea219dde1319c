// The progress of a training run: "step 12/300  loss 2.1034  norm 0.52  lr 1.80e-04  1234 tokens/s  eta 12:03".
#pragma once
#include "cli/console.h"

namespace moe::cli {

class StepProgress {
 public:
  StepProgress(Console &console, int64_t logging_steps)
      : console_(console), logging_steps_(logging_steps), started_(seconds_now()) {}

  // The moe_event_callback; `user` is the StepProgress.
  static int32_t on_event(const moe_event *event, void *user);
  bool saved() const { return saved_; }  // the last event was a checkpoint

 private:
  void tell(const moe_event &event);
  void step(const moe_event &event);

  Console &console_;
  int64_t logging_steps_;
  int64_t steps_ = 0;  // seen by this run
  bool saved_ = false;
  double started_;
};

}  // namespace moe::cli
