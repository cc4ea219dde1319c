#include "eval/html.h"

#include <cmath>

#include "base/error.h"
#include "base/utf8.h"

namespace moe {

std::string escape_html(std::string_view text) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const char c = text.front();
    if (length > 1) out += text.substr(0, length);
    else if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&quot;";
    else if (c == '\'') out += "&#39;";
    else if (length == 0 || c == 0x7F || (c >= 0 && c < 0x20 && c != '\n' && c != '\t')) out += c == '\r' ? "" : kReplacement;
    else out += c;
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return out;
}

std::string fixed_html(double value, int digits) {
  if (!std::isfinite(value)) return "–";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, std::fabs(value));
  const bool zero = std::string_view(buffer).find_first_not_of("0.") == std::string_view::npos;
  return (value < 0 && !zero ? "\u2212" : "") + std::string(buffer);
}

std::string signed_html(double value, int digits) {
  const std::string text = fixed_html(value, digits);
  const bool zero = text.find_first_not_of("0.") == std::string::npos;
  return (value > 0 && !zero ? "+" : "") + text;
}

Cell text_cell(std::string_view text) { return {escape_html(text), ""}; }

HtmlTable::HtmlTable(std::string caption, const std::vector<std::string> &columns, std::string style)
    : caption_(std::move(caption)), style_(std::move(style)) {
  for (const std::string &column : columns) columns_.push_back(escape_html(column));
}

void HtmlTable::row(std::string_view head, const std::vector<Cell> &cells, std::string_view style) {
  const auto class_of = [](std::string_view names) { return names.empty() ? "" : text(" class=\"", names, "\""); };
  if (rows_.empty()) {  // a column's head stands as its first cell does
    head_ = text("<th scope=\"col\">", columns_.at(0), "</th>");
    for (size_t i = 1; i < columns_.size(); i++) {
      const bool number = i <= cells.size() && cells[i - 1].style.starts_with('n');
      head_ += text("<th scope=\"col\"", number ? " class=\"n\"" : "", ">", columns_[i], "</th>");
    }
  }
  rows_ += text("<tr", class_of(style), "><th scope=\"row\">", escape_html(head), "</th>");
  for (const Cell &cell : cells) rows_ += text("<td", class_of(cell.style), ">", cell.html, "</td>");
  rows_ += "</tr>\n";
}

std::string HtmlTable::html() const {
  if (rows_.empty()) return "";
  return text("<div class=\"scroll\" tabindex=\"0\"><table class=\"", style_, "\">",
              caption_.empty() ? "" : "<caption>" + caption_ + "</caption>", "\n<thead><tr>", head_, "</tr></thead>\n<tbody>\n",
              rows_, "</tbody></table></div>\n");
}

std::string fold_html(std::string_view summary, const std::string &html) {
  return html.empty() ? ""
                      : text("<details class=\"fold\"><summary>", escape_html(summary), "</summary>\n", html, "</details>\n");
}

std::string section_html(std::string_view id, std::string_view title, const std::string &html) {
  return text("<section id=\"", id, "\" aria-labelledby=\"", id, "-title\">\n<h2 id=\"", id, "-title\">", escape_html(title),
              "</h2>\n", html, "</section>\n");
}

std::string pairs_html(const std::vector<std::pair<std::string, std::string>> &pairs) {
  std::string out;
  for (const auto &[name, value] : pairs)
    if (!value.empty()) out += text("<dt>", escape_html(name), "</dt><dd>", value, "</dd>\n");
  return out.empty() ? "" : "<dl class=\"pairs\">\n" + out + "</dl>\n";
}

std::string legend_html(const std::vector<std::string> &names) {
  std::string out = "<ul class=\"legend\">";
  for (size_t i = 0; i < names.size(); i++) out += text("<li class=\"e", colour_of(i), "\">", escape_html(names[i]), "</li>");
  return out + "</ul>\n";
}

}  // namespace moe
