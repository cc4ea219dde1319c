// HTML as text: everything that comes from files goes through escape_html(); functions named *_html return markup.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe {

// For text and for attribute values in double quotes. Control characters and what is not UTF-8 become U+FFFD.
std::string escape_html(std::string_view text);

// With a real minus sign; "–" where the value is not finite.
std::string fixed_html(double value, int digits);
std::string signed_html(double value, int digits);  // "+0.12"

struct Cell {
  std::string html, style = "n";  // style: classes; n = a number
};
Cell text_cell(std::string_view text);

// A table with a caption in a region that scrolls by itself where it is wider than the page.
class HtmlTable {
 public:
  // The caption is markup, the columns are texts. style: further classes of the table.
  HtmlTable(std::string caption, const std::vector<std::string> &columns, std::string style = "");
  void row(std::string_view head, const std::vector<Cell> &cells, std::string_view style = "");
  bool empty() const { return rows_.empty(); }
  std::string html() const;  // "" without rows

 private:
  std::string caption_, head_, rows_, style_;
  std::vector<std::string> columns_;
};

// A part that opens on a click; its text is found by the browser's search.
std::string fold_html(std::string_view summary, const std::string &html);
// <section> with a heading and an id for links to it.
std::string section_html(std::string_view id, std::string_view title, const std::string &html);
// Pairs of name (text) and value (markup); those without a value are left out.
std::string pairs_html(const std::vector<std::pair<std::string, std::string>> &pairs);
// Names with their colours; entry i has colour i.
std::string legend_html(const std::vector<std::string> &names);

constexpr size_t kColours = 10;  // of entries and lines; used again from the second when there are more
inline size_t colour_of(size_t index) { return index < kColours ? index : 1 + (index - 1) % (kColours - 1); }

}  // namespace moe
