// TensorBoard event files: scalars over steps. A file is a row of records (TFRecord):
//   u64 length, u32 masked CRC-32C of it, `length` bytes, u32 masked CRC-32C of them      (little-endian)
// and each record is a message `Event` (tensorflow/core/util/event.proto): 1 wall_time f64, 2 step i64, and one of 3 file_version,
// 5 summary {1 value {1 tag, 2 simple_value f32}}, 7 session_log {1 status}. A start of a session at step N tells the reader to
// forget what earlier files of the folder hold from step N on, so that steps which a resumed run makes again stand once.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.h"

namespace moe {

class EventFile {
 public:
  // Writes a new file <folder>/events.out.tfevents.<seconds>.libmoe at the first record. `first_step`: the step that comes next.
  EventFile(std::string folder, int64_t first_step) : folder_(std::move(folder)), first_step_(first_step) {}

  // Values that are not finite are written as they are. A failed write ends the file: the next scalars begin another.
  void scalars(int64_t step, const std::vector<std::pair<std::string, double>> &values);

 private:
  void record(const std::string &event);
  void open();

  std::string folder_;
  int64_t first_step_;
  std::unique_ptr<AppendFile> file_;
};

uint32_t crc32c(std::string_view bytes);  // Castagnoli, reflected, as in RFC 3720

}  // namespace moe
