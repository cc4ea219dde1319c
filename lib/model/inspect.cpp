#include "model/inspect.h"

#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "formats/gguf.h"
#include "formats/parquet.h"
#include "formats/safetensors.h"
#include "model/bundle.h"
#include "model/config.h"

namespace moe {
namespace {

constexpr uint64_t kShownElements = 16;  // of an array in GGUF metadata

Json tensor_list(const TensorSource &source) {
  Json list = Json::array();
  for (const TensorInfo &tensor : source.tensors()) {
    Json shape = Json::array();
    for (int64_t size : tensor.shape) shape.push(size);
    const std::string dtype = tensor.unsupported.empty() ? dtype_info(tensor.dtype).name : tensor.unsupported;
    list.push(Json::object({{"name", tensor.name}, {"dtype", dtype}, {"shape", std::move(shape)}, {"bytes", tensor.bytes}}));
  }
  return list;
}

uint64_t tensor_bytes(const TensorSource &source) {
  uint64_t bytes = 0;
  for (const TensorInfo &tensor : source.tensors()) bytes += tensor.bytes;
  return bytes;
}

template <class T>
T element(const GgufValue &value, uint64_t i) {
  T result;
  std::memcpy(&result, value.bytes.data() + i * sizeof result, sizeof result);
  return result;
}

Json element_json(const GgufValue &value, uint64_t i) {
  switch (value.type) {
    case GgufType::u8: return static_cast<int64_t>(element<uint8_t>(value, i));
    case GgufType::i8: return static_cast<int64_t>(element<int8_t>(value, i));
    case GgufType::u16: return static_cast<int64_t>(element<uint16_t>(value, i));
    case GgufType::i16: return static_cast<int64_t>(element<int16_t>(value, i));
    case GgufType::u32: return static_cast<int64_t>(element<uint32_t>(value, i));
    case GgufType::i32: return static_cast<int64_t>(element<int32_t>(value, i));
    case GgufType::u64: return element<uint64_t>(value, i);
    case GgufType::i64: return element<int64_t>(value, i);
    case GgufType::f32: return static_cast<double>(element<float>(value, i));
    case GgufType::f64: return element<double>(value, i);
    case GgufType::boolean: return element<uint8_t>(value, i) != 0;
    case GgufType::string: return value.string(i);
    case GgufType::array: break;
  }
  return Json();
}

// Long arrays (a vocabulary) are shown by their type and length.
Json metadata_json(const Gguf &file) {
  Json json = Json::object();
  for (const auto &[key, value] : file.metadata()) {
    if (!value.is_array) {
      json.set(key, element_json(value, 0));
    } else if (value.count > kShownElements) {
      json.set(key, Json::object({{"array_of", gguf_type_name(value.type)}, {"count", value.count}}));
    } else {
      Json list = Json::array();
      for (uint64_t i = 0; i < value.count; i++) list.push(element_json(value, i));
      json.set(key, std::move(list));
    }
  }
  return json;
}

Json described(const char *kind, const std::string &path) { return Json::object({{"kind", kind}, {"path", path}}); }

void add_tensors(Json &json, const TensorSource &source) {
  json.set("tensor_count", static_cast<int64_t>(source.tensors().size())).set("tensor_bytes", tensor_bytes(source));
  json.set("tensors", tensor_list(source));
}

// The fingerprint, or why there is none: a file may be well-formed and of an architecture that is not built in.
template <class Read>
void add_architecture(Json &json, Read read) {
  try {
    const DecoderConfig config = read();
    json.set("family", config.family).set("architecture_fingerprint", config.fingerprint());
  } catch (const Error &error) {
    json.set("not_a_model", error.message());
  }
}

Json inspect_gguf(const std::string &path) {
  const Gguf file(path);
  Json json = described("gguf", path);
  json.set("version", file.version()).set("metadata", metadata_json(file));
  add_architecture(json, [&] { return read_config(file); });
  add_tensors(json, file);
  return json;
}

Json inspect_safetensors(const char *kind, const std::string &path) {
  const Safetensors file(path);
  Json json = described(kind, path), metadata = Json::object();
  for (const auto &[key, value] : file.metadata()) metadata.set(key, value);
  json.set("metadata", std::move(metadata));
  add_tensors(json, file);
  return json;
}

Json inspect_parquet(const std::string &path) {
  Json json = described("parquet", path);
  const Json description = describe_parquet(ParquetFile(path));
  for (const auto &[key, value] : description.members()) json.set(key, value);
  return json;
}

Json inspect_model(const std::string &path) {
  const std::string config_path = join_path(path, "config.json");
  const Json config = read_json(config_path);
  Json json = has_safetensors(path) ? inspect_safetensors("model", path) : described("model", path);
  add_architecture(json, [&] { return read_config(config, config_path); });
  return std::move(json.set("config", config));
}

Json inspect_adapter(const std::string &path) {
  Json json = inspect_safetensors("adapter", join_path(path, "adapter_model.safetensors"));
  json.set("path", path);
  return std::move(json.set("config", read_json(join_path(path, "adapter_config.json"))));
}

Json inspect_bundle(const std::string &path) {
  const BundleConfig config = read_bundle_config(path);
  Json json = described("bundle", path), domains = Json::array();
  for (const std::string &domain : config.domains) domains.push(domain);
  json.set("base_model", config.base_model).set("base_model_path", config.base_model_path);
  json.set("architecture_fingerprint", config.architecture_fingerprint).set("weights_fingerprint", config.weights_fingerprint);
  json.set("domains", std::move(domains)).set("gating", config.gating);
  return std::move(json.set("config", read_json(join_path(path, "moe_config.json"))));
}

Json inspect_checkpoint(const std::string &path) {
  Json json = described("checkpoint", path);
  json.set("manifest", read_json(join_path(path, "manifest.json")));
  return std::move(json.set("trainer_state", read_json(join_path(path, "trainer_state.json"))));
}

Json inspect_folder(const std::string &path) {
  const auto holds = [&](const char *name) { return file_exists(join_path(path, name)); };
  if (is_bundle(path)) return inspect_bundle(path);
  if (holds("trainer_state.json")) return inspect_checkpoint(path);
  if (holds("adapter_config.json")) return inspect_adapter(path);
  if (holds("config.json")) return inspect_model(path);
  if (has_safetensors(path)) return inspect_safetensors("safetensors", path);
  fail(Code::format, path, ": expected a folder of a model, adapter, bundle or checkpoint");
}

Json inspect_file(const std::string &path) {
  const File file(path);
  char magic[4] = {};
  if (file.size() >= sizeof magic) file.read(0, magic, sizeof magic);
  if (std::memcmp(magic, "GGUF", sizeof magic) == 0) return inspect_gguf(path);
  if (path.ends_with(".safetensors") || path.ends_with(".index.json")) return inspect_safetensors("safetensors", path);
  if (ParquetFile::matches(file)) return inspect_parquet(path);
  fail(Code::format, path, ": expected a GGUF, safetensors or Parquet file");
}

}  // namespace

Json inspect(const std::string &path) { return folder_exists(path) ? inspect_folder(path) : inspect_file(path); }

}  // namespace moe
