#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <tuple>

#include "base/checked.h"
#include "base/error.h"

namespace moe {

namespace {

static_assert(std::endian::native == std::endian::little, "values are used as they are stored");

// Limits beyond "fits the file". The format allows keys of 65,535 bytes.
constexpr uint64_t kMaxKey = 65'535, kMaxTensorName = 1'024, kMaxString = 64 << 20;
constexpr uint64_t kMaxKeys = 1 << 16, kMaxTensors = 1 << 20;
constexpr uint32_t kMaxRank = 4;
constexpr int64_t kMaxAlignment = 1 << 20, kDefaultAlignment = 32;
constexpr uint64_t kSmallestEntry = 8 + 4 + 1;            // empty key, type, one byte
constexpr uint64_t kSmallestTensor = 8 + 4 + 4 + 8;       // empty name, rank 0, type, offset

struct StoredType {
  uint32_t id;
  const char *name;
  uint64_t block_values, block_bytes;
  bool supported;
  DType dtype;
};
// Ids of ggml.h (enum ggml_type).
constexpr StoredType kTypes[] = {
    {0, "F32", 1, 4, true, DType::f32},         {1, "F16", 1, 2, true, DType::f16},
    {2, "Q4_0", 32, 18, true, DType::q4_0},     {3, "Q4_1", 32, 20, true, DType::q4_1},
    {6, "Q5_0", 32, 22, true, DType::q5_0},     {7, "Q5_1", 32, 24, true, DType::q5_1},
    {8, "Q8_0", 32, 34, true, DType::q8_0},     {9, "Q8_1", 32, 36, false, {}},
    {10, "Q2_K", 256, 84, true, DType::q2_k},   {11, "Q3_K", 256, 110, true, DType::q3_k},
    {12, "Q4_K", 256, 144, true, DType::q4_k},  {13, "Q5_K", 256, 176, true, DType::q5_k},
    {14, "Q6_K", 256, 210, true, DType::q6_k},  {15, "Q8_K", 256, 292, false, {}},
    {16, "IQ2_XXS", 256, 66, false, {}},        {17, "IQ2_XS", 256, 74, false, {}},
    {18, "IQ3_XXS", 256, 98, false, {}},        {19, "IQ1_S", 256, 50, false, {}},
    {20, "IQ4_NL", 32, 18, false, {}},          {21, "IQ3_S", 256, 110, false, {}},
    {22, "IQ2_S", 256, 82, false, {}},          {23, "IQ4_XS", 256, 136, false, {}},
    {24, "I8", 1, 1, false, {}},                {25, "I16", 1, 2, false, {}},
    {26, "I32", 1, 4, true, DType::i32},        {27, "I64", 1, 8, true, DType::i64},
    {28, "F64", 1, 8, false, {}},               {29, "IQ1_M", 256, 56, false, {}},
    {30, "BF16", 1, 2, true, DType::bf16},      {34, "TQ1_0", 256, 54, false, {}},
    {35, "TQ2_0", 256, 66, false, {}},          {39, "MXFP4", 32, 17, false, {}},
    {40, "NVFP4", 64, 36, false, {}},
};
const StoredType *find_type(uint32_t id) {
  for (const StoredType &type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

constexpr struct {
  const char *name;
  uint64_t bytes;  // 0: of its own length
} kValueTypes[] = {{"u8", 1},   {"i8", 1},   {"u16", 2},    {"i16", 2},   {"u32", 4}, {"i32", 4}, {"f32", 4},
                   {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

bool is_integer(GgufType type) {
  return type <= GgufType::i32 || type == GgufType::u64 || type == GgufType::i64;
}
bool is_float(GgufType type) { return type == GgufType::f32 || type == GgufType::f64; }

template <class T>
T load(const char *source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

// Element `i` of an integer array or scalar. u64 beyond i64 gives false.
bool integer_element(const GgufValue &value, uint64_t i, int64_t &out) {
  const char *at = value.bytes.data() + i * kValueTypes[static_cast<size_t>(value.type)].bytes;
  switch (value.type) {
    case GgufType::u8: out = load<uint8_t>(at); return true;
    case GgufType::i8: out = load<int8_t>(at); return true;
    case GgufType::u16: out = load<uint16_t>(at); return true;
    case GgufType::i16: out = load<int16_t>(at); return true;
    case GgufType::u32: out = load<uint32_t>(at); return true;
    case GgufType::i32: out = load<int32_t>(at); return true;
    case GgufType::i64: out = load<int64_t>(at); return true;
    case GgufType::u64: out = load<int64_t>(at); return out >= 0;
    default: return false;
  }
}

double float_element(const GgufValue &value, uint64_t i) {
  return value.type == GgufType::f32 ? static_cast<double>(load<float>(value.bytes.data() + i * 4))
                                     : load<double>(value.bytes.data() + i * 8);
}

std::string type_text(const GgufValue &value) {
  return std::string(value.is_array ? "an array of " : "") + gguf_type_name(value.type);
}

}  // namespace

const char *gguf_type_name(GgufType type) { return kValueTypes[static_cast<size_t>(type)].name; }

// Reads the head of the file front to back through a window.
class GgufCursor {
 public:
  explicit GgufCursor(const File &file) : file_(file) {}

  uint64_t position() const { return window_start_ + at_; }
  uint64_t remaining() const { return file_.size() - position(); }

  void read(void *destination, uint64_t bytes, const char *what) {
    if (bytes > remaining()) {
      fail(Code::format, file_.path(), ": ", what, " at byte ", position(), " needs ", bytes, " bytes, ", remaining(), " remain");
    }
    auto *out = static_cast<char *>(destination);
    while (bytes > 0) {
      if (at_ == window_.size()) refill();
      const uint64_t part = std::min<uint64_t>(bytes, window_.size() - at_);
      std::memcpy(out, window_.data() + at_, part);
      at_ += part, out += part, bytes -= part;
    }
  }
  template <class T>
  T number(const char *what) {
    T value;
    read(&value, sizeof value, what);
    return value;
  }
  uint64_t string_length(uint64_t limit, const char *what) {
    const uint64_t start = position();
    const auto length = number<uint64_t>(what);
    if (length > std::min(limit, remaining())) {
      fail(Code::format, file_.path(), ": ", what, " at byte ", start, " has length ", length, "; at most ",
           std::min(limit, remaining()), " are possible");
    }
    return length;
  }
  void append(std::string &out, uint64_t bytes, const char *what) {
    const size_t old = out.size();
    out.resize(old + bytes);
    read(out.data() + old, bytes, what);
  }
  std::string name(uint64_t limit, const char *what) {
    const uint64_t start = position();
    std::string out;
    append(out, string_length(limit, what), what);
    if (!is_printable(out)) fail(Code::format, file_.path(), ": ", what, " at byte ", start, " has control characters");
    return out;
  }

 private:
  void refill() {
    window_start_ += window_.size();
    at_ = 0;
    window_.resize(std::min<uint64_t>(kWindow, file_.size() - window_start_));
    file_.read(window_start_, window_.data(), window_.size());
  }

  static constexpr uint64_t kWindow = 1 << 20;
  const File &file_;
  std::vector<char> window_;
  uint64_t window_start_ = 0, at_ = 0;
};

Gguf::Gguf(const std::string &path) : TensorSource(path) {
  const File &file = files_.emplace_back(path);
  GgufCursor cursor(file);
  char magic[4];
  cursor.read(magic, sizeof magic, "magic");
  if (std::memcmp(magic, "GGUF", 4) != 0) fail(Code::format, path, ": does not begin with 'GGUF'");
  version_ = cursor.number<uint32_t>("version");
  if (version_ != 0 && (version_ & 0xffff) == 0) fail(Code::unsupported, path, ": a big-endian GGUF file");
  if (version_ != 2 && version_ != 3) fail(Code::unsupported, path, ": GGUF version ", version_, "; supported are 2 and 3");
  const auto tensor_count = cursor.number<uint64_t>("tensor count");
  const auto key_count = cursor.number<uint64_t>("metadata count");
  if (key_count > std::min(kMaxKeys, cursor.remaining() / kSmallestEntry)) {
    fail(Code::format, path, ": ", key_count, " metadata entries do not fit the file");
  }
  read_metadata(cursor, key_count);
  if (integer_or("split.count", 1) > 1) {
    fail(Code::unsupported, path, ": one of ", integer_or("split.count", 1), " parts of a split GGUF; merge the parts first");
  }
  if (tensor_count > std::min(kMaxTensors, cursor.remaining() / kSmallestTensor)) {
    fail(Code::format, path, ": ", tensor_count, " tensors do not fit the file");
  }
  read_tensors(cursor, tensor_count);
}

void Gguf::read_metadata(GgufCursor &cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.name(kMaxKey, "metadata key");
    const std::string where = text(path(), ": key '", key, "'");
    const auto read_type = [&] {
      const auto type = cursor.number<uint32_t>("value type");
      if (type >= std::size(kValueTypes)) fail(Code::format, where, ": value type ", type, " does not exist");
      return static_cast<GgufType>(type);
    };
    GgufValue value;
    value.type = read_type();
    if (value.type == GgufType::array) {
      value.is_array = true;
      value.type = read_type();
      if (value.type == GgufType::array) fail(Code::unsupported, where, ": an array of arrays");
      value.count = cursor.number<uint64_t>("array length");
    }
    const uint64_t width = kValueTypes[static_cast<size_t>(value.type)].bytes;
    if (value.count > cursor.remaining() / (width ? width : sizeof(uint64_t))) {
      fail(Code::format, where, ": ", value.count, " elements do not fit the ", cursor.remaining(), " bytes that remain");
    }
    if (value.type == GgufType::string) {
      for (uint64_t j = 0; j < value.count; ++j) {
        cursor.append(value.bytes, cursor.string_length(kMaxString, "string"), "string");
        value.ends.push_back(value.bytes.size());
      }
    } else {
      cursor.append(value.bytes, value.count * width, "value");
      const auto not_a_bit = [](char byte) { return byte != 0 && byte != 1; };
      if (value.type == GgufType::boolean && std::any_of(value.bytes.begin(), value.bytes.end(), not_a_bit)) {
        fail(Code::format, where, ": a bool that is neither 0 nor 1");
      }
    }
    if (!keys_.emplace(key, metadata_.size()).second) fail(Code::format, where, " occurs twice");
    metadata_.emplace_back(std::move(key), std::move(value));
  }
}

uint64_t Gguf::read_alignment() const {
  const int64_t alignment = integer_or("general.alignment", kDefaultAlignment);
  if (alignment < 1 || alignment > kMaxAlignment || !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    fail(Code::format, path(), ": key 'general.alignment': expected a power of two up to ", kMaxAlignment, ", found ", alignment);
  }
  return static_cast<uint64_t>(alignment);
}

void Gguf::read_tensors(GgufCursor &cursor, uint64_t count) {
  const uint64_t alignment = read_alignment(), file_size = files_[0].size();
  std::vector<TensorInfo> tensors;
  for (uint64_t i = 0; i < count; ++i) {
    TensorInfo tensor;
    tensor.name = cursor.name(kMaxTensorName, "tensor name");
    const std::string where = text(path(), ": tensor '", tensor.name, "'");
    const auto rank = cursor.number<uint32_t>("tensor rank");
    if (rank > kMaxRank) fail(Code::format, where, ": rank ", rank, ", at most ", kMaxRank);
    uint64_t elements = 1, extent = 1;  // extent: as if no dimension were 0, so that the product fits in any order
    for (uint32_t d = 0; d < rank; ++d) {
      const auto dimension = cursor.number<uint64_t>("dimension");
      elements *= dimension;
      extent = checked_multiply(extent, std::max<uint64_t>(dimension, 1), where);
      if (extent >> 63) fail(Code::format, where, ": dimension ", dimension, " is too large");
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dimension));
    }
    const auto type_id = cursor.number<uint32_t>("tensor type");
    const auto offset = cursor.number<uint64_t>("tensor offset");
    if (offset % alignment != 0) fail(Code::format, where, ": offset ", offset, " is not a multiple of ", alignment);
    tensor.offset = offset;

    const StoredType *type = find_type(type_id);
    if (!type || !type->supported) tensor.unsupported = type ? type->name : text("number ", type_id);
    if (type) {
      const uint64_t columns = tensor.shape.empty() ? 1 : static_cast<uint64_t>(tensor.shape.back());
      if (columns % type->block_values != 0) {
        fail(Code::format, where, ": ", columns, " columns do not divide into ", type->name, " blocks of ", type->block_values);
      }
      tensor.bytes = checked_multiply(elements / type->block_values, type->block_bytes, where);
      tensor.dtype = type->dtype;
    }
    tensors.push_back(std::move(tensor));
  }

  const uint64_t head = cursor.position();
  const uint64_t data_start = checked_add(head, (alignment - head % alignment) % alignment, path());
  for (TensorInfo &tensor : tensors) {
    const std::string where = text(path(), ": tensor '", tensor.name, "'");
    tensor.offset = checked_add(data_start, tensor.offset, where);
    const uint64_t end = checked_add(tensor.offset, tensor.bytes, where);
    if (end > file_size) fail(Code::format, where, ": ends at byte ", end, ", the file at byte ", file_size);
  }
  std::vector<const TensorInfo *> order;
  for (const TensorInfo &tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorInfo *a, const TensorInfo *b) {
    return std::tie(a->offset, a->bytes, a->name) < std::tie(b->offset, b->bytes, b->name);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes) {
      fail(Code::format, path(), ": tensors '", order[i - 1]->name, "' and '", order[i]->name, "' overlap");
    }
  }
  for (TensorInfo &tensor : tensors) {
    std::string name = tensor.name;
    if (!add(std::move(tensor))) fail(Code::format, path(), ": tensor '", name, "' occurs twice");
  }
}

const GgufValue *Gguf::find_key(std::string_view key) const {
  const auto found = keys_.find(key);
  return found == keys_.end() ? nullptr : &metadata_[found->second].second;
}

const GgufValue &Gguf::value_at(std::string_view key) const {
  const GgufValue *value = find_key(key);
  if (!value) fail(Code::format, path(), ": key '", key, "' is missing");
  return *value;
}

std::string_view Gguf::string_at(std::string_view key) const {
  const GgufValue &value = value_at(key);
  if (value.type != GgufType::string || value.is_array) {
    fail(Code::format, path(), ": key '", key, "': expected a string, found ", type_text(value));
  }
  return value.bytes;
}

int64_t Gguf::integer_at(std::string_view key) const {
  const GgufValue &value = value_at(key);
  if (!is_integer(value.type) || value.is_array) {
    fail(Code::format, path(), ": key '", key, "': expected an integer, found ", type_text(value));
  }
  int64_t out = 0;
  if (!integer_element(value, 0, out)) fail(Code::format, path(), ": key '", key, "': the integer is too large");
  return out;
}

double Gguf::number_at(std::string_view key) const {
  const GgufValue &value = value_at(key);
  if (is_integer(value.type) && !value.is_array) return static_cast<double>(integer_at(key));
  if (!is_float(value.type) || value.is_array) {
    fail(Code::format, path(), ": key '", key, "': expected a number, found ", type_text(value));
  }
  const double out = float_element(value, 0);
  if (!std::isfinite(out)) fail(Code::format, path(), ": key '", key, "': expected a finite number, found ", out);
  return out;
}

std::string_view Gguf::string_or(std::string_view key, std::string_view otherwise) const {
  return find_key(key) ? string_at(key) : otherwise;
}
int64_t Gguf::integer_or(std::string_view key, int64_t otherwise) const { return find_key(key) ? integer_at(key) : otherwise; }
double Gguf::number_or(std::string_view key, double otherwise) const { return find_key(key) ? number_at(key) : otherwise; }

bool Gguf::bool_or(std::string_view key, bool otherwise) const {
  const GgufValue *value = find_key(key);
  if (!value) return otherwise;
  if (value->type != GgufType::boolean || value->is_array) {
    fail(Code::format, path(), ": key '", key, "': expected a bool, found ", type_text(*value));
  }
  return value->bytes[0] != 0;
}

const GgufValue &Gguf::strings_at(std::string_view key) const {
  const GgufValue &value = value_at(key);
  if (value.type != GgufType::string || !value.is_array) {
    fail(Code::format, path(), ": key '", key, "': expected an array of strings, found ", type_text(value));
  }
  return value;
}

std::vector<int64_t> Gguf::integers_at(std::string_view key) const {
  const GgufValue &value = value_at(key);
  if (!is_integer(value.type) || !value.is_array) {
    fail(Code::format, path(), ": key '", key, "': expected an array of integers, found ", type_text(value));
  }
  std::vector<int64_t> out(value.count);
  for (uint64_t i = 0; i < value.count; ++i) {
    if (!integer_element(value, i, out[i])) fail(Code::format, path(), ": key '", key, "': element ", i, " is too large");
  }
  return out;
}

std::vector<float> Gguf::floats_at(std::string_view key) const {
  const GgufValue &value = value_at(key);
  if (!is_float(value.type) || !value.is_array) {
    fail(Code::format, path(), ": key '", key, "': expected an array of floats, found ", type_text(value));
  }
  std::vector<float> out(value.count);
  for (uint64_t i = 0; i < value.count; ++i) out[i] = static_cast<float>(float_element(value, i));
  return out;
}

}  // namespace moe
