#include "formats/parquet_schema.h"

#include <algorithm>

#include "base/error.h"

namespace moe {
namespace {

constexpr int kMaxDepth = 48;

// Whether a column of this physical type can hold what its annotation says.
bool fits(const ParquetField &field) {
  using P = ParquetPhysical;
  const ParquetAnnotation &a = field.annotation;
  const P physical = field.physical;
  const P of_unit = a.unit == ParquetUnit::milliseconds ? P::int32 : P::int64;
  switch (a.logical) {
    case ParquetLogical::string:
    case ParquetLogical::enumeration:
    case ParquetLogical::json:
    case ParquetLogical::bson: return physical == P::byte_array;
    case ParquetLogical::decimal:
      return a.precision >= 1 && a.scale >= 0 && a.scale <= a.precision &&
             (physical == P::int32 || physical == P::int64 || physical == P::byte_array || physical == P::fixed_length);
    case ParquetLogical::date: return physical == P::int32;
    case ParquetLogical::time: return physical == of_unit;
    case ParquetLogical::timestamp: return physical == P::int64;
    case ParquetLogical::integer:
      return (a.bit_width == 64 && physical == P::int64) ||
             ((a.bit_width == 8 || a.bit_width == 16 || a.bit_width == 32) && physical == P::int32);
    case ParquetLogical::uuid: return physical == P::fixed_length && field.fixed_length == 16;
    case ParquetLogical::float16: return physical == P::fixed_length && field.fixed_length == 2;
    case ParquetLogical::interval: return physical == P::fixed_length && field.fixed_length == 12;
    default: return true;
  }
}

// Turns the elements, which are listed depth first, into fields.
class SchemaBuilder {
 public:
  SchemaBuilder(const std::vector<ParquetSchemaElement> &elements, std::string_view where) : elements_(elements), where_(where) {}

  std::vector<ParquetField> build() {
    ParquetField root;
    const ParquetSchemaElement &element = elements_[at_++];
    if (element.physical) fail(Code::format, where_, ": the root of the schema is not a group");
    add_children(root, element.children, 1);
    if (at_ != elements_.size()) {
      fail(Code::format, where_, ": the schema has ", elements_.size(), " fields, ", at_, " of them belong to a row");
    }
    return std::move(root.children);
  }

 private:
  // The next element; an outer repeated field counts as a list of required elements unless `is_element` says that the list is
  // known.
  ParquetField next(uint8_t definition, uint8_t repetition, int depth, bool is_element) {
    if (depth > kMaxDepth) fail(Code::unsupported, where_, ": the schema is deeper than ", kMaxDepth, " fields");
    if (at_ == elements_.size()) fail(Code::format, where_, ": the schema ends inside a group");
    const ParquetSchemaElement &element = elements_[at_];
    if (element.repeated && !is_element) return bare_list(element, definition, repetition, depth);
    ++at_;
    ParquetField field;
    field.name = element.name;
    field.optional = element.optional;
    field.definition = static_cast<uint8_t>(definition + element.optional);
    field.repetition = repetition;
    field.first_column = columns_;
    field.annotation = element.annotation;
    if (element.physical) {
      add_value(field, element);
    } else {
      if (element.children == 0) fail(Code::format, where_, ": group ", field.quoted_name(), " of the schema has no fields");
      if (!add_list(field, element, depth)) {
        field.kind = ParquetField::Kind::group;
        add_children(field, element.children, depth + 1);
      }
    }
    field.columns = columns_ - field.first_column;
    return field;
  }

  void add_children(ParquetField &field, uint32_t count, int depth) {
    for (uint32_t i = 0; i < count; ++i) field.children.push_back(next(field.definition, field.repetition, depth, false));
    std::vector<const ParquetField *> sorted;
    for (const ParquetField &child : field.children) sorted.push_back(&child);
    std::sort(sorted.begin(), sorted.end(), [](const auto *a, const auto *b) { return a->name < b->name; });
    const auto twice =
        std::adjacent_find(sorted.begin(), sorted.end(), [](const auto *a, const auto *b) { return a->name == b->name; });
    if (twice != sorted.end()) fail(Code::unsupported, where_, ": two fields of one group are called ", (*twice)->quoted_name());
  }

  void add_value(ParquetField &field, const ParquetSchemaElement &element) {
    field.physical = *element.physical;
    field.fixed_length = element.fixed_length;
    if (element.children > 0) fail(Code::format, where_, ": column ", field.quoted_name(), " has fields of its own");
    if (field.physical == ParquetPhysical::fixed_length && field.fixed_length == 0) {
      fail(Code::format, where_, ": column ", field.quoted_name(), " of fixed length has no length");
    }
    if (!fits(field)) fail(Code::format, where_, ": the annotation of column ", field.quoted_name(), " does not fit its type");
    ++columns_;
  }

  // A repeated field that no annotation calls a list.
  ParquetField bare_list(const ParquetSchemaElement &element, uint8_t definition, uint8_t repetition, int depth) {
    ParquetField list;
    list.kind = ParquetField::Kind::list;
    list.name = element.name;
    list.definition = definition;
    list.repetition = repetition;
    list.first_column = columns_;
    add_entries(list, depth, true);
    list.columns = columns_ - list.first_column;
    return list;
  }

  // The one child of a list or map is at at_: its levels, and the element itself or what is inside the repeated group.
  void add_entries(ParquetField &list, int depth, bool is_element) {
    list.entry_definition = static_cast<uint8_t>(list.definition + 1);
    list.entry_repetition = static_cast<uint8_t>(list.repetition + 1);
    if (is_element) {
      list.children.push_back(next(list.entry_definition, list.entry_repetition, depth + 1, true));
      return;
    }
    const uint32_t count = elements_[at_++].children;
    for (uint32_t i = 0; i < count; ++i)
      list.children.push_back(next(list.entry_definition, list.entry_repetition, depth + 2, false));
  }

  // False when the annotated group does not have the form of a list or map; it is then a group like others.
  bool add_list(ParquetField &field, const ParquetSchemaElement &element, int depth) {
    const ParquetLogical logical = element.annotation.logical;
    if (logical != ParquetLogical::list && logical != ParquetLogical::map) return false;
    if (element.children != 1 || at_ == elements_.size() || !elements_[at_].repeated) return false;
    const ParquetSchemaElement &entry = elements_[at_];
    if (logical == ParquetLogical::map) {
      if (entry.physical || entry.children < 1 || entry.children > 2) return false;
      field.kind = entry.children == 2 ? ParquetField::Kind::map : ParquetField::Kind::list;
      add_entries(field, depth, false);
      return true;
    }
    field.kind = ParquetField::Kind::list;
    const bool has_one_field = !entry.physical && entry.children == 1 && at_ + 1 < elements_.size();
    const bool is_element = !has_one_field || elements_[at_ + 1].repeated || entry.name == "array" ||
                            entry.name == element.name + "_tuple" || entry.annotation.logical == ParquetLogical::list ||
                            entry.annotation.logical == ParquetLogical::map;
    add_entries(field, depth, is_element);
    return true;
  }

  const std::vector<ParquetSchemaElement> &elements_;
  std::string_view where_;
  size_t at_ = 0;
  uint32_t columns_ = 0;
};

const char *unit_text(ParquetUnit unit) {
  constexpr const char *kNames[] = {"ms", "us", "ns"};
  return kNames[static_cast<size_t>(unit)];
}

std::string value_type_text(const ParquetField &field) {
  const ParquetAnnotation &a = field.annotation;
  const bool is_bytes = field.physical == ParquetPhysical::byte_array || field.physical == ParquetPhysical::fixed_length;
  switch (a.logical) {
    case ParquetLogical::string: return "string";
    case ParquetLogical::json: return "extension<arrow.json>";
    case ParquetLogical::uuid: return "extension<arrow.uuid>";
    case ParquetLogical::float16: return "halffloat";
    case ParquetLogical::null: return "null";
    case ParquetLogical::decimal: return text(a.precision > 38 ? "decimal256(" : "decimal128(", a.precision, ", ", a.scale, ")");
    case ParquetLogical::date: return "date32[day]";
    case ParquetLogical::time: return text(a.unit == ParquetUnit::milliseconds ? "time32[" : "time64[", unit_text(a.unit), "]");
    case ParquetLogical::timestamp: return text("timestamp[", unit_text(a.unit), a.utc ? ", tz=UTC]" : "]");
    case ParquetLogical::integer:
      if (!is_bytes) return text(a.is_signed ? "int" : "uint", a.bit_width);
      break;
    default: break;
  }
  switch (field.physical) {
    case ParquetPhysical::boolean: return "bool";
    case ParquetPhysical::int32: return "int32";
    case ParquetPhysical::int64: return "int64";
    case ParquetPhysical::int96: return "timestamp[ns]";
    case ParquetPhysical::float32: return "float";
    case ParquetPhysical::float64: return "double";
    case ParquetPhysical::byte_array: return "binary";
    case ParquetPhysical::fixed_length: return text("fixed_size_binary[", field.fixed_length, "]");
  }
  return "";
}

std::string member_text(const ParquetField &field) {
  return field.name + ": " + field.type_text() + (field.optional ? "" : " not null");
}

}  // namespace

std::string ParquetField::type_text() const {
  switch (kind) {
    case Kind::value: return value_type_text(*this);
    case Kind::list: return "list<" + member_text(children[0]) + ">";
    case Kind::map: return "map<" + children[0].type_text() + ", " + children[1].type_text() + ">";
    case Kind::group: break;
  }
  std::string members;
  for (const ParquetField &child : children) members += (members.empty() ? "" : ", ") + member_text(child);
  return "struct<" + members + ">";
}

std::string ParquetField::path_of(const ParquetField &child, const std::string &path) const {
  constexpr size_t kLongest = 1000;
  if ((kind == Kind::list && child.name == name) || path.size() > kLongest) return path.substr(0, kLongest + 1);
  return path + "." + child.name;
}

std::string ParquetField::quoted_name() const {
  size_t shown = std::min<size_t>(name.size(), 200);
  while (shown < name.size() && shown > 0 && (static_cast<unsigned char>(name[shown]) & 0xC0) == 0x80) --shown;
  std::string quoted = "'" + name.substr(0, shown) + (shown < name.size() ? "...'" : "'");
  std::replace_if(
      quoted.begin(), quoted.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, '?');
  return quoted;
}

bool ParquetField::is_text() const {
  return kind == Kind::value && (annotation.logical == ParquetLogical::string || annotation.logical == ParquetLogical::json);
}

std::vector<ParquetField> parquet_fields(const std::vector<ParquetSchemaElement> &elements, std::string_view where) {
  return SchemaBuilder(elements, where).build();
}

}  // namespace moe
