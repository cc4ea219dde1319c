// Charts of the report as inline SVG: they need no script, follow the colours of the page and are read out by their title.
#pragma once
#include <string>
#include <vector>

#include "eval/statistics.h"

namespace moe {

// Values with intervals, one row each, over a common axis. `reference`: index of the row whose value is drawn as a line, -1 =
// none.
struct ForestRow {
  std::string name;
  double value = 0;
  Interval interval;
};
std::string forest_svg(const std::string &title, const std::vector<ForestRow> &rows, int digits, int reference);

// Curves over steps. faint: drawn thin, behind the others. points: marks without a line.
struct Curve {
  std::string name;
  size_t colour = 1;
  bool faint = false, points = false;
  std::vector<std::pair<double, double>> at;  // x, y; ascending x
};
std::string curves_svg(const std::string &title, const std::vector<Curve> &curves);

// Shares in [0, 1] as the strength of colours: rows of names, one column a layer. values[row][column].
std::string heat_map_svg(const std::string &title, const std::vector<std::string> &rows,
                         const std::vector<std::vector<double>> &values, const std::string &columns);

}  // namespace moe
