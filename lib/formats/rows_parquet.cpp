#include <algorithm>

#include "formats/parquet.h"
#include "formats/row_layout.h"

namespace moe {
namespace {

class ParquetLayout : public RowLayout {
 public:
  ParquetLayout(const std::string &path, const std::vector<std::string> &columns) : rows_(path, present(path, columns)) {}
  bool next(Json &row, std::string &defect) override { return rows_.next(row, defect); }
  uint64_t number() const override { return rows_.number(); }
  bool counts_lines() const override { return false; }

 private:
  static std::vector<std::string> present(const std::string &path, std::vector<std::string> columns) {
    if (columns.empty()) return columns;
    const ParquetFile file(path);
    std::erase_if(columns, [&](const std::string &name) {
      return std::none_of(file.fields().begin(), file.fields().end(), [&](const ParquetField &field) { return field.name == name; });
    });
    return columns;
  }

  ParquetRows rows_;
};

}  // namespace

std::unique_ptr<RowLayout> parquet_table(const std::string &path, const std::vector<std::string> &columns) {
  return std::make_unique<ParquetLayout>(path, columns);
}

}  // namespace moe
