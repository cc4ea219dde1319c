#include "formats/parquet_column.h"

#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "base/error.h"

namespace moe {
namespace {

constexpr uint64_t kAtOnce = 1024;  // entries

}  // namespace

ParquetLevels::ParquetLevels(ByteReader bytes, uint8_t largest, bool is_old, uint32_t values)
    : largest_(largest), width_(static_cast<unsigned>(std::bit_width(largest))), is_old_(is_old), where_(bytes.where()) {
  if (is_old) packed_ = bytes.take((uint64_t{values} * width_ + 7) / 8);
  else runs_ = HybridReader(bytes, width_);
}

void ParquetLevels::read(uint8_t *out, size_t count) {
  if (!is_old_) {
    if (largest_ == 0) std::fill_n(out, count, uint8_t{0});
    else runs_.read(out, count, largest_);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    unsigned level = 0;
    for (unsigned bit = 0; bit < width_; ++bit, ++at_) {
      level = level << 1 | (static_cast<uint8_t>(packed_[at_ / 8]) >> (7 - at_ % 8) & 1);
    }
    if (level > largest_) fail(Code::format, where_, ": expected a level of at most ", +largest_, ", found ", level);
    out[i] = static_cast<uint8_t>(level);
  }
}

ParquetColumn::ParquetColumn(const File &file, const ParquetField &field, const ParquetChunk &chunk, uint64_t end,
                             ParquetBudget &budget, std::string where)
    : where_(std::move(where)), field_(field), chunk_(chunk), budget_(budget), type_{field.physical, field.fixed_length},
      pages_(file, chunk, end, budget, where_), left_(chunk.values) {}

void ParquetColumn::begin_dictionary() {
  const ParquetPageHeader &header = pages_.header();
  if (has_dictionary_) fail(Code::format, where_, ": has a second dictionary");
  if (header.encoding != ParquetEncoding::plain && header.encoding != ParquetEncoding::plain_dictionary) {
    fail(Code::unsupported, where_, ": a dictionary in encoding ", parquet_name(header.encoding));
  }
  if (type_.physical == ParquetPhysical::boolean) fail(Code::format, where_, ": a dictionary of booleans");
  const ByteReader bytes(pages_.body(), where_);
  const uint32_t smallest = type_.width() > 0 ? type_.width() : sizeof(uint32_t);
  if (header.values > bytes.remaining() / smallest) {
    fail(Code::format, where_, ": a dictionary of ", header.values, " values in ", bytes.remaining(), " bytes");
  }
  budget_.take(uint64_t{header.values} * (type_.is_text() ? sizeof(std::string_view) : sizeof(uint64_t)), where_);
  if (header.values > 0) make_parquet_decoder(ParquetEncoding::plain, type_, bytes, nullptr)->decode(header.values, dictionary_);
  dictionary_page_ = pages_.take_page();
  has_dictionary_ = true;
}

void ParquetColumn::begin_data(ByteReader body) {
  const ParquetPageHeader &header = pages_.header();
  if (header.values > left_) {
    fail(Code::format, where_, ": a page of ", header.values, " values where ", left_, " are left of the ", chunk_.values,
         " of the column");
  }
  const auto levels = [&](uint8_t largest, uint32_t bytes_in_v2, ParquetEncoding encoding) {
    if (header.kind == ParquetPageKind::data_v2) {
      const ByteReader bytes(body.take(bytes_in_v2), where_);
      return largest == 0 ? ParquetLevels() : ParquetLevels(bytes, largest, false, header.values);
    }
    if (largest == 0) return ParquetLevels();
    if (encoding == ParquetEncoding::bit_packed) {
      const unsigned width = static_cast<unsigned>(std::bit_width(largest));
      return ParquetLevels(ByteReader(body.take((uint64_t{header.values} * width + 7) / 8), where_), largest, true,
                           header.values);
    }
    if (encoding != ParquetEncoding::rle) fail(Code::unsupported, where_, ": levels in encoding ", parquet_name(encoding));
    const uint32_t length = body.u32();
    return ParquetLevels(ByteReader(body.take(length), where_), largest, false, header.values);
  };
  repetition_levels_ = levels(field_.repetition, header.repetition_bytes, header.repetition_encoding);
  definition_levels_ = levels(field_.definition, header.definition_bytes, header.definition_encoding);
  decoder_.reset();
  left_in_page_ = header.values;
  if (left_in_page_ > 0 && body.remaining() > 0) {
    decoder_ =
        make_parquet_decoder(header.encoding, type_, ByteReader(body.rest(), where_), has_dictionary_ ? &dictionary_ : nullptr);
  }
}

void ParquetColumn::next_page() {
  decoder_.reset();
  if (!pages_.next()) fail(Code::format, where_, ": ends ", left_, " values before the ", chunk_.values, " that it should have");
  if (pages_.header().kind == ParquetPageKind::dictionary) begin_dictionary();
  else begin_data(ByteReader(pages_.body(), where_));
}

bool ParquetColumn::refill() {
  definitions_.clear();
  repetitions_.clear();
  at_ = 0;
  if (left_ == 0) return false;
  while (left_in_page_ == 0) next_page();
  const size_t count = std::min(kAtOnce, left_in_page_);
  definitions_.resize(count);
  repetitions_.resize(count);
  repetition_levels_.read(repetitions_.data(), count);
  definition_levels_.read(definitions_.data(), count);
  left_in_page_ -= count;
  left_ -= count;
  undecoded_ = static_cast<size_t>(std::count(definitions_.begin(), definitions_.end(), field_.definition));
  value_at_ = value_count_ = 0;
  return true;
}

void ParquetColumn::need_value() {
  if (value_at_ < value_count_) return;
  if (!decoder_) fail(Code::format, where_, ": a page has levels of values and no values");
  value_count_ = decoder_->decode(undecoded_, values_);
  undecoded_ -= value_count_;
  value_at_ = 0;
}

void ParquetColumn::advance() {
  if (has_value()) {
    need_value();
    ++value_at_;
  }
  ++at_;
}

std::span<const std::string_view> ParquetColumn::next_texts() {
  if (!has_entry()) return {};
  const bool no_nulls = at_ == 0 && undecoded_ == definitions_.size();
  if (no_nulls) {
    need_value();
    if (undecoded_ == 0) {
      at_ = definitions_.size();
      return values_.texts;
    }
  }
  // Up to a value that is not decoded yet: decoding takes away those at hand.
  texts_.clear();
  if (has_value()) need_value();
  for (; at_ < definitions_.size(); ++at_) {
    if (!has_value()) texts_.emplace_back();
    else if (value_at_ < value_count_) texts_.push_back(values_.texts[value_at_++]);
    else break;
  }
  return texts_;
}

}  // namespace moe
