#include "model/rope.h"

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace moe {
namespace {

double positive(const Json &json, const char *name, double otherwise, const std::string &source) {
  const double value = json.number_or(name, otherwise, source);
  if (!(value > 0) || !std::isfinite(value))
    fail(Code::format, source, ": key '", name, "': expected more than 0, found ", value);
  return value;
}

}  // namespace

Rope make_rope(const RopeSettings &settings, int64_t head_dimension) {
  Rope rope;
  for (int64_t j = 0; j < head_dimension / 2; j++) {
    double frequency = std::pow(settings.theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_dimension));
    if (settings.scaling == RopeSettings::Scaling::linear) {
      frequency /= settings.factor;
    } else if (settings.scaling == RopeSettings::Scaling::llama3) {
      const double low = settings.low_frequency_factor, high = settings.high_frequency_factor;
      const double turns = settings.original_positions * frequency / (2 * std::numbers::pi);
      const double smooth = (turns - low) / (high - low);
      if (turns < low) frequency /= settings.factor;
      else if (turns <= high) frequency *= (1 - smooth) / settings.factor + smooth;
    }
    if (!settings.divisors.empty()) frequency /= settings.divisors[static_cast<size_t>(j)];
    rope.inverse_frequency.push_back(static_cast<float>(frequency));
  }
  return rope;
}

void read_rope_settings(const Json &json, const std::string &source, const std::string &key, RopeSettings &settings) {
  if (json.is_null()) return;
  const std::string place = source + ": key '" + key + "'";
  if (!json.is_object()) fail(Code::format, place, ": expected an object");
  settings.theta = positive(json, "rope_theta", settings.theta, place);
  if (json.number_or("partial_rotary_factor", 1, place) != 1) {
    fail(Code::unsupported, place, ": 'partial_rotary_factor' other than 1 is not supported yet");
  }
  const std::string kind = json.string_or("rope_type", json.string_or("type", "default", place), place);
  if (kind == "default") return;
  if (kind != "linear" && kind != "llama3") {
    fail(Code::unsupported, place, ": rope scaling '", kind, "' is not supported yet; supported: default, linear, llama3");
  }
  json.at("factor", place);
  settings.factor = positive(json, "factor", 1, place);
  if (kind == "linear") {
    settings.scaling = RopeSettings::Scaling::linear;
    return;
  }
  settings.scaling = RopeSettings::Scaling::llama3;
  settings.low_frequency_factor = positive(json, "low_freq_factor", settings.low_frequency_factor, place);
  settings.high_frequency_factor = positive(json, "high_freq_factor", settings.high_frequency_factor, place);
  settings.original_positions = positive(json, "original_max_position_embeddings", settings.original_positions, place);
  if (settings.high_frequency_factor <= settings.low_frequency_factor) {
    fail(Code::format, place, ": 'high_freq_factor' must be above 'low_freq_factor' (", settings.low_frequency_factor,
         "), found ", settings.high_frequency_factor);
  }
}

}  // namespace moe
