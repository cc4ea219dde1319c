#include "cli/options.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/format.h"

namespace moe::cli {
namespace {

std::vector<std::string> words(const std::string &text, char separator) {
  std::vector<std::string> all;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    std::string word = text.substr(begin, end - begin);
    word.erase(0, word.find_first_not_of(' '));
    if (!word.empty()) all.push_back(std::move(word));
    begin = end + 1;
  }
  return all;
}

bool contains(const std::vector<std::string> &all, const std::string &one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

}  // namespace

Options new_options() {
  Options options;
  call(moe_options_create, options.out());
  return options;
}

void set(const Options &options, const std::string &key, const std::string &value) {
  moe_error error = MOE_ERROR_INIT;
  check_usage(moe_options_set(options.get(), key.c_str(), value.c_str(), &error), error);
}

bool has(const Options &options, const std::string &key) { return moe_options_has(options.get(), key.c_str()) == 1; }

std::string get(const Options &options, const std::string &key) { return text_of(moe_options_get, options.get(), key.c_str()); }

int64_t integer(const Options &options, const std::string &key) { return resolved(options, nullptr).at(key).integer(); }

bool flag(const Options &options, const std::string &key) { return get(options, key) == "true"; }

std::vector<std::string> list(const Options &options, const std::string &key) {
  std::vector<std::string> values;
  const Json all = resolved(options, nullptr);
  for (const Json &item : all.at(key).items()) values.push_back(item.string());
  return values;
}

std::vector<std::pair<std::string, std::string>> named(const Options &options, const std::string &key) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string &element : list(options, key)) {
    const size_t equals = element.find('=');
    if (equals == std::string::npos) pairs.emplace_back("", element);
    else pairs.emplace_back(element.substr(0, equals), element.substr(equals + 1));
  }
  return pairs;
}

std::string required(const Options &options, const std::string &key) {
  std::string value = get(options, key);
  if (value.empty()) throw Failure(kUsage, "option " + flag_name(key) + " is needed");
  return value;
}

Json resolved(const Options &options, const char *verb) {
  return Json::parse(text_of(moe_options_resolved, options.get(), verb), "options");
}

Options copy(const Options &options) {
  Options result = new_options();
  moe_option row = MOE_OPTION_INIT;
  for (size_t i = 0; moe_options_row(i, &row); i++) {
    if (has(options, row.key)) set(result, row.key, get(options, row.key));
  }
  return result;
}

bool find_row(const std::string &name, moe_option &row) {
  std::string key = name;
  std::replace(key.begin(), key.end(), '-', '_');
  for (size_t i = 0; moe_options_row(i, &row); i++) {
    if (key == row.key || contains(words(row.aliases, ','), key)) return true;
  }
  return false;
}

bool reads(const moe_option &row, const std::string &verb) { return contains(words(row.verbs, ' '), verb); }

std::string read_file(const std::string &path) {
  std::FILE *file = std::fopen(path.c_str(), "rb");
  if (!file) throw Failure(kFailed, path + ": " + std::strerror(errno));
  std::string content;
  char buffer[65536];
  size_t count;
  while ((count = std::fread(buffer, 1, sizeof buffer, file)) > 0) content.append(buffer, count);
  const int reason = std::ferror(file) ? errno : 0;
  std::fclose(file);
  if (reason) throw Failure(kFailed, path + ": " + std::strerror(reason));
  return content;
}

bool file_exists(const std::string &path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0;
}

}  // namespace moe::cli
