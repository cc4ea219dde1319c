// A data set: tokenized, masked examples of one or several domain files, given out as packed batches in a shuffled order that
// depends on the seed and the epoch only, with a cursor that can be saved and restored without reading anything again. With several
// sources every stretch of the order holds them in proportion to their weights, which are their sizes unless they are given. Of
// each source a pass gives every example once, in an order of its own; with weights an epoch, which always has as many examples as
// the sources together, holds a part of a pass or several, and the next epoch goes on where it ended.
// Memory: 64 bytes for each sequence, and the tokens of DatasetOptions::memory; what is more goes into a temporary file.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/json.h"
#include "data/example_file.h"
#include "data/sequence_store.h"
#include "data/tokenize.h"
#include "tensor/packed_batch.h"

namespace moe {

struct DatasetSource {
  std::string path;    // rows, a folder of such files, or a packed .safetensors file (one optimizer step per file and epoch)
  std::string schema;  // "" = found from the rows
  std::string domain;  // label for reports
  int32_t entry = -1;  // router entry of the domain (1-based), -1 = none
  double weight = 0;   // share of its domain in an epoch, in any unit; 0 = by size. Either all sources have one or none has
};

struct DatasetOptions {
  int64_t max_length = 1024;  // tokens of a sequence
  int64_t max_samples = 0;    // examples per source; 0 = all
  uint64_t seed = 0;
  bool shuffle = true;
  uint64_t memory = uint64_t{256} << 20;  // bytes of tokens that are kept in memory
  std::string why_no_tokenizer;    // for the error when one is needed: why the model's cannot be used, or ""
  const Cancel *cancel = nullptr;  // looked at per row while opening
};

class Dataset {
 public:
  // tokenizer may be null when every source is packed; chat is needed for messages only. vocabulary: every id is checked to be
  // below it (0 = not checked). Code::invalid when no example of a source can be used, with the reasons.
  static std::shared_ptr<Dataset> open(const std::vector<DatasetSource> &sources, const DatasetOptions &options,
                                       const Tokenizer *tokenizer, const ChatRenderer *chat, int64_t vocabulary);

  int64_t size() const { return static_cast<int64_t>(items_.size()); }  // sequences (packed: files), and those of an epoch
  int64_t batches_per_epoch(int64_t rows) const;
  // The next `rows` sequences of the epoch (fewer at its end); a packed source gives one whole file. Starts the next epoch by
  // itself.
  PackedBatch next(int64_t rows);
  void rewind();
  Json cursor() const;
  void restore(const Json &cursor);  // Code::state when it is of other data

  // Moves about `fraction` of every source into a data set of its own, by a hash of the prompts: independent of order and seed,
  // and examples with the same prompt stay together. Both start at their beginning. Code::invalid when a side would be empty.
  std::shared_ptr<Dataset> take_validation(double fraction);

  // Upper bounds over all batches of `rows` sequences.
  void largest_batch(int64_t rows, int64_t *tokens, int64_t *supervised) const;
  std::vector<int64_t> tokens_by_domain(int64_t experts) const;  // [E]
  int64_t tokens() const { return tokens_; }                     // of one epoch
  int64_t supervised_tokens() const { return supervised_; }
  // The sequences (of packed files: each of theirs) in the order of the files, whatever the epoch.
  struct Sequence {
    std::span<const int32_t> tokens;
    std::span<const int32_t> words;  // hashes of the words of the folded prompt (data/leak.h), of a text all of it; packed: none
    uint64_t prompt = 0;             // hash of the folded prompt, 0 = it has none
    size_t file = 0;      // for path_of
    int64_t row = 0;      // of the file, from 1; of a packed file the sequence's number
  };
  void each_sequence(const std::function<void(const Sequence &)> &use) const;
  bool is_packed() const { return packed_; }
  std::string path_of(size_t file) const { return report_.items().at(file).string_at("path", "data report"); }
  // Per file: path, sha256, domain, schema, rows, skipped rows by reason, repeated ids and prompts, sequences, tokens, supervised
  // tokens; as it was opened. A file of a folder that has no rows is {path, "empty": true}.
  const Json &report() const { return report_; }
  const SkipReport &skipped() const { return skipped_; }

 private:
  struct Item {  // a sequence; or a packed file, whose batch has the same index
    uint64_t place = 0;  // in the store: tokens, labels, words
    uint32_t tokens = 0, words = 0, supervised = 0;
    uint32_t source = 0, file = 0;  // file: of report_
    uint64_t prompt_hash = 0;
    uint64_t content_hash = 0;  // of tokens and labels
    int64_t row = 1;
  };
  struct Source : DatasetSource {
    size_t first = 0, count = 0;  // its items
    size_t drawn = 0;             // of them in an epoch
  };
  Dataset() = default;
  void add_source(const DatasetSource &source, const Tokenizer &tokenizer, const ChatRenderer *chat, int64_t vocabulary);
  // Adds the examples of a file until `used` has reached max_samples.
  void add_file(const std::string &path, const DatasetSource &source, const ExampleTokenizer &examples, int64_t vocabulary,
                int64_t &used);
  void add_packed(const DatasetSource &source, int64_t vocabulary);
  void add_sequence(const TokenizedExample &sequence, std::span<const int32_t> words, Item item);
  void settle();       // after the items have changed: totals, identity, the first epoch
  void share_epoch();  // Source::drawn
  void order_epoch();

  DatasetOptions options_;
  std::vector<Item> items_;  // in the order of the sources and their rows
  std::shared_ptr<SequenceStore> store_;
  std::vector<PackedBatch> packed_batches_;
  std::vector<Source> sources_;
  bool packed_ = false;
  std::vector<uint32_t> order_;  // of the current epoch
  int64_t epoch_ = 0, index_ = 0;
  int64_t tokens_ = 0, supervised_ = 0;
  std::string identity_;  // sha256 of what the batches depend on
  Json report_ = Json::array();
  SkipReport skipped_;
};

}  // namespace moe
