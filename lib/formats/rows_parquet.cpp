#include "formats/parquet.h"
#include "formats/row_layout.h"

namespace moe {
namespace {

class ParquetLayout : public RowLayout {
 public:
  explicit ParquetLayout(const std::string &path) : rows_(path) {}
  bool next(Json &row, std::string &defect) override { return rows_.next(row, defect); }
  uint64_t number() const override { return rows_.number(); }
  bool counts_lines() const override { return false; }

 private:
  ParquetRows rows_;
};

}  // namespace

std::unique_ptr<RowLayout> parquet_table(const std::string &path) { return std::make_unique<ParquetLayout>(path); }

}  // namespace moe
