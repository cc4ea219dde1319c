// The time of day, for records.
#pragma once
#include <string>

namespace moe {

std::string utc_now();  // "2026-01-31T12:00:00Z"

}  // namespace moe
