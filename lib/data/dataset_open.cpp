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

bool is_packed_file(const std::string &path) { return path.ends_with(".safetensors"); }

template <class Batch>
void check_ids(const Batch &batch, int64_t vocabulary, const std::string &where) {
  for (size_t t = 0; vocabulary > 0 && t < batch.tokens.size(); t++) {
    const int32_t largest = std::max(batch.tokens[t], batch.labels[t]);
    if (largest >= vocabulary)
      fail(Code::format, where, ": token ", t, ": expected ids below ", vocabulary, " (the vocabulary), found ", largest);
  }
}

uint64_t content_hash(std::span<const int32_t> tokens, std::span<const int32_t> labels) {
  Sha256 hash;
  for (const auto numbers : {tokens, labels}) {
    const uint64_t count = numbers.size();
    hash.update(&count, sizeof count).update(numbers.data(), numbers.size_bytes());
  }
  const auto digest = hash.digest();
  uint64_t number;
  std::memcpy(&number, digest.data(), sizeof number);
  return number;
}

}  // namespace

std::shared_ptr<Dataset> Dataset::open(const std::vector<DatasetSource> &sources, const DatasetOptions &options,
                                       const Tokenizer *tokenizer, const ChatRenderer *chat, int64_t vocabulary) {
  if (sources.empty()) fail(Code::invalid, "data: no file was given");
  std::shared_ptr<Dataset> data(new Dataset());
  data->options_ = options;
  data->store_ = std::make_shared<SequenceStore>(options.memory);
  const auto weighted = std::count_if(sources.begin(), sources.end(), [](const auto &source) { return source.weight > 0; });
  if (weighted > 0 && weighted < static_cast<int64_t>(sources.size()))
    fail(Code::invalid, "data: ", weighted, " of ", sources.size(), " sources have a weight; expected all of them or none");
  data->packed_ = is_packed_file(sources.front().path);
  for (const DatasetSource &source : sources) {
    if (is_packed_file(source.path) != data->packed_)
      fail(Code::invalid, source.path, ": packed files and files of rows cannot be mixed in one data set");
    if (!data->packed_ && !tokenizer) {
      const std::string &why = options.why_no_tokenizer;
      fail(Code::unsupported, source.path, ": this model has no tokenizer", why.empty() ? "" : " (" + why + ")",
           "; give packed .safetensors files");
    }
    if (source.weight > 0 && data->packed_) fail(Code::invalid, source.path, ": packed files are whole steps and have no weight");
    data->sources_.push_back({source});
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
  Json row;
  const std::vector<std::string> files = data_files(source.path);
  for (const std::string &path : files) {
    if (files.size() > 1 && !RowReader(path).next(row)) report_.push(Json::object({{"path", path}, {"empty", true}}));
    else add_file(path, source, examples, vocabulary, used);
  }
  if (items_.size() == first) fail(Code::invalid, source.path, ": no example can be used: ", skipped_.summary());
  skipped_.add(before);
}

void Dataset::add_file(const std::string &path, const DatasetSource &source, const ExampleTokenizer &examples, int64_t vocabulary,
                       int64_t &used) {
  ExampleReader reader(path, source.schema);
  SkipReport skipped;
  std::string reason;
  std::vector<TokenizedExample> sequences;
  RepeatedIds prompts;
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
    const std::string key = prompt_key(example);
    const std::vector<int32_t> words = word_hashes(key);
    if (!key.empty()) prompts.see(key, example.row);
    for (size_t i = 0; i < sequences.size(); i++) {
      check_ids(sequences[i], vocabulary, text(path, ": row ", example.row));
      Item item;
      item.source = static_cast<uint32_t>(sources_.size() - 1);
      item.file = static_cast<uint32_t>(report_.size());
      item.prompt_hash = prompt_hash(key);
      item.row = example.row;
      // Of a text that was cut into windows each has the words in its part.
      const size_t begin = words.size() * i / sequences.size(), end = words.size() * (i + 1) / sequences.size();
      add_sequence(sequences[i], std::span(words).subspan(begin, end - begin), item);
      tokens += items_.back().tokens;
      supervised += items_.back().supervised;
    }
  }
  reader.check_answers();
  skipped.add(reader.skipped());
  Json file = Json::object();
  file.set("path", path).set("sha256", sha256_file(path)).set("domain", source.domain).set("schema", reader.schema().name);
  file.set("rows", reader.rows()).set("sequences", static_cast<int64_t>(items_.size() - first)).set("tokens", tokens);
  file.set("supervised_tokens", supervised).set("skipped", skipped.to_json());
  file.set("repeated_ids", reader.repeated_ids().count).set("repeated_prompts", prompts.count().count);
  report_.push(std::move(file));
  skipped_.add(skipped);
}

void Dataset::add_sequence(const TokenizedExample &sequence, std::span<const int32_t> words, Item item) {
  item.place = store_->add(sequence.tokens);
  store_->add(sequence.labels);
  store_->add(words);
  item.tokens = static_cast<uint32_t>(sequence.tokens.size());
  item.words = static_cast<uint32_t>(words.size());
  item.supervised = static_cast<uint32_t>(
      std::count_if(sequence.labels.begin(), sequence.labels.end(), [](int32_t label) { return label != kNoLabel; }));
  item.content_hash = content_hash(sequence.tokens, sequence.labels);
  items_.push_back(item);
}

void Dataset::add_packed(const DatasetSource &source, int64_t vocabulary) {
  PackedBatch batch = read_packed_batch(source.path);
  check_ids(batch, vocabulary, source.path);
  if (batch.supervised() == 0) fail(Code::invalid, source.path, ": no supervised token");
  Json file = Json::object();
  file.set("path", source.path).set("sha256", sha256_file(source.path)).set("domain", source.domain).set("schema", "packed");
  file.set("rows", batch.sequences()).set("sequences", batch.sequences()).set("tokens", batch.size());
  file.set("supervised_tokens", batch.supervised()).set("skipped", Json::object());
  Item item;
  item.tokens = static_cast<uint32_t>(batch.size());
  item.supervised = static_cast<uint32_t>(batch.supervised());
  item.source = static_cast<uint32_t>(sources_.size() - 1);
  item.file = static_cast<uint32_t>(report_.size());
  item.content_hash = content_hash(batch.tokens, batch.labels);
  items_.push_back(item);
  packed_batches_.push_back(std::move(batch));
  report_.push(std::move(file));
}

}  // namespace moe
