#include "formats/parquet.h"

namespace moe {
namespace {

constexpr size_t kShownText = 400, kShownKeys = 100;

std::string shown(std::string text) {
  if (text.size() > kShownText) text = text.substr(0, kShownText) + "...";
  return text;
}

std::string encoding_names(uint32_t encodings) {
  std::string names;
  for (unsigned i = 0; i < 10; ++i) {
    if (encodings >> i & 1) names += (names.empty() ? "" : ", ") + std::string(parquet_name(static_cast<ParquetEncoding>(i)));
  }
  return names;
}

// The columns of a row group below `field`.
void add_columns(Json &list, const ParquetField &field, const std::string &path, const ParquetRowGroupInfo &group) {
  for (const ParquetField &child : field.children) add_columns(list, child, field.path_of(child, path), group);
  if (field.kind != ParquetField::Kind::value) return;
  const ParquetChunk &chunk = group.chunks[field.first_column];
  Json column = Json::object({{"name", path}, {"type", field.type_text()}});
  if (chunk.encrypted) {
    column.set("encrypted", true);
  } else {
    column.set("physical", parquet_name(field.physical))
        .set("codec", chunk.unsupported_codec ? chunk.unsupported_codec : codec_name(chunk.codec));
    column.set("encodings", encoding_names(chunk.encodings)).set("values", chunk.values);
    column.set("compressed_bytes", chunk.compressed_bytes).set("uncompressed_bytes", chunk.uncompressed_bytes);
  }
  list.push(std::move(column));
}

}  // namespace

Json parquet_types(const ParquetFile &file) {
  std::vector<std::pair<std::string, Json>> types;
  for (const ParquetField &field : file.fields())
    types.emplace_back(field.name, field.type_text() + (field.optional ? "" : " not null"));
  return Json::object(std::move(types));
}

Json describe_parquet(const ParquetFile &file) {
  const ParquetMetadata &metadata = file.metadata();
  Json json = Json::object({{"version", metadata.version}, {"created_by", metadata.created_by}, {"rows", metadata.rows}});
  json.set("schema", parquet_types(file));
  Json groups = Json::array(), key_values = Json::object();
  for (const ParquetRowGroupInfo &group : metadata.row_groups) {
    Json columns = Json::array();
    for (const ParquetField &field : file.fields()) add_columns(columns, field, field.name, group);
    groups.push(Json::object({{"rows", group.rows}, {"columns", std::move(columns)}}));
  }
  for (const auto &[key, value] : metadata.key_values) {
    if (key_values.size() < kShownKeys) key_values.set(shown(key), shown(value));
  }
  return std::move(json.set("row_groups", std::move(groups)).set("metadata", std::move(key_values)));
}

}  // namespace moe
