// Plain text. A paragraph is a run of lines that are not blank, with the line breaks between them; what is read is as it stands.
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/row_layout.h"

namespace moe {
namespace {

class Text : public RowLayout {
 public:
  bool next(Json &row, std::string &defect) override {
    const std::optional<std::string_view> text = next_text();
    if (!text) return false;
    if (!is_utf8(*text)) {
      row = Json();
      defect = kNotUtf8;
    } else {
      row = Json::object({{"text", *text}});
    }
    return true;
  }

 protected:
  explicit Text(TextWindow window) : window_(std::move(window)) {}
  virtual std::optional<std::string_view> next_text() = 0;
  TextWindow window_;
};

class WholeText : public Text {
 public:
  explicit WholeText(TextWindow window) : Text(std::move(window)) {}
  uint64_t number() const override { return number_; }
  bool counts_lines() const override { return false; }

 private:
  std::optional<std::string_view> next_text() override {
    const std::string_view text = number_ == 0 ? read_rest(window_) : std::string_view();
    if (is_blank(text)) return std::nullopt;
    ++number_;
    return text;
  }
  uint64_t number_ = 0;
};

class Paragraphs : public Text {
 public:
  explicit Paragraphs(TextWindow window) : Text(std::move(window)) {}
  uint64_t number() const override { return number_; }

 private:
  std::optional<std::string_view> next_text() override {
    size_t begin = 0, end = 0, line = 0;  // of the window: of the paragraph so far, of the line that is looked at
    bool begun = false;
    for (size_t next; (next = line_end(line)) > line; line = next) {
      ++lines_;
      const std::string_view rest = window_.rest();
      std::string_view content = rest.substr(line, next - line);
      while (!content.empty() && (content.back() == '\n' || content.back() == '\r')) content.remove_suffix(1);
      if (is_blank(content)) {
        if (begun) return taken(begin, end, next);
        window_.skip(next - line);
        next = line;
        continue;
      }
      if (!begun) begin = line, number_ = lines_;
      begun = true;
      end = line + content.size();
      if (end - begin > kMaxRow)
        fail(Code::format, window_.path(), ":", number_, ": a paragraph longer than ", kMaxRow, " bytes");
    }
    if (begun) return taken(begin, end, line);
    return std::nullopt;
  }

  std::string_view taken(size_t begin, size_t end, size_t next) {
    const std::string_view text = window_.rest().substr(begin, end - begin);
    window_.skip(next);
    return text;
  }

  // After the line break, or where the file ends.
  size_t line_end(size_t line) {
    for (size_t seen = line;;) {
      const std::string_view rest = window_.rest();
      const size_t newline = rest.find('\n', seen);
      if (newline != std::string_view::npos) return newline + 1;
      seen = rest.size();
      if (seen - line > kMaxRow)
        fail(Code::format, window_.path(), ":", lines_ + 1, ": a line longer than ", kMaxRow, " bytes");
      if (!window_.more()) return rest.size();
    }
  }

  uint64_t number_ = 0, lines_ = 0;
};

}  // namespace

std::unique_ptr<RowLayout> plain_text(TextWindow window, PlainText rows) {
  if (rows == PlainText::paragraphs) return std::make_unique<Paragraphs>(std::move(window));
  return std::make_unique<WholeText>(std::move(window));
}

}  // namespace moe
