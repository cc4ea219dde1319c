#include "data/example_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "data/row_view.h"
#include "data/schema_detection.h"

namespace moe {
namespace {

constexpr int kMaxFolders = 32;  // inside of one another

void add_files(const std::string &folder, int depth, std::vector<std::string> &files) {
  if (depth > kMaxFolders) fail(Code::invalid, folder, ": folders nested deeper than ", kMaxFolders);
  for (const std::string &name : list_folder(folder)) {
    const std::string path = join_path(folder, name);
    if (name.starts_with('.')) continue;
    if (folder_exists(path) && !is_link(path)) add_files(path, depth + 1, files);
    else if (is_row_file_name(name) && file_exists(path)) files.push_back(path);
  }
}

}  // namespace

void RepeatedIds::see(const Json &id, int64_t row) {
  if (id.is_string()) seen_.emplace_back(std::hash<std::string>()(id.string()), row);
  else if (id.is_number()) seen_.emplace_back(std::hash<std::string>()(id.dump()), row);
}

Skipped RepeatedIds::count() {
  std::sort(seen_.begin(), seen_.end());
  Skipped repeated;
  for (size_t i = 1; i < seen_.size(); ++i) {
    if (seen_[i].first != seen_[i - 1].first) continue;
    if (repeated.count++ == 0 || seen_[i].second < repeated.first_row) repeated.first_row = seen_[i].second;
  }
  return repeated;
}

ExampleReader::ExampleReader(const std::string &path, const std::string &schema, bool whole_rows)
    : path_(path), schema_(choose_schema(path, schema)),
      rows_(path, schema_.plain_text, whole_rows ? std::vector<std::string>() : schema_.columns()) {}

bool ExampleReader::next(Example &example) {
  Json row;
  while (pending_.empty()) {
    if (!rows_.next(row)) return false;
    ++row_count_;
    const auto number = static_cast<int64_t>(rows_.number());
    SkipReport why;
    if (!rows_.defect().empty()) {
      why.add(rows_.defect(), number);
    } else {
      if (schema_.kind == SchemaKind::multiple_choice) answers_.see(schema_, row, number);
      if (const Json *id = schema_.find("id") ? RowView(schema_, row).value("id") : find_field(row, "id")) ids_.see(*id, number);
      append_examples(schema_, row, number, pending_, why);
    }
    if (why.total() > 0) skip(number, why, row);
    std::reverse(pending_.begin(), pending_.end());
  }
  example = std::move(pending_.back());
  pending_.pop_back();
  return true;
}

void ExampleReader::skip(int64_t number, const SkipReport &why, const Json &row) {
  skipped_.add(why);
  if (!on_skip_) return;
  for (const auto &[reason, skipped] : why.reasons()) on_skip_(number, reason, row);
}

void ExampleReader::check_answers() const {
  const auto has = [&](AnswerForm form) {
    return std::find(schema_.answer.begin(), schema_.answer.end(), form) != schema_.answer.end();
  };
  const bool from_0 = has(AnswerForm::index_from_0), from_1 = has(AnswerForm::index_from_1);
  if (from_0 && answers_.top_row && !answers_.zero_row)
    fail(Code::invalid, path_, ": answers count from 1 (row ", answers_.top_row,
         " has the number of options, no row has 0), schema '", schema_.name, "' says from 0");
  if (from_1 && answers_.zero_row && !answers_.top_row)
    fail(Code::invalid, path_, ": answers count from 0 (row ", answers_.zero_row,
         " has 0, no row has the number of options), schema '", schema_.name, "' says from 1");
}

ExampleFile read_examples(const std::string &path, const std::string &schema, int64_t limit, const Cancel *cancel) {
  ExampleReader reader(path, schema);
  ExampleFile file;
  for (Example example; (limit <= 0 || static_cast<int64_t>(file.examples.size()) < limit) && reader.next(example);) {
    check_cancel(cancel);
    file.examples.push_back(std::move(example));
  }
  reader.check_answers();
  file.path = path;
  file.sha256 = sha256_file(path);
  file.schema = reader.schema();
  file.rows = reader.rows();
  file.skipped = reader.skipped();
  file.repeated_ids = reader.repeated_ids();
  if (file.examples.empty())
    fail(Code::invalid, path, ": none of ", file.rows, " rows can be used with schema '", file.schema.name,
         "': ", file.skipped.summary());
  return file;
}

std::vector<std::string> data_files(const std::string &path) {
  std::vector<std::string> files;
  if (folder_exists(path)) {
    add_files(path, 1, files);
    if (files.empty()) fail(Code::invalid, path, ": the folder has no data file (", row_file_endings(), ")");
  } else if (!file_exists(path) && path.find_first_of("*?[") != std::string::npos) {
    files = matching_files(path);
    if (files.empty()) fail(Code::invalid, path, ": no file has a name of this pattern");
  } else {
    files.push_back(path);
  }
  return files;
}

}  // namespace moe
