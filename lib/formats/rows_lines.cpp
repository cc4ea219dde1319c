// JSON lines.
#include "base/error.h"
#include "base/utf8.h"
#include "formats/row_layout.h"

namespace moe {
namespace {

class JsonLines : public RowLayout {
 public:
  explicit JsonLines(TextWindow window) : window_(std::move(window)) {}

  bool next(Json &row, std::string &defect) override {
    std::string_view line;
    do {
      if (!next_line(line)) return false;
    } while (is_blank(line));
    try {
      row = Json::parse(line, window_.path());
    } catch (const Error &) {
      if (!is_utf8(line) && ended_with_newline_) {
        row = Json();
        defect = kNotUtf8;
        return true;
      }
      refuse(line);
    }
    if (!row.is_object()) fail(Code::format, where(), ": expected an object");
    return true;
  }

  uint64_t number() const override { return number_; }

 private:
  std::string where() const { return text(window_.path(), ":", number_); }

  [[noreturn]] void refuse(std::string_view line) const {
    try {
      Json::parse(line, where());
    } catch (const Error &error) {
      if (ended_with_newline_) throw;
      fail(error.code(), error.message(), " (the last line; the file may be truncated)");
    }
    fail(Code::internal, where(), ": refused once only");
  }

  // Without its end; false at the end of the file.
  bool next_line(std::string_view &line) {
    for (size_t seen = 0;;) {
      const std::string_view rest = window_.rest();
      const size_t newline = rest.find('\n', seen);
      const size_t length = std::min(newline, rest.size());
      if (length > kMaxRow)
        fail(Code::format, window_.path(), ":", number_ + 1, ": a line longer than ", kMaxRow, " bytes");
      seen = rest.size();
      if (newline == std::string_view::npos && window_.more()) continue;
      line = window_.rest().substr(0, length);
      if (newline == std::string_view::npos && line.empty()) return false;
      ended_with_newline_ = newline != std::string_view::npos;
      window_.skip(length + ended_with_newline_);
      ++number_;
      return true;
    }
  }

  TextWindow window_;
  uint64_t number_ = 0;
  bool ended_with_newline_ = true;
};

}  // namespace

std::unique_ptr<RowLayout> json_lines(TextWindow window) { return std::make_unique<JsonLines>(std::move(window)); }

}  // namespace moe
