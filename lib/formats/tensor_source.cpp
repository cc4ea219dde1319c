#include "formats/tensor_source.h"

#include <algorithm>

#include "base/error.h"
#include "tensor/dequantize.h"

namespace moe {

int64_t TensorInfo::elements() const {
  int64_t product = 1;
  for (int64_t dimension : shape) product *= dimension;
  return product;
}

bool is_printable(std::string_view name) {
  return std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

std::string shape_text(const std::vector<int64_t> &shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

const TensorInfo *TensorSource::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const TensorInfo &TensorSource::at(std::string_view name) const {
  const TensorInfo *tensor = find(name);
  if (!tensor) fail(Code::format, path_, ": tensor '", name, "' is missing");
  return *tensor;
}

const std::string &TensorSource::file_path(const TensorInfo &tensor) const {
  return files_.at(static_cast<size_t>(tensor.file)).path();
}

void TensorSource::read(const TensorInfo &tensor, void *destination) const {
  read_range(tensor, 0, destination, tensor.bytes);
}

void TensorSource::read_range(const TensorInfo &tensor, uint64_t byte_offset, void *destination, size_t bytes) const {
  if (!tensor.unsupported.empty()) {
    fail(Code::unsupported, file_path(tensor), ": tensor '", tensor.name, "' has type ", tensor.unsupported,
         ", which is not supported");
  }
  if (byte_offset > tensor.bytes || bytes > tensor.bytes - byte_offset) {
    fail(Code::invalid, file_path(tensor), ": tensor '", tensor.name, "' has ", tensor.bytes, " bytes; bytes ", byte_offset,
         " to ", byte_offset, " + ", bytes, " were asked for");
  }
  if (bytes > 0) files_[static_cast<size_t>(tensor.file)].read(tensor.offset + byte_offset, destination, bytes);
}

std::vector<FileMapping> TensorSource::map() const { return {files_.begin(), files_.end()}; }

std::vector<float> TensorSource::read_floats(const TensorInfo &tensor) const {
  if (tensor.dtype == DType::i32 || tensor.dtype == DType::i64 || tensor.dtype == DType::u8) {
    fail(Code::format, file_path(tensor), ": tensor '", tensor.name, "': expected a floating-point type, found ",
         dtype_info(tensor.dtype).name);
  }
  std::vector<float> values(static_cast<size_t>(tensor.unsupported.empty() ? tensor.elements() : 0));
  if (tensor.dtype == DType::f32) {
    read(tensor, values.data());
    return values;
  }
  std::vector<std::byte> stored(tensor.unsupported.empty() ? tensor.bytes : 0);
  read(tensor, stored.data());
  dequantize(tensor.dtype, stored.data(), tensor.elements(), values.data());
  return values;
}

std::vector<int32_t> TensorSource::read_integers(const TensorInfo &tensor) const {
  if (tensor.unsupported.empty() && tensor.dtype != DType::i32) {
    fail(Code::format, file_path(tensor), ": tensor '", tensor.name, "': expected type I32, found ",
         dtype_info(tensor.dtype).name);
  }
  std::vector<int32_t> values(static_cast<size_t>(tensor.unsupported.empty() ? tensor.elements() : 0));
  read(tensor, values.data());
  return values;
}

bool TensorSource::add(TensorInfo tensor) {
  if (!index_.emplace(tensor.name, tensors_.size()).second) return false;
  tensors_.push_back(std::move(tensor));
  return true;
}

}  // namespace moe
