// GGUF, the model file of llama.cpp (github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3, read only.
//
//   "GGUF", version u32, tensor count u64, metadata count u64                        all little endian
//   metadata count times:  key string, type u32, value
//     string = length u64, bytes (no terminator);  array = element type u32, count u64, elements (no arrays of arrays)
//     types: 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f32, 7 bool (one byte), 8 string, 9 array, 10 u64, 11 i64, 12 f64
//   tensor count times:    name string, rank u32, dimensions u64 [rank] (fastest first), type u32, offset u64
//   padding to the alignment (`general.alignment`, 32 when absent), then the data; offsets count from its start
//
// Every number is checked against what remains of the file before it is used. TensorInfo::shape has the dimensions in
// reversed order, so that a matrix is [out, in]. Names are the file's own ("blk.0.attn_q.weight").
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/tensor_source.h"

namespace moe {

enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
const char *gguf_type_name(GgufType type);

// One metadata value. An array of strings is one block of text with the end of each string, not many small strings.
struct GgufValue {
  GgufType type = GgufType::u8;     // of the value, or of the elements of an array
  bool is_array = false;
  uint64_t count = 1;               // elements of an array
  std::string bytes;                // the elements as stored, little endian; text of strings without their lengths
  std::vector<uint64_t> ends;       // strings: ends[i] = end of string i in `bytes`

  std::string_view string(uint64_t i) const {
    const uint64_t begin = i == 0 ? 0 : ends[i - 1];
    return std::string_view(bytes).substr(begin, ends[i] - begin);
  }
};

class Gguf : public TensorSource {
 public:
  explicit Gguf(const std::string &path);

  uint32_t version() const { return version_; }
  const std::vector<std::pair<std::string, GgufValue>> &metadata() const { return metadata_; }  // in the order of the file
  const GgufValue *find_key(std::string_view key) const;  // nullptr when absent

  // Typed access. Integers of any width and sign are one kind, floats of both widths another (a float key may hold an
  // integer). A wrong kind or a value out of range is Code::format naming file and key; _at also when the key is absent.
  std::string_view string_at(std::string_view key) const;
  int64_t integer_at(std::string_view key) const;
  double number_at(std::string_view key) const;
  std::string_view string_or(std::string_view key, std::string_view otherwise) const;
  int64_t integer_or(std::string_view key, int64_t otherwise) const;
  double number_or(std::string_view key, double otherwise) const;
  bool bool_or(std::string_view key, bool otherwise) const;
  const GgufValue &strings_at(std::string_view key) const;            // an array of strings, not copied
  std::vector<int64_t> integers_at(std::string_view key) const;       // an array of integers
  std::vector<float> floats_at(std::string_view key) const;           // an array of floats

 private:
  const GgufValue &value_at(std::string_view key) const;
  void read_metadata(class GgufCursor &cursor, uint64_t count);
  void read_tensors(class GgufCursor &cursor, uint64_t count);
  uint64_t read_alignment() const;

  uint32_t version_ = 0;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::map<std::string, size_t, std::less<>> keys_;
};

}  // namespace moe
