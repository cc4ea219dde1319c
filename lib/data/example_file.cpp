#include "data/example_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "data/schema_detection.h"

namespace moe {
namespace {

bool ends_with_any(const std::string &path, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view ending) { return path.ends_with(ending); });
}

}  // namespace

DataRows::DataRows(const std::string &path) {
  if (ends_with_any(path, {".txt", ".text", ".raw"})) document_ = Json::object().set("text", read_file(path));
  else reader_.emplace(path);
}

bool DataRows::next(Json &row) {
  if (reader_) return reader_->next(row);
  if (number_ == 1) return false;
  row = std::move(document_);
  return ++number_, true;
}

ExampleReader::ExampleReader(const std::string &path, const std::string &schema)
    : path_(path), schema_(choose_schema(path, schema)), rows_(path) {}

bool ExampleReader::next(Example &example) {
  Json row;
  while (pending_.empty()) {
    if (!rows_.next(row)) return false;
    ++row_count_;
    if (schema_.kind == SchemaKind::multiple_choice) answers_.see(schema_, row, rows_.number());
    append_examples(schema_, row, rows_.number(), pending_, skipped_);
    std::reverse(pending_.begin(), pending_.end());
  }
  example = std::move(pending_.back());
  pending_.pop_back();
  return true;
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
  if (file.examples.empty())
    fail(Code::invalid, path, ": none of ", file.rows, " rows can be used with schema '", file.schema.name,
         "': ", file.skipped.summary());
  return file;
}

std::vector<std::string> data_files(const std::string &path) {
  if (!folder_exists(path)) return {path};
  std::vector<std::string> files;
  for (const std::string &name : list_folder(path)) {
    const std::string file = join_path(path, name);
    if (ends_with_any(name, {".json", ".jsonl", ".ndjson", ".txt", ".text", ".raw"}) && file_exists(file)) files.push_back(file);
  }
  if (files.empty()) fail(Code::invalid, path, ": the folder has no data file (.json .jsonl .ndjson .txt .text .raw)");
  return files;
}

}  // namespace moe
