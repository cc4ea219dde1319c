// A file or a set of files that holds named tensors: what a model, an adapter or a batch loads from.
// Shapes are in Hugging Face order: a matrix is [out, in] and rows are contiguous, whatever the file's own order is.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/dtype.h"

namespace moe {

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // empty = one value
  uint64_t offset = 0;         // of the first byte, from the start of the file
  uint64_t bytes = 0;
  int file = 0;                // index of the file of the source that holds it
  std::string unsupported;     // the stored type's name when it is none of DType; such a tensor cannot be read

  int64_t elements() const;    // product of the shape; checked when the file was opened
};

// No control characters: a name that may stand in a message of one line.
bool is_printable(std::string_view name);
std::string shape_text(const std::vector<int64_t> &shape);  // "[64, 48]"

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  TensorSource(TensorSource &&) = default;

  const std::string &path() const { return path_; }  // as given by the caller: opens every message
  const std::vector<TensorInfo> &tensors() const { return tensors_; }
  const TensorInfo *find(std::string_view name) const;  // nullptr when absent
  const TensorInfo &at(std::string_view name) const;    // Code::format "<path>: tensor 'x' is missing"
  const std::string &file_path(const TensorInfo &tensor) const;

  std::vector<FileMapping> map() const;  // by TensorInfo::file

  // The stored bytes. Code::unsupported when the type cannot be read. Several threads may read at once.
  void read(const TensorInfo &tensor, void *destination) const;
  void read_range(const TensorInfo &tensor, uint64_t byte_offset, void *destination, size_t bytes) const;
  // The values: weights (plain or quantized) as f32, i32 as they are. Another type is Code::format.
  std::vector<float> read_floats(const TensorInfo &tensor) const;
  std::vector<int32_t> read_integers(const TensorInfo &tensor) const;

 protected:
  explicit TensorSource(std::string path) : path_(std::move(path)) {}
  bool add(TensorInfo tensor);  // false when the name is taken

  std::vector<File> files_;

 private:
  std::string path_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace moe
