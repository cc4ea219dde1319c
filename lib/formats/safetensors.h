// Safetensors, the checkpoint format of Hugging Face (github.com/huggingface/safetensors), read and written.
//
//   bytes 0-7    N, little-endian u64: length of the header, at most 100 MB
//   N bytes      JSON: {"__metadata__": {string: string}, "<name>": {"dtype": "F32", "shape": [2, 3],
//                       "data_offsets": [begin, end]}, ...}; begins with '{', may end in spaces
//   the rest     the tensors' bytes, row-major, little endian; offsets count from here, leave no hole, do not overlap
//                and end exactly at the end of the file
#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tensor_source.h"

namespace moe {

using SafetensorsMetadata = std::map<std::string, std::string, std::less<>>;

class Safetensors : public TensorSource {
 public:
  // A file (*.safetensors), an index (*.json) whose shards lie beside it, or a folder that holds
  // model.safetensors or else model.safetensors.index.json.
  explicit Safetensors(const std::string &path);

  const SafetensorsMetadata &metadata() const { return metadata_; }  // `__metadata__` of the first file
  std::string metadata_or(std::string_view key, std::string otherwise) const;

 private:
  void open_index(const std::string &index_path);
  std::vector<TensorInfo> open_file(const std::string &file_path);

  SafetensorsMetadata metadata_;
};

// True when Safetensors(folder) has something to open.
bool has_safetensors(const std::string &folder);

struct TensorToWrite {
  std::string name;
  DType dtype = DType::f32;       // a plain number; the quantized types have no safetensors name
  std::vector<int64_t> shape;
  const void *data = nullptr;     // row-major; product of shape elements
};

// Data is laid out by falling element size, then by name, so that equal tensors give equal files and every
// tensor is aligned to its element.
std::string encode_safetensors(std::span<const TensorToWrite> tensors, const SafetensorsMetadata &metadata = {});
// Writes straight to `path` without a copy of the data (into an AtomicFolder, whose commit() makes it durable).
void write_safetensors(const std::string &path, std::span<const TensorToWrite> tensors, const SafetensorsMetadata &metadata = {});
// One file that appears whole or not at all; holds a copy of the data while it writes.
void write_safetensors_atomic(const std::string &path, std::span<const TensorToWrite> tensors,
                              const SafetensorsMetadata &metadata = {});

}  // namespace moe
