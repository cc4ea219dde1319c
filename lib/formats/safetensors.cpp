#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <tuple>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"

namespace moe {

namespace {

static_assert(std::endian::native == std::endian::little, "tensor data is read and written as it is in memory");

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr std::string_view kMetadata = "__metadata__";
constexpr const char *kSingleName = "model.safetensors";
constexpr const char *kIndexName = "model.safetensors.index.json";

struct StoredType {
  std::string_view name;
  uint64_t bits;
  bool supported;
  DType dtype;
};
constexpr StoredType kTypes[] = {
    {"F32", 32, true, DType::f32},   {"F16", 16, true, DType::f16},     {"BF16", 16, true, DType::bf16},
    {"I32", 32, true, DType::i32},   {"I64", 64, true, DType::i64},     {"U8", 8, true, DType::u8},
    {"F64", 64, false, {}},          {"I8", 8, false, {}},              {"I16", 16, false, {}},
    {"U16", 16, false, {}},          {"U32", 32, false, {}},            {"U64", 64, false, {}},
    {"BOOL", 8, false, {}},          {"F8_E4M3", 8, false, {}},         {"F8_E5M2", 8, false, {}},
    {"F8_E8M0", 8, false, {}},       {"F4", 4, false, {}},              {"C64", 64, false, {}},
};
const StoredType *find_type(std::string_view name) {
  for (const StoredType &type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

uint64_t size_value(const Json &value, const std::string &where) {
  uint64_t size = 0;
  try {
    size = value.natural();
  } catch (const Error &error) {
    fail(Code::format, where, ": ", error.message());
  }
  if (size >> 63) fail(Code::format, where, ": ", size, " is too large");
  return size;
}

const Json &entry_member(const Json &entry, std::string_view key, const std::string &where) {
  const Json *value = entry.find(key);
  if (!value) fail(Code::format, where, ": '", key, "' is missing");
  return *value;
}

// One entry of the header; `data_bytes` = length of the data section, which starts at `data_start` of the file.
TensorInfo parse_entry(const std::string &file, const std::string &name, const Json &entry, uint64_t data_start,
                       uint64_t data_bytes) {
  const std::string where = text(file, ": tensor '", name, "'");
  if (!entry.is_object()) fail(Code::format, where, ": expected an object in the header");
  TensorInfo tensor;
  tensor.name = name;

  const Json &shape = entry_member(entry, "shape", where);
  if (!shape.is_array()) fail(Code::format, where, ": 'shape' is not a list");
  uint64_t elements = 1;
  for (const Json &item : shape.items()) {
    const uint64_t dimension = size_value(item, where + ": shape");
    elements = checked_multiply(elements, dimension, where + ": shape");
    tensor.shape.push_back(static_cast<int64_t>(dimension));
    if (elements >> 63) fail(Code::format, where, ": shape ", shape_text(tensor.shape), " is too large");
  }

  const Json &offsets = entry_member(entry, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2) fail(Code::format, where, ": 'data_offsets' is not a pair of numbers");
  const uint64_t begin = size_value(offsets.items()[0], where + ": data_offsets");
  const uint64_t end = size_value(offsets.items()[1], where + ": data_offsets");
  if (begin > end || end > data_bytes) {
    fail(Code::format, where, ": data_offsets ", begin, " to ", end, " do not fit the ", data_bytes, " bytes of data");
  }
  tensor.offset = data_start + begin;
  tensor.bytes = end - begin;

  const Json &dtype = entry_member(entry, "dtype", where);
  if (!dtype.is_string()) fail(Code::format, where, ": 'dtype' is not a string");
  const StoredType *type = find_type(dtype.string());
  if (!type || !type->supported) tensor.unsupported = dtype.string();
  if (!type) return tensor;  // of unknown size: only the byte range can be checked
  tensor.dtype = type->dtype;
  const uint64_t bits = checked_multiply(elements, type->bits, where);
  if (bits % 8 != 0 || bits / 8 != tensor.bytes) {
    fail(Code::format, where, ": shape ", shape_text(tensor.shape), " of ", type->name, " needs ", bits / 8,
         " bytes, its data_offsets span ", tensor.bytes);
  }
  return tensor;
}

void check_layout(const std::string &file, std::vector<TensorInfo> &tensors, uint64_t data_start, uint64_t file_size) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo &a, const TensorInfo &b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  uint64_t expected = data_start;
  for (const TensorInfo &tensor : tensors) {
    if (tensor.offset != expected) {
      fail(Code::format, file, ": tensor '", tensor.name, "' begins at data offset ", tensor.offset - data_start, ", expected ",
           expected - data_start, tensor.offset < expected ? " (overlap)" : " (hole)");
    }
    expected += tensor.bytes;
  }
  if (expected != file_size) {
    fail(Code::format, file, ": the tensors end at byte ", expected, ", the file at byte ", file_size);
  }
}

void parse_metadata(const std::string &file, const Json &value, SafetensorsMetadata &metadata) {
  if (!value.is_object()) fail(Code::format, file, ": '__metadata__' is not an object");
  for (const auto &[key, member] : value.members()) {
    if (!member.is_string()) fail(Code::format, file, ": metadata '", key, "' is not a string");
    metadata[key] = member.string();
  }
}

}  // namespace

Safetensors::Safetensors(const std::string &path) : TensorSource(path) {
  std::string file = path;
  if (folder_exists(path)) {
    file = join_path(path, kSingleName);
    if (!file_exists(file)) file = join_path(path, kIndexName);
    if (!file_exists(file)) fail(Code::io, path, ": holds neither ", kSingleName, " nor ", kIndexName);
  }
  if (file.ends_with(".json")) {
    open_index(file);
    return;
  }
  for (TensorInfo &tensor : open_file(file)) add(std::move(tensor));
}

bool has_safetensors(const std::string &folder) {
  return file_exists(join_path(folder, kSingleName)) || file_exists(join_path(folder, kIndexName));
}

std::string Safetensors::metadata_or(std::string_view key, std::string otherwise) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? otherwise : found->second;
}

std::vector<TensorInfo> Safetensors::open_file(const std::string &file_path) {
  const File &file = files_.emplace_back(file_path);
  uint64_t header_bytes = 0;
  if (file.size() < sizeof header_bytes) fail(Code::format, file_path, ": ", file.size(), " bytes are too few for safetensors");
  file.read(0, &header_bytes, sizeof header_bytes);
  if (header_bytes > kMaxHeader || header_bytes > file.size() - sizeof header_bytes) {
    fail(Code::format, file_path, ": header of ", header_bytes, " bytes; at most ",
         std::min(kMaxHeader, file.size() - sizeof header_bytes), " are possible");
  }
  std::string header(header_bytes, '\0');
  file.read(sizeof header_bytes, header.data(), header.size());
  if (header.empty() || header[0] != '{') fail(Code::format, file_path, ": the header does not begin with '{'");
  const Json json = Json::parse(header, file_path);

  const uint64_t data_start = sizeof header_bytes + header_bytes;
  std::vector<TensorInfo> tensors;
  for (const auto &[name, entry] : json.members()) {
    if (name == kMetadata) {
      if (files_.size() == 1) parse_metadata(file_path, entry, metadata_);
      continue;
    }
    if (!is_printable(name)) fail(Code::format, file_path, ": a tensor name with control characters");
    tensors.push_back(parse_entry(file_path, name, entry, data_start, file.size() - data_start));
    tensors.back().file = static_cast<int>(files_.size()) - 1;
  }
  check_layout(file_path, tensors, data_start, file.size());
  return tensors;
}

// {"metadata": {...}, "weight_map": {"<tensor>": "<shard>"}}. Tensors of a shard that are not mapped to it are not listed.
void Safetensors::open_index(const std::string &index_path) {
  const Json index = read_json(index_path);
  if (!index.is_object()) fail(Code::format, index_path, ": expected an object");
  const Json &map = index.at("weight_map", index_path);
  if (!map.is_object()) fail(Code::format, index_path, ": 'weight_map' is not an object");

  std::map<std::string, std::map<std::string, bool>> shards;  // shard -> tensor -> found
  for (const auto &[name, shard] : map.members()) {
    if (!is_printable(name)) fail(Code::format, index_path, ": a tensor name with control characters");
    if (!shard.is_string() || !is_printable(shard.string()) || !is_plain_name(shard.string())) {
      fail(Code::format, index_path, ": the shard of '", name, "' is not a plain file name");
    }
    shards[shard.string()][name] = false;
  }
  for (auto &[shard, expected] : shards) {
    const std::string shard_path = join_path(parent_path(index_path), shard);
    for (TensorInfo &tensor : open_file(shard_path)) {
      const auto entry = expected.find(tensor.name);
      if (entry == expected.end()) continue;
      entry->second = true;
      add(std::move(tensor));
    }
    for (const auto &[name, found] : expected) {
      if (!found) fail(Code::format, shard_path, ": tensor '", name, "' is missing; ", index_path, " places it here");
    }
  }
}

namespace {

struct Layout {
  std::vector<const TensorToWrite *> order;
  std::vector<uint64_t> bytes;
  std::string head;  // length and header
};

Layout lay_out(std::span<const TensorToWrite> tensors, const SafetensorsMetadata &metadata) {
  Layout layout;
  for (const TensorToWrite &tensor : tensors) layout.order.push_back(&tensor);
  std::sort(layout.order.begin(), layout.order.end(), [](const TensorToWrite *a, const TensorToWrite *b) {
    const int64_t a_bytes = dtype_info(a->dtype).block_bytes, b_bytes = dtype_info(b->dtype).block_bytes;
    return a_bytes != b_bytes ? a_bytes > b_bytes : a->name < b->name;
  });

  std::string header = "{";
  if (!metadata.empty()) {
    Json object = Json::object();
    for (const auto &[key, value] : metadata) object.set(key, value);
    header += text('"', kMetadata, "\":", object.dump());
  }
  uint64_t offset = 0;
  std::map<std::string_view, int> names;
  for (const TensorToWrite *tensor : layout.order) {
    const DTypeInfo &info = dtype_info(tensor->dtype);
    if (info.quantized) fail(Code::unsupported, "safetensors: tensor '", tensor->name, "': ", info.name, " cannot be written");
    if (tensor->name == kMetadata || names[tensor->name]++) {
      fail(Code::invalid, "safetensors: tensor name '", tensor->name, "' is taken");
    }
    uint64_t bytes = static_cast<uint64_t>(info.block_bytes);
    for (int64_t dimension : tensor->shape) {
      if (dimension < 0) fail(Code::invalid, "safetensors: tensor '", tensor->name, "': shape ", shape_text(tensor->shape));
      bytes = checked_multiply(bytes, static_cast<uint64_t>(dimension), tensor->name);
    }
    const uint64_t end = checked_add(offset, bytes, tensor->name);
    header += text(header.size() > 1 ? "," : "", Json(tensor->name).dump(), ":{\"dtype\":\"", info.name, "\",\"shape\":",
                   shape_text(tensor->shape), ",\"data_offsets\":[", offset, ",", end, "]}");
    layout.bytes.push_back(bytes);
    offset = end;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > kMaxHeader) fail(Code::invalid, "safetensors: a header of ", header.size(), " bytes, at most ", kMaxHeader);
  const uint64_t length = header.size();
  layout.head.assign(reinterpret_cast<const char *>(&length), sizeof length);
  layout.head += header;
  return layout;
}

}  // namespace

std::string encode_safetensors(std::span<const TensorToWrite> tensors, const SafetensorsMetadata &metadata) {
  const Layout layout = lay_out(tensors, metadata);
  uint64_t total = layout.head.size();
  for (uint64_t bytes : layout.bytes) total = checked_add(total, bytes, "safetensors");
  std::string out;
  out.reserve(total);
  out += layout.head;
  for (size_t i = 0; i < layout.order.size(); ++i) {
    if (layout.bytes[i]) out.append(static_cast<const char *>(layout.order[i]->data), layout.bytes[i]);
  }
  return out;
}

void write_safetensors(const std::string &path, std::span<const TensorToWrite> tensors, const SafetensorsMetadata &metadata) {
  const Layout layout = lay_out(tensors, metadata);
  errno = 0;
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  if (!out) fail(Code::io, path, ": cannot be created: ", std::strerror(errno));
  out.write(layout.head.data(), static_cast<std::streamsize>(layout.head.size()));
  for (size_t i = 0; i < layout.order.size() && out; ++i) {
    if (layout.bytes[i] == 0) continue;
    out.write(static_cast<const char *>(layout.order[i]->data), static_cast<std::streamsize>(layout.bytes[i]));
  }
  out.close();
  if (!out) fail(Code::io, path, ": writing failed: ", std::strerror(errno));
}

void write_safetensors_atomic(const std::string &path, std::span<const TensorToWrite> tensors,
                              const SafetensorsMetadata &metadata) {
  write_file_atomic(path, encode_safetensors(tensors, metadata));
}

}  // namespace moe
