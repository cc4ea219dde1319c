// Putting columns together to rows: each field asks the levels of its first column whether it is there, and how many elements
// follow; the other columns below it must agree.
#include <algorithm>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/utf8.h"
#include "formats/parquet.h"
#include "formats/parquet_value.h"

namespace moe {
namespace {

// What a row group may give out: a dictionary makes much of little, but not without end.
constexpr uint64_t kOutputOfAnyFile = uint64_t{1} << 30, kOutputPerByte = 1024, kOutputOfValue = 16;
constexpr uint64_t kMemoryOfRow = 64 << 20;

}  // namespace

ParquetRowGroup::ParquetRowGroup(const ParquetFile &file, size_t row_group, const std::vector<std::string> &names)
    : file_(file), row_group_(row_group), rows_(file.metadata().row_groups.at(row_group).rows),
      output_left_(checked_add(kOutputOfAnyFile, checked_multiply(kOutputPerByte, file.file().size(), file.path()), file.path())),
      budget_(ParquetFile::kMemory), fields_(file.select(names)) {
  for (const ParquetField *field : fields_) add_columns(*field);
}

void ParquetRowGroup::add_columns(const ParquetField &field) {
  for (const ParquetField &child : field.children) add_columns(child);
  if (field.kind != ParquetField::Kind::value) return;
  columns_.resize(std::max<size_t>(columns_.size(), field.first_column + 1));
  columns_[field.first_column] = file_.column(row_group_, field, budget_);
}

bool ParquetRowGroup::next(Json &row, std::string &defect) {
  if (number_ == rows_) {
    for (const auto &column : columns_) {
      if (column && column->has_entry()) fail(Code::format, column->where(), ": more values than the ", rows_, " rows take");
    }
    return false;
  }
  ++number_;
  row_left_ = kMemoryOfRow;
  std::vector<std::pair<std::string, Json>> members;
  members.reserve(fields_.size());
  for (const ParquetField *field : fields_) members.emplace_back(field->name, read(*field, 0, 0));
  defect = std::exchange(defect_, "");
  row = defect.empty() ? Json::object(std::move(members)) : Json();
  return true;
}

// Counts a value and its bytes.
void ParquetRowGroup::spend(uint64_t bytes) {
  if (bytes + sizeof(Json) > row_left_) {
    fail(Code::format, file_.path(), ": row ", number_, " of row group ", row_group_, " is larger than ", kMemoryOfRow, " bytes");
  }
  if (bytes + kOutputOfValue > output_left_) {
    fail(Code::format, file_.path(), ": row group ", row_group_, " gives more than ", kOutputPerByte,
         " bytes for each byte of the file");
  }
  row_left_ -= bytes + sizeof(Json);
  output_left_ -= bytes + kOutputOfValue;
}

void ParquetRowGroup::expect_entry(ParquetColumn &column, uint8_t repetition, uint8_t least) const {
  if (!column.has_entry()) fail(Code::format, column.where(), ": ends in row ", number_, " of ", rows_);
  if (column.repetition() != repetition || column.definition() < least) {
    fail(Code::format, column.where(), ": row ", number_, " of it: expected levels ", +repetition, " and at least ", +least,
         ", found ", +column.repetition(), " and ", +column.definition());
  }
}

// The next value of a field whose parent is there: entries with a definition level below `parent` do not belong to it.
Json ParquetRowGroup::read(const ParquetField &field, uint8_t repetition, uint8_t parent) {
  ParquetColumn &first = column(field);
  expect_entry(first, repetition, parent);
  spend(0);
  const uint8_t definition = first.definition();
  if (definition < field.definition) {
    skip(field, repetition, definition);
    return Json();
  }
  if (field.kind == ParquetField::Kind::value) return read_value(field, first);
  if (field.kind == ParquetField::Kind::group) {
    std::vector<std::pair<std::string, Json>> members;
    members.reserve(field.children.size());
    for (const ParquetField &child : field.children) {
      members.emplace_back(child.name, read(child, repetition, field.definition));
    }
    return Json::object(std::move(members));
  }
  if (definition < field.entry_definition) {
    skip(field, repetition, definition);
    return Json::array();
  }
  return read_entries(field, repetition);
}

Json ParquetRowGroup::read_entries(const ParquetField &field, uint8_t repetition) {
  ParquetColumn &first = column(field);
  Json list = Json::array();
  do {
    if (field.kind == ParquetField::Kind::list) {
      list.push(read(field.children[0], repetition, field.entry_definition));
    } else {
      Json pair = Json::array();
      for (const ParquetField &part : field.children) pair.push(read(part, repetition, field.entry_definition));
      list.push(std::move(pair));
    }
    repetition = field.entry_repetition;
  } while (first.has_entry() && first.repetition() == repetition);
  return list;
}

Json ParquetRowGroup::read_value(const ParquetField &field, ParquetColumn &column) {
  Json value;
  if (field.annotation.logical == ParquetLogical::null) {
    column.advance();
    return value;
  }
  if (field.physical == ParquetPhysical::byte_array || field.physical == ParquetPhysical::fixed_length ||
      field.physical == ParquetPhysical::int96) {
    const std::string_view bytes = column.text();
    spend(bytes.size());
    if (field.is_text()) {
      if (is_utf8(bytes)) value = bytes;
      else defect_ = "column " + field.quoted_name() + " is not valid UTF-8";
    } else {
      value = parquet_bytes(field, bytes, column.where());
    }
  } else {
    value = parquet_number(field, column.word());
  }
  column.advance();
  return value;
}

// One entry of every column below a field that is null or empty.
void ParquetRowGroup::skip(const ParquetField &field, uint8_t repetition, uint8_t definition) {
  for (uint32_t i = 0; i < field.columns; ++i) {
    ParquetColumn &column = *columns_[field.first_column + i];
    expect_entry(column, repetition, definition);
    if (column.definition() != definition) {
      fail(Code::format, column.where(), ": row ", number_,
           " of it: a value inside a field that other columns call null or empty");
    }
    column.advance();
  }
}

ParquetRows::ParquetRows(File file, std::vector<std::string> names)
    : file_(std::make_unique<ParquetFile>(std::move(file))), names_(std::move(names)) {
  file_->select(names_);  // the names are checked now, not with the first row
}

bool ParquetRows::next(Json &row, std::string &defect) {
  while (!group_ || !group_->next(row, defect)) {
    group_.reset();  // its memory first
    if (next_group_ == file_->row_groups()) return false;
    group_ = std::make_unique<ParquetRowGroup>(*file_, next_group_++, names_);
  }
  ++number_;
  return true;
}

bool ParquetRows::next(Json &row) {
  std::string defect;
  const bool found = next(row, defect);
  if (!defect.empty()) fail(Code::format, where(), ": ", defect);
  return found;
}

std::string ParquetRows::where() const { return text(file_->path(), ": row ", number_); }

ParquetTexts::ParquetTexts(const ParquetFile &file, size_t row_group, const std::string &name) : budget_(ParquetFile::kMemory) {
  const ParquetField &field = *file.select({name}).at(0);
  if (!field.is_text()) fail(Code::invalid, file.path(), ": expected a column of texts, '", name, "' is ", field.type_text());
  column_ = file.column(row_group, field, budget_);
}

std::span<const std::string_view> ParquetTexts::next() {
  const std::span<const std::string_view> texts = column_->next_texts();
  for (const std::string_view text : texts) {
    ++number_;
    if (!is_utf8(text)) fail(Code::format, column_->where(), ", row ", number_, " of it: not valid UTF-8");
  }
  return texts;
}

}  // namespace moe
