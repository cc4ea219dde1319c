// Reads the golden files of tests/golden/text.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"

namespace moe::golden {

inline const std::string kText = std::string(MOE_TESTS_DIR) + "/golden/text/";

inline std::vector<Json> read_lines(const std::string &path) {
  const std::string content = read_file(path);
  std::vector<Json> rows;
  for (size_t at = 0; at < content.size();) {
    const size_t end = std::min(content.find('\n', at), content.size());
    rows.push_back(Json::parse(std::string_view(content).substr(at, end - at), path));
    at = end + 1;
  }
  return rows;
}

inline const std::string &text_at(const Json &row, const char *key) { return row.at(key, "golden line").string(); }

// What the ids decode to: written where it is not the text itself.
inline const std::string &decoded_of(const Json &row) { return text_at(row, row.find("decoded") ? "decoded" : "text"); }

inline std::vector<int32_t> ids_at(const Json &row, const char *key) {
  std::vector<int32_t> ids;
  for (const Json &id : row.at(key, "golden line").items()) ids.push_back(static_cast<int32_t>(id.integer()));
  return ids;
}

inline std::string from_hex(const std::string &hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

}  // namespace moe::golden
