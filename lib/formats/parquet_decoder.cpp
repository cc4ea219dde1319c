#include "formats/parquet_decoder.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace moe {
namespace {

constexpr size_t kStoreLimit = 1 << 20;  // bytes after which a decoder that makes new texts stops early

template <class T>
T load(const char *from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Appends `count` fixed-width values.
void append_fixed(std::string_view bytes, size_t count, ParquetColumnType type, ParquetValues &out) {
  const char *from = bytes.data();
  const uint32_t width = type.width();
  if (type.is_text()) {
    for (size_t i = 0; i < count; ++i) out.texts.emplace_back(from + i * width, width);
  } else if (type.physical == ParquetPhysical::float32) {
    for (size_t i = 0; i < count; ++i) out.words.push_back(load<uint32_t>(from + i * 4));
  } else if (width == 4) {
    for (size_t i = 0; i < count; ++i) out.words.push_back(static_cast<uint64_t>(load<int32_t>(from + i * 4)));
  } else {
    for (size_t i = 0; i < count; ++i) out.words.push_back(load<uint64_t>(from + i * 8));
  }
}

class PlainFixed : public ParquetDecoder {
 public:
  PlainFixed(ParquetColumnType type, ByteReader bytes) : type_(type), bytes_(bytes) {}
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    append_fixed(bytes_.take(checked_multiply(wanted, type_.width(), bytes_.where())), wanted, type_, out);
    return wanted;
  }

 private:
  ParquetColumnType type_;
  ByteReader bytes_;
};

class PlainBytes : public ParquetDecoder {
 public:
  explicit PlainBytes(ByteReader bytes) : bytes_(bytes) {}
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    out.texts.reserve(wanted);
    for (size_t i = 0; i < wanted; ++i) out.texts.push_back(bytes_.take(bytes_.u32()));
    return wanted;
  }

 private:
  ByteReader bytes_;
};

class PlainBooleans : public ParquetDecoder {
 public:
  explicit PlainBooleans(ByteReader bytes) : bytes_(bytes.rest()), where_(bytes.where()) {}
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    if (wanted > bytes_.size() * 8 - at_)
      fail(Code::format, where_, ": ", wanted, " booleans are needed, ", bytes_.size() * 8 - at_, " remain");
    for (size_t i = 0; i < wanted; ++i) out.words.push_back(packed_value(bytes_, at_++, 1));
    return wanted;
  }

 private:
  std::string_view bytes_, where_;
  size_t at_ = 0;
};

class RunsOfBooleans : public ParquetDecoder {
 public:
  explicit RunsOfBooleans(ByteReader bytes) {
    const uint32_t length = bytes.u32();
    runs_ = HybridReader(ByteReader(bytes.take(length), bytes.where()), 1);
  }
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    values_.resize(wanted);
    runs_.read(values_.data(), wanted, 1);
    out.words.assign(values_.begin(), values_.end());
    return wanted;
  }

 private:
  HybridReader runs_;
  std::vector<uint8_t> values_;
};

class DictionaryDecoder : public ParquetDecoder {
 public:
  DictionaryDecoder(ParquetColumnType type, ByteReader bytes, const ParquetValues &dictionary)
      : dictionary_(dictionary), where_(bytes.where()), is_text_(type.is_text()),
        size_(is_text_ ? dictionary.texts.size() : dictionary.words.size()) {
    if (bytes.remaining() == 0) return;  // a page of nulls
    const unsigned width = static_cast<uint8_t>(bytes.take(1)[0]);
    if (width > 32) fail(Code::format, bytes.where(), ": dictionary indices of ", width, " bits");
    indices_ = HybridReader(bytes, width);
  }
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    if (size_ == 0) fail(Code::format, where_, ": refers to an empty dictionary");
    found_.resize(wanted);
    indices_.read(found_.data(), wanted, static_cast<uint32_t>(size_ - 1));
    if (is_text_) {
      out.texts.resize(wanted);
      for (size_t i = 0; i < wanted; ++i) out.texts[i] = dictionary_.texts[found_[i]];
    } else {
      out.words.resize(wanted);
      for (size_t i = 0; i < wanted; ++i) out.words[i] = dictionary_.words[found_[i]];
    }
    return wanted;
  }

 private:
  const ParquetValues &dictionary_;
  std::string_view where_;
  bool is_text_;
  size_t size_;
  HybridReader indices_;
  std::vector<uint32_t> found_;
};

class DeltaIntegers : public ParquetDecoder {
 public:
  DeltaIntegers(ParquetColumnType type, ByteReader bytes) : deltas_(bytes), is_short_(type.physical == ParquetPhysical::int32) {}
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    for (size_t i = 0; i < wanted; ++i) {
      const int64_t value = deltas_.next();
      out.words.push_back(static_cast<uint64_t>(is_short_ ? static_cast<int32_t>(value) : value));
    }
    return wanted;
  }

 private:
  DeltaReader deltas_;
  bool is_short_;
};

// The lengths of all texts, then the texts one after the other.
class DeltaLengths {
 public:
  explicit DeltaLengths(ByteReader bytes) : lengths_(bytes) {
    bytes.take(DeltaReader::length(bytes));
    bytes_ = bytes;
  }
  std::string_view next() {
    const int64_t length = lengths_.next();
    if (length < 0) fail(Code::format, bytes_.where(), ": a text of length ", length);
    return bytes_.take(static_cast<uint64_t>(length));
  }

 private:
  DeltaReader lengths_;
  ByteReader bytes_;
};

class DeltaLengthBytes : public ParquetDecoder {
 public:
  explicit DeltaLengthBytes(ByteReader bytes) : texts_(bytes) {}
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    for (size_t i = 0; i < wanted; ++i) out.texts.push_back(texts_.next());
    return wanted;
  }

 private:
  DeltaLengths texts_;
};

// How many bytes each text shares with the one before, then the rests as DELTA_LENGTH_BYTE_ARRAY.
class DeltaBytes : public ParquetDecoder {
 public:
  DeltaBytes(ParquetColumnType type, ByteReader bytes)
      : type_(type), where_(bytes.where()), prefixes_(bytes), rests_(behind(bytes)) {}
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    ends_.clear();
    while (ends_.size() < wanted && out.store.size() < kStoreLimit) {
      const int64_t prefix = prefixes_.next();
      if (prefix < 0 || static_cast<uint64_t>(prefix) > last_.size()) {
        fail(Code::format, where_, ": a text shares ", prefix, " bytes with one of ", last_.size());
      }
      last_.resize(static_cast<size_t>(prefix));
      last_ += rests_.next();
      if (type_.physical == ParquetPhysical::fixed_length && last_.size() != type_.fixed_length) {
        fail(Code::format, where_, ": expected ", type_.fixed_length, " bytes in a value, found ", last_.size());
      }
      out.store += last_;
      ends_.push_back(out.store.size());
    }
    size_t begin = 0;
    for (const size_t end : ends_) out.texts.push_back(std::string_view(out.store).substr(begin, end - begin)), begin = end;
    return ends_.size();
  }

 private:
  static ByteReader behind(ByteReader bytes) {
    bytes.take(DeltaReader::length(bytes));
    return bytes;
  }

  ParquetColumnType type_;
  std::string_view where_;
  DeltaReader prefixes_;
  DeltaLengths rests_;
  std::string last_;
  std::vector<size_t> ends_;
};

// All first bytes of the values, then all second bytes, and so on.
class ByteStreamSplit : public ParquetDecoder {
 public:
  ByteStreamSplit(ParquetColumnType type, ByteReader bytes) : type_(type), where_(bytes.where()), bytes_(bytes.rest()) {
    if (bytes_.size() % type.width() != 0) {
      fail(Code::format, where_, ": ", bytes_.size(), " bytes are no number of values of ", type.width(), " bytes");
    }
    count_ = bytes_.size() / type.width();
  }
  size_t decode(size_t wanted, ParquetValues &out) override {
    out.clear();
    if (wanted > count_ - at_)
      fail(Code::format, where_, ": ", wanted, " values are needed, ", count_ - at_, " remain in the page");
    const uint32_t width = type_.width();
    const size_t part = std::min(wanted, std::max<size_t>(1, kStoreLimit / width));
    out.store.resize(part * width);
    for (size_t i = 0; i < part; ++i, ++at_) {
      for (uint32_t k = 0; k < width; ++k) out.store[i * width + k] = bytes_[k * count_ + at_];
    }
    append_fixed(out.store, part, type_, out);
    return part;
  }

 private:
  ParquetColumnType type_;
  std::string_view where_, bytes_;
  size_t count_ = 0, at_ = 0;
};

}  // namespace

uint32_t ParquetColumnType::width() const {
  switch (physical) {
    case ParquetPhysical::int32:
    case ParquetPhysical::float32: return 4;
    case ParquetPhysical::int64:
    case ParquetPhysical::float64: return 8;
    case ParquetPhysical::int96: return 12;
    case ParquetPhysical::fixed_length: return fixed_length;
    default: return 0;
  }
}

std::unique_ptr<ParquetDecoder> make_parquet_decoder(ParquetEncoding encoding, ParquetColumnType type, ByteReader bytes,
                                                     const ParquetValues *dictionary) {
  using P = ParquetPhysical;
  const P physical = type.physical;
  switch (encoding) {
    case ParquetEncoding::plain:
      if (physical == P::boolean) return std::make_unique<PlainBooleans>(bytes);
      if (physical == P::byte_array) return std::make_unique<PlainBytes>(bytes);
      return std::make_unique<PlainFixed>(type, bytes);
    case ParquetEncoding::plain_dictionary:
    case ParquetEncoding::rle_dictionary:
      if (!dictionary) fail(Code::format, bytes.where(), ": refers to a dictionary, and the column has none");
      return std::make_unique<DictionaryDecoder>(type, bytes, *dictionary);
    case ParquetEncoding::rle:
      if (physical == P::boolean) return std::make_unique<RunsOfBooleans>(bytes);
      break;
    case ParquetEncoding::delta_binary_packed:
      if (physical == P::int32 || physical == P::int64) return std::make_unique<DeltaIntegers>(type, bytes);
      break;
    case ParquetEncoding::delta_length_byte_array:
      if (physical == P::byte_array) return std::make_unique<DeltaLengthBytes>(bytes);
      break;
    case ParquetEncoding::delta_byte_array:
      if (physical == P::byte_array || physical == P::fixed_length) return std::make_unique<DeltaBytes>(type, bytes);
      break;
    case ParquetEncoding::byte_stream_split:
      if (type.width() > 0 && physical != P::int96) return std::make_unique<ByteStreamSplit>(type, bytes);
      break;
    default: break;
  }
  fail(Code::unsupported, bytes.where(), ": ", parquet_name(physical), " values in encoding ", parquet_name(encoding));
}

}  // namespace moe
