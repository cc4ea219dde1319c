// Numbers for people.
#pragma once
#include <cstdint>
#include <string>

namespace moe::cli {

[[gnu::format(printf, 1, 2)]] std::string format(const char *pattern, ...);

std::string bytes_text(double bytes);       // "512 B", "1.50 GiB"
std::string duration_text(double seconds);  // "0:07", "12:05", "3:02:11"

// The name of an option as a flag: learning_rate -> --learning-rate.
std::string flag_name(const std::string &key);

}  // namespace moe::cli
