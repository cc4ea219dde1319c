// Reading the files of a data set: rows by schema and tokenizer, or packed batches as they are.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"
#include "data/dataset.h"
#include "data/leak.h"
#include "formats/packed.h"

namespace moe {
namespace {

bool is_packed(const std::string &path) { return path.ends_with(".safetensors"); }

void check_ids(const PackedBatch &batch, int64_t vocabulary, const std::string &where) {
  for (size_t t = 0; vocabulary > 0 && t < batch.tokens.size(); t++) {
    const int32_t largest = std::max(batch.tokens[t], batch.labels[t]);
    if (largest >= vocabulary)
      fail(Code::format, where, ": token ", t, ": expected ids below ", vocabulary, " (the vocabulary), found ", largest);
  }
}

// 0 when there is no prompt.
uint64_t hash_of(const Example &example) {
  const std::string key = prompt_key(example);
  if (key.empty()) return 0;
  const auto digest = Sha256().update(key.data(), key.size()).digest();
  uint64_t hash;
  std::memcpy(&hash, digest.data(), sizeof hash);
  return hash;
}

}  // namespace

std::shared_ptr<Dataset> Dataset::open(const std::vector<DatasetSource> &sources, const DatasetOptions &options,
                                       const Tokenizer *tokenizer, const ChatRenderer *chat, int64_t vocabulary) {
  if (sources.empty()) fail(Code::invalid, "data: no file was given");
  std::shared_ptr<Dataset> data(new Dataset());
  data->options_ = options;
  data->packed_ = is_packed(sources.front().path);
  for (const DatasetSource &source : sources) {
    if (is_packed(source.path) != data->packed_)
      fail(Code::invalid, source.path, ": packed files and files of rows cannot be mixed in one data set");
    if (!data->packed_ && !tokenizer) {
      const std::string &why = options.why_no_tokenizer;
      fail(Code::unsupported, source.path, ": this model has no tokenizer", why.empty() ? "" : " (" + why + ")",
           "; give packed .safetensors files");
    }
    data->sources_.push_back(source);
    if (data->packed_) data->add_packed(source, vocabulary);
    else data->add_source(source, *tokenizer, chat, vocabulary);
  }
  data->options_.cancel = nullptr;
  data->settle();
  return data;
}

void Dataset::add_source(const DatasetSource &source, const Tokenizer &tokenizer, const ChatRenderer *chat, int64_t vocabulary) {
  const ExampleTokenizer examples(tokenizer, chat, options_.max_length);
  const SkipReport before = std::exchange(skipped_, SkipReport());
  const size_t first = items_.size();
  int64_t used = 0;
  for (const std::string &path : data_files(source.path)) add_file(path, source, examples, vocabulary, used);
  if (items_.size() == first) fail(Code::invalid, source.path, ": no example can be used: ", skipped_.summary());
  skipped_.add(before);
}

void Dataset::add_file(const std::string &path, const DatasetSource &source, const ExampleTokenizer &examples, int64_t vocabulary,
                       int64_t &used) {
  ExampleReader reader(path, source.schema);
  SkipReport skipped;
  std::string reason;
  std::vector<TokenizedExample> sequences;
  const size_t first = items_.size();
  int64_t tokens = 0, supervised = 0;
  for (Example example; (options_.max_samples <= 0 || used < options_.max_samples) && reader.next(example);) {
    check_cancel(options_.cancel);
    sequences.clear();
    if (!examples.tokenize(example, sequences, reason)) {
      skipped.add(reason, example.row);
      continue;
    }
    ++used;
    for (TokenizedExample &sequence : sequences) {
      PackedBatch batch;
      batch.starts = {0, static_cast<int32_t>(sequence.tokens.size())};
      batch.tokens = std::move(sequence.tokens);
      batch.labels = std::move(sequence.labels);
      check_ids(batch, vocabulary, text(path, ": row ", example.row));
      tokens += batch.size();
      supervised += batch.supervised();
      items_.push_back({std::move(batch), sources_.size() - 1, hash_of(example), report_.size(), example.row});
    }
  }
  reader.check_answers();
  skipped.add(reader.skipped());
  Json file = Json::object();
  file.set("path", path).set("sha256", sha256_file(path)).set("domain", source.domain).set("schema", reader.schema().name);
  file.set("rows", reader.rows()).set("sequences", static_cast<int64_t>(items_.size() - first)).set("tokens", tokens);
  file.set("supervised_tokens", supervised).set("skipped", skipped.to_json());
  report_.push(std::move(file));
  skipped_.add(skipped);
}

void Dataset::add_packed(const DatasetSource &source, int64_t vocabulary) {
  PackedBatch batch = read_packed_batch(source.path);
  check_ids(batch, vocabulary, source.path);
  if (batch.supervised() == 0) fail(Code::invalid, source.path, ": no supervised token");
  Json file = Json::object();
  file.set("path", source.path).set("sha256", sha256_file(source.path)).set("domain", source.domain).set("schema", "packed");
  file.set("rows", batch.sequences()).set("sequences", batch.sequences()).set("tokens", batch.size());
  file.set("supervised_tokens", batch.supervised()).set("skipped", Json::object());
  items_.push_back({std::move(batch), sources_.size() - 1, 0, report_.size(), 1});
  report_.push(std::move(file));
}

}  // namespace moe
