// What a fuzzer, and the replay of hostile inputs in tests/formats/hostile_test.cpp, does with a file: open it and read all
// of it. Each function returns or throws moe::Error; anything else is a defect.
#pragma once
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "formats/gguf.h"
#include "formats/lora_config.h"
#include "formats/packed.h"
#include "formats/parquet.h"
#include "formats/rows.h"
#include "formats/safetensors.h"
#include "support/temporary_folder.h"

namespace moe::fuzz {

inline void read_tensors(const TensorSource &file) {
  for (const TensorInfo &tensor : file.tensors()) {
    std::vector<char> bytes(tensor.bytes);
    if (tensor.unsupported.empty()) file.read(tensor, bytes.data());
    if (tensor.unsupported.empty() && tensor.dtype != DType::i32 && tensor.dtype != DType::i64 && tensor.dtype != DType::u8) {
      file.read_floats(tensor);
    }
  }
}

inline void read_safetensors(const std::string &path) { read_tensors(Safetensors(path)); }

inline void read_gguf(const std::string &path) {
  const Gguf file(path);
  uint64_t bytes = 0;
  for (const auto &[key, value] : file.metadata()) {
    for (uint64_t i = 0; i < value.ends.size(); ++i) bytes += value.string(i).size();
  }
  if (bytes > File(path).size()) fail(Code::internal, "more text than file");
  read_tensors(file);
}

inline void read_lora_config(const std::string &path) {
  const LoraConfig config = parse_lora_config(read_json(path), path);
  for (const char *module : {"model.layers.0.self_attn.q_proj", "model.layers.11.mlp.experts.3.down_proj", "lm_head", ""}) {
    if (matches(config, module)) scale_of(config, module);
  }
  parse_lora_config(lora_config_json(config), "written");  // what was accepted can be written and read again
}

// A defect of a row hides nothing after it.
inline void read_all_rows(const std::string &path, PlainText plain_text) {
  RowReader reader(path, plain_text);
  for (Json row; reader.next(row);)
    if (row.is_object() != reader.defect().empty()) fail(Code::internal, reader.where(), ": a row and a defect, or neither");
}
inline void read_all_rows(const std::string &path) { read_all_rows(path, PlainText::document); }
inline void read_paragraphs(const std::string &path) { read_all_rows(path, PlainText::paragraphs); }
inline void read_packed(const std::string &path) { read_packed_batch(path); }

// The rows, the texts without rows, and the description, which must be readable JSON.
inline void read_parquet(const std::string &path) {
  const ParquetFile file(path);
  Json::parse(describe_parquet(file).dump(), path);
  for (const ParquetField &field : file.fields()) {
    if (!field.is_text() || file.row_groups() == 0) continue;
    ParquetTexts texts(file, 0, field.name);
    while (!texts.next().empty()) {
    }
  }
  ParquetRows rows(path);
  std::string defect;
  for (Json row; rows.next(row, defect);) {
    if (row.is_object() != defect.empty()) fail(Code::internal, rows.where(), ": a row and a defect, or neither");
    Json::parse(row.dump(), path);
  }
}

// The body of a libFuzzer target.
inline int run(const uint8_t *data, size_t size, const char *name, void (*read)(const std::string &)) {
  static const test::TemporaryFolder folder;
  const std::string path = folder / name;
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char *>(data), static_cast<std::streamsize>(size));
  try {
    read(path);
  } catch (const Error &) {
  }
  return 0;
}

}  // namespace moe::fuzz
