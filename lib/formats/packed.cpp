#include "formats/packed.h"

#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "formats/safetensors.h"

namespace moe {

namespace {

std::vector<int32_t> read_list(const TensorSource &file, const char *name) {
  const TensorInfo &tensor = file.at(name);
  if (tensor.shape.size() != 1) {
    fail(Code::format, file.path(), ": tensor '", name, "': expected a list, found shape ", shape_text(tensor.shape));
  }
  return file.read_integers(tensor);
}

std::vector<int32_t> count_positions(const std::vector<int32_t> &starts) {
  std::vector<int32_t> positions;
  positions.reserve(static_cast<size_t>(starts.back()));
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int32_t t = starts[s]; t < starts[s + 1]; ++t) positions.push_back(t - starts[s]);
  }
  return positions;
}

void check_length(const std::string &source, const char *name, size_t found, size_t expected) {
  if (found != expected) fail(Code::format, source, ": '", name, "' has ", found, " entries, expected ", expected);
}

void check_starts(const PackedBatch &batch, const std::string &source) {
  const auto &starts = batch.starts;
  constexpr auto kMaxTokens = static_cast<size_t>(std::numeric_limits<int32_t>::max());
  if (batch.tokens.size() > kMaxTokens) fail(Code::format, source, ": more than ", kMaxTokens, " tokens");
  if (starts.size() < 2) fail(Code::format, source, ": 'sequence_starts' has ", starts.size(), " entries, expected at least 2");
  if (starts.front() != 0) fail(Code::format, source, ": 'sequence_starts' begins with ", starts.front(), ", expected 0");
  for (size_t s = 1; s < starts.size(); ++s) {
    if (starts[s] <= starts[s - 1]) {
      fail(Code::format, source, ": 'sequence_starts' does not rise at entry ", s, ": ", starts[s - 1], ", ", starts[s]);
    }
  }
  if (static_cast<size_t>(starts.back()) != batch.tokens.size()) {
    fail(Code::format, source, ": 'sequence_starts' ends with ", starts.back(), ", there are ", batch.tokens.size(), " tokens");
  }
}

}  // namespace

void check_packed_batch(const PackedBatch &batch, const std::string &source) {
  check_starts(batch, source);
  const size_t tokens = batch.tokens.size();
  check_length(source, "labels", batch.labels.size(), tokens);
  check_length(source, "positions", batch.positions.size(), tokens);
  if (!batch.domains.empty()) check_length(source, "domains", batch.domains.size(), batch.starts.size() - 1);
  for (size_t s = 0; s + 1 < batch.starts.size(); ++s) {
    for (int32_t t = batch.starts[s]; t < batch.starts[s + 1]; ++t) {
      const auto i = static_cast<size_t>(t);
      if (batch.tokens[i] < 0) fail(Code::format, source, ": 'tokens' ", t, " is ", batch.tokens[i]);
      if (batch.labels[i] < 0 && batch.labels[i] != kNoLabel) {
        fail(Code::format, source, ": 'labels' ", t, " is ", batch.labels[i], ", expected a token or ", kNoLabel);
      }
      if (batch.positions[i] != t - batch.starts[s]) {
        fail(Code::format, source, ": 'positions' ", t, " is ", batch.positions[i], ", expected ", t - batch.starts[s]);
      }
    }
  }
  for (size_t s = 0; s < batch.domains.size(); ++s) {
    if (batch.domains[s] < -1) fail(Code::format, source, ": 'domains' ", s, " is ", batch.domains[s]);
  }
}

PackedBatch read_packed_batch(const TensorSource &file) {
  PackedBatch batch;
  batch.tokens = read_list(file, "tokens");
  batch.labels = read_list(file, "labels");
  batch.starts = read_list(file, "sequence_starts");
  check_starts(batch, file.path());
  batch.positions = file.find("positions") ? read_list(file, "positions") : count_positions(batch.starts);
  if (file.find("domains")) {
    batch.domains = read_list(file, "domains");
    check_length(file.path(), "domains", batch.domains.size(), batch.starts.size() - 1);
  }
  check_packed_batch(batch, file.path());
  return batch;
}

PackedBatch read_packed_batch(const std::string &path) { return read_packed_batch(Safetensors(path)); }

std::string encode_packed_batch(const PackedBatch &batch) {
  check_packed_batch(batch, "packed batch");
  const auto list = [](const char *name, const std::vector<int32_t> &values) {
    return TensorToWrite{name, DType::i32, {static_cast<int64_t>(values.size())}, values.data()};
  };
  std::vector<TensorToWrite> tensors{list("tokens", batch.tokens), list("positions", batch.positions),
                                     list("sequence_starts", batch.starts), list("labels", batch.labels)};
  if (!batch.domains.empty()) tensors.push_back(list("domains", batch.domains));
  return encode_safetensors(tensors);
}

void write_packed_batch(const std::string &path, const PackedBatch &batch) {
  write_file_atomic(path, encode_packed_batch(batch));
}

}  // namespace moe
