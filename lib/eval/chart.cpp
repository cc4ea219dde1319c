#include "eval/chart.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/html.h"

namespace moe {
namespace {

std::string number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f", value);
  return buffer;
}

std::string open_svg(const std::string &title, double width, double height) {
  return text("<svg viewBox=\"0 0 ", number(width), " ", number(height), "\" role=\"img\" aria-label=\"", escape_html(title),
              "\">\n");
}

std::string line(double x1, double y1, double x2, double y2, const std::string &style) {
  return text("<path class=\"", style, "\" d=\"M", number(x1), " ", number(y1), "L", number(x2), " ", number(y2), "\"/>\n");
}

std::string label(double x, double y, const std::string &words, const std::string &anchor, const std::string &style = "") {
  return text("<text x=\"", number(x), "\" y=\"", number(y), "\" text-anchor=\"", anchor, "\"",
              style.empty() ? "" : " class=\"" + style + "\"", ">", words, "</text>\n");
}

// A scale from values to places, with ticks at round values: 1, 2 or 5 times a power of ten.
class Scale {
 public:
  Scale(double low, double high, double from, double to, int ticks) : low_(low), high_(high), from_(from), to_(to) {
    if (!(high_ > low_)) low_ -= 0.5, high_ = low_ + 1;
    const double rough = (high_ - low_) / ticks, power = std::pow(10, std::floor(std::log10(rough)));
    step_ = power * (rough / power <= 1 ? 1 : rough / power <= 2 ? 2 : rough / power <= 5 ? 5 : 10);
  }
  void widen() {  // to whole ticks
    low_ = std::floor(low_ / step_ + 1e-9) * step_;
    high_ = std::ceil(high_ / step_ - 1e-9) * step_;
  }
  double at(double value) const { return from_ + (value - low_) / (high_ - low_) * (to_ - from_); }
  std::vector<double> ticks() const {
    std::vector<double> all;
    for (double value = std::ceil(low_ / step_ - 1e-9) * step_; value <= high_ + 1e-9 * step_; value += step_)
      all.push_back(value);
    return all;
  }
  int digits() const { return std::max(0, static_cast<int>(-std::floor(std::log10(step_) + 1e-9))); }

 private:
  double low_, high_, from_, to_, step_;
};

// At most so many characters.
std::string shortened(const std::string &name, size_t characters) {
  size_t at = 0, count = 0;
  while (at < name.size()) {
    if ((static_cast<unsigned char>(name[at]) & 0xC0) != 0x80 && count++ == characters) return name.substr(0, at) + "…";
    at++;
  }
  return name;
}

// At most `points` of a curve, each the mean of its neighbours.
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>> &all, size_t points) {
  if (all.size() <= points) return all;
  std::vector<std::pair<double, double>> result;
  for (size_t i = 0; i < points; i++) {
    const size_t first = i * all.size() / points, last = (i + 1) * all.size() / points;
    double x = 0, y = 0;
    for (size_t at = first; at < last; at++) x += all[at].first, y += all[at].second;
    const auto n = static_cast<double>(last - first);
    result.emplace_back(x / n, y / n);
  }
  return result;
}

}  // namespace

std::string forest_svg(const std::string &title, const std::vector<ForestRow> &rows, int digits, int reference) {
  constexpr double kWidth = 340, kLeft = 92, kRight = 296, kRow = 19, kTop = 6;
  double low = INFINITY, high = -INFINITY;
  for (const ForestRow &row : rows) {
    for (const double value : {row.value, row.interval.low, row.interval.high}) {
      if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
    }
  }
  if (!(low <= high)) return "";
  Scale x(low, high, kLeft, kRight, 4);
  x.widen();
  const double bottom = kTop + kRow * static_cast<double>(rows.size()), height = bottom + 18;
  std::string out = open_svg(title, kWidth, height);
  for (const double tick : x.ticks()) {
    out += line(x.at(tick), kTop, x.at(tick), bottom, "grid");
    out += label(x.at(tick), bottom + 13, fixed_html(tick, x.digits()), "middle");
  }
  if (reference >= 0) {
    const double at = x.at(rows[static_cast<size_t>(reference)].value);
    out += line(at, kTop, at, bottom, "axis");
  }
  for (size_t i = 0; i < rows.size(); i++) {
    const ForestRow &row = rows[i];
    const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    const size_t colour = static_cast<int>(i) == reference ? 0 : 1;
    out += label(kLeft - 10, y + 4, escape_html(shortened(row.name, 14)), "end", "strong");
    if (std::isfinite(row.interval.low) && std::isfinite(row.interval.high))
      out += line(x.at(row.interval.low), y, x.at(row.interval.high), y, text("line s", colour));
    if (std::isfinite(row.value))
      out += text("<circle class=\"f", colour, "\" cx=\"", number(x.at(row.value)), "\" cy=\"", number(y), "\" r=\"3.5\"/>\n");
    out += label(kWidth, y + 4, fixed_html(row.value, digits), "end", "strong");
  }
  return out + "</svg>\n";
}

std::string curves_svg(const std::string &title, const std::vector<Curve> &curves) {
  constexpr double kWidth = 340, kHeight = 190, kLeft = 36, kRight = 334, kTop = 8, kBottom = 168;
  constexpr size_t kPoints = 240;
  double last = 0, low = INFINITY, high = -INFINITY;
  for (const Curve &curve : curves) {
    for (const auto &[x, y] : curve.at) last = std::max(last, x), low = std::min(low, y), high = std::max(high, y);
  }
  if (!(low <= high)) return "";
  const Scale x(0, std::max(1.0, last), kLeft, kRight, 5);
  Scale y(low, high, kBottom, kTop, 4);
  y.widen();
  std::string out = open_svg(title, kWidth, kHeight);
  for (const double tick : y.ticks()) {
    out += line(kLeft, y.at(tick), kRight, y.at(tick), "grid");
    out += label(kLeft - 6, y.at(tick) + 4, fixed_html(tick, y.digits()), "end");
  }
  for (const double tick : x.ticks())
    if (tick == std::floor(tick)) out += label(x.at(tick), kBottom + 16, fixed_html(tick, 0), "middle");
  for (const Curve &curve : curves) {
    std::string path;
    for (const auto &[step, value] : curve.points ? curve.at : thinned(curve.at, kPoints)) {
      if (curve.points)
        out += text("<circle class=\"f", curve.colour, "\" cx=\"", number(x.at(step)), "\" cy=\"", number(y.at(value)),
                    "\" r=\"3\"/>\n");
      else path += text(path.empty() ? "M" : "L", number(x.at(step)), " ", number(y.at(value)));
    }
    if (!path.empty()) out += text("<path class=\"line s", curve.colour, curve.faint ? " faint" : "", "\" d=\"", path, "\"/>\n");
  }
  return out + "</svg>\n";
}

std::string heat_map_svg(const std::string &title, const std::vector<std::string> &rows,
                         const std::vector<std::vector<double>> &values, const std::string &columns) {
  constexpr double kLeft = 92, kCell = 16, kTop = 2;
  const size_t width = values.empty() ? 0 : values.front().size();
  if (width == 0) return "";
  const double cell = std::max(8.0, std::min(kCell, 560 / static_cast<double>(width))),
               right = kLeft + cell * static_cast<double>(width), bottom = kTop + kCell * static_cast<double>(rows.size());
  std::string out = open_svg(title, right + 12, bottom + 18);
  for (size_t r = 0; r < rows.size(); r++) {
    const double y = kTop + kCell * static_cast<double>(r);
    out += label(kLeft - 10, y + 12, escape_html(shortened(rows[r], 14)), "end", "strong");
    for (size_t c = 0; c < width; c++) {
      char strength[16];
      std::snprintf(strength, sizeof strength, "%.3f", std::clamp(values[r][c], 0.0, 1.0));
      out +=
          text("<rect class=\"f", colour_of(r), "\" x=\"", number(kLeft + cell * static_cast<double>(c)), "\" y=\"", number(y),
               "\" width=\"", number(cell - 1), "\" height=\"", number(kCell - 1), "\" fill-opacity=\"", strength, "\"><title>",
               escape_html(rows[r]), ", ", columns, " ", c, ": ", fixed_html(100 * values[r][c], 1), " %</title></rect>\n");
    }
  }
  for (size_t c = 0; c < width; c += 5)
    out += label(kLeft + cell * (static_cast<double>(c) + 0.5) - 0.5, bottom + 12, text(c), "middle");
  return out + label(kLeft - 10, bottom + 12, columns, "end") + "</svg>\n";
}

}  // namespace moe
