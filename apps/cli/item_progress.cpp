#include "cli/item_progress.h"

#include "cli/format.h"

namespace moe::cli {

int32_t ItemProgress::on_event(const moe_event *event, void *user) {
  if (event->kind == MOE_EVENT_ITEM) static_cast<ItemProgress *>(user)->tell(*event);
  return 0;
}

void ItemProgress::tell(const moe_event &event) {
  const std::string what = std::string(event.domain ? event.domain : "") + ": " + (event.name ? event.name : "");
  if (what != what_) what_ = what, started_ = seconds_now();
  const double seconds = seconds_now() - started_,
               left = seconds * static_cast<double>(event.total - event.done) / static_cast<double>(event.done);
  console_.progress(format("%s %lld/%lld  eta %s", what.c_str(), static_cast<long long>(event.done),
                           static_cast<long long>(event.total), duration_text(left).c_str()),
                    event.done == event.total);
}

}  // namespace moe::cli
