// Stop strings in a stream of text: what could still become one is held back until it is decided. The result does not depend on
// how the text is cut into pieces: the stop string that is complete first ends the text, of several that end together the
// longest.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace moe {

class StopText {
 public:
  explicit StopText(std::vector<std::string> stop);  // Code::invalid for an empty string
  std::string push(std::string_view piece);          // the text that is certainly part of the answer
  std::string finish();                              // what is held back at the end
  bool stopped() const { return stopped_; }          // a stop string was found: it and what follows are cut away

 private:
  std::vector<std::string> stop_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace moe
