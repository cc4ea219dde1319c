#include "formats/parquet.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace moe {
namespace {

constexpr uint64_t kMagic = 4, kTail = 8;  // length of the footer and magic
constexpr uint64_t kMaxFooter = uint64_t{1} << 28;
// More rows than these are no data but a trap: a run of nulls takes a few bytes for any number of rows.
constexpr uint64_t kRowsOfAnyFile = 1 << 24, kRowsPerByte = 4096;

constexpr size_t kShownPath = 200;

bool is_magic(const char *bytes, const char *magic) { return std::memcmp(bytes, magic, kMagic) == 0; }

}  // namespace

ParquetFile::ParquetFile(File file) : file_(std::move(file)) {
  const std::string where = path() + ": footer", footer = read_footer();
  metadata_ = parse_parquet_metadata(footer, where);
  fields_ = parquet_fields(metadata_.schema, where);
  check_row_groups();
}

bool ParquetFile::matches(const File &file) {
  char magic[kMagic];
  if (file.size() < sizeof magic) return false;
  file.read(0, magic, sizeof magic);
  return is_magic(magic, "PAR1") || is_magic(magic, "PARE");
}

std::string ParquetFile::read_footer() {
  if (file_.size() < kMagic + kTail || !matches(file_))
    fail(Code::format, path(), ": expected a Parquet file, 'PAR1' at its beginning");
  char tail[kTail];
  file_.read(file_.size() - kTail, tail, kTail);
  if (is_magic(tail + 4, "PARE")) fail(Code::unsupported, path(), ": the file is encrypted");
  if (!is_magic(tail + 4, "PAR1")) fail(Code::format, path(), ": expected 'PAR1' at the end; the file may be truncated");
  uint32_t length;
  std::memcpy(&length, tail, sizeof length);
  const uint64_t most = std::min(file_.size() - kMagic - kTail, kMaxFooter);
  if (length > most) fail(Code::format, path(), ": a footer of ", length, " bytes; at most ", most, " are possible");
  data_end_ = file_.size() - kTail - length;
  std::string footer(length, '\0');
  file_.read(data_end_, footer.data(), footer.size());
  return footer;
}

void ParquetFile::check_row_groups() const {
  uint64_t rows = 0;
  for (size_t i = 0; i < row_groups(); ++i) {
    const ParquetRowGroupInfo &group = metadata_.row_groups[i];
    const size_t columns = fields_.empty() ? 0 : fields_.back().first_column + fields_.back().columns;
    if (group.chunks.size() != columns) {
      fail(Code::format, path(), ": row group ", i, ": expected ", columns, " columns, found ", group.chunks.size());
    }
    for (const ParquetField &field : fields_) check_chunks(field, i);
    rows = checked_add(rows, group.rows, path() + ": rows");
  }
  if (rows != metadata_.rows)
    fail(Code::format, path(), ": expected ", metadata_.rows, " rows, found ", rows, " in the row groups");
  if (rows > kRowsOfAnyFile && rows / kRowsPerByte > file_.size()) {
    fail(Code::format, path(), ": ", rows, " rows in a file of ", file_.size(), " bytes");
  }
}

void ParquetFile::check_chunks(const ParquetField &field, size_t row_group) const {
  if (field.kind != ParquetField::Kind::value) {
    for (const ParquetField &child : field.children) check_chunks(child, row_group);
    return;
  }
  const ParquetChunk &found = chunk(row_group, field);
  if (found.encrypted) return;
  const uint64_t rows = metadata_.row_groups[row_group].rows;
  if (found.physical != field.physical) {
    fail(Code::format, where(row_group, field), ": expected ", parquet_name(field.physical), ", found ",
         parquet_name(found.physical));
  }
  if (field.repetition == 0 ? found.values != rows : found.values < rows) {
    fail(Code::format, where(row_group, field), ": ", found.values, " values for ", rows, " rows");
  }
}

// "<path>: column 'a.b' of row group 1", the names from the row down to the value.
std::string ParquetFile::where(size_t row_group, const ParquetField &value) const {
  const auto inside = [&](const std::vector<ParquetField> &fields) {
    return std::partition_point(fields.begin(), fields.end(), [&](const ParquetField &field) {
      return field.first_column + field.columns <= value.first_column;
    });
  };
  auto field = inside(fields_);
  ParquetField shown;
  for (shown.name = field->name; !field->children.empty() && shown.name.size() < kShownPath;) {
    const auto child = inside(field->children);
    shown.name = field->path_of(*child, shown.name);
    field = child;
  }
  return text(path(), ": column ", shown.quoted_name(), " of row group ", row_group);
}

std::vector<const ParquetField *> ParquetFile::select(const std::vector<std::string> &names) const {
  std::vector<const ParquetField *> selected;
  for (const std::string &name : names) {
    if (std::none_of(fields_.begin(), fields_.end(), [&](const ParquetField &field) { return field.name == name; })) {
      std::string known;
      for (const ParquetField &field : fields_) known += (known.empty() ? "" : ", ") + field.quoted_name();
      fail(Code::invalid, path(), ": no column is called '", name, "'; there are: ", known);
    }
  }
  for (const ParquetField &field : fields_) {
    if (names.empty() || std::find(names.begin(), names.end(), field.name) != names.end()) selected.push_back(&field);
  }
  return selected;
}

std::unique_ptr<ParquetColumn> ParquetFile::column(size_t row_group, const ParquetField &value, ParquetBudget &budget) const {
  std::string place = where(row_group, value);
  const ParquetChunk &found = chunk(row_group, value);
  if (found.encrypted) fail(Code::unsupported, place, ": it is encrypted");
  if (found.elsewhere) fail(Code::unsupported, place, ": it is in another file");
  return std::make_unique<ParquetColumn>(file_, value, found, data_end_, budget, std::move(place));
}

}  // namespace moe
