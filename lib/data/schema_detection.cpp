#include "data/schema_detection.h"

#include <algorithm>

#include "base/error.h"
#include "data/example_file.h"
#include "data/prompt_frame.h"

namespace moe {
namespace {

constexpr size_t kRowsLookedAt = 16;

std::vector<Json> first_rows(const std::string &path) {
  std::vector<Json> result;
  RowReader rows(path);
  std::string defect;
  for (Json row; result.size() < kRowsLookedAt && rows.next(row);) {
    if (rows.defect().empty()) result.push_back(std::move(row));
    else if (defect.empty()) defect = text(rows.where(), ": ", rows.defect());
  }
  if (result.empty() && !defect.empty()) fail(Code::format, defect, "; and no other row can be read");
  if (result.empty()) fail(Code::format, path, ": no rows");
  return result;
}

std::string fields_of(const Json &row) {
  std::string names;
  for (const auto &[name, value] : row.members()) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "none" : names;
}

// A multiple choice schema that a row would fit but for its answer: a split without labels.
const Schema *fits_but_for_answer(const Json &row) {
  for (const Schema &schema : builtin_schemas()) {
    if (schema.kind != SchemaKind::multiple_choice) continue;
    Json labelled = row;
    labelled.set(schema.find("answer")->names.front(), 0);
    if (schema.fits(labelled)) return &schema;
  }
  return nullptr;
}

// The most specific schemas that most of the first rows fit: one, or all of one group.
std::vector<Schema> recognise(const std::string &path) {
  const std::vector<Json> rows = first_rows(path);
  std::vector<Schema> best;
  for (const Schema &schema : builtin_schemas()) {
    const auto fitting = std::count_if(rows.begin(), rows.end(), [&](const Json &row) { return schema.fits(row); });
    if (2 * static_cast<size_t>(fitting) <= rows.size()) continue;
    if (!best.empty() && schema.conditions() < best.front().conditions()) continue;
    if (!best.empty() && schema.conditions() > best.front().conditions()) best.clear();
    best.push_back(schema);
  }
  const auto other = [&](const Schema &schema) { return schema.group.empty() || schema.group != best.front().group; };
  if (best.size() > 1 && std::any_of(best.begin(), best.end(), other))
    fail(Code::invalid, path, ": the fields (", fields_of(rows.front()), ") fit the schemas '", best[0].name, "' and '",
         best[1].name, "'; say which with schema");
  if (!best.empty()) return best;
  if (const Schema *schema = fits_but_for_answer(rows.front()))
    fail(Code::invalid, path, ": the fields fit schema '", schema->name, "' but for its answer '",
         schema->find("answer")->names.front(), "': a split without labels can be neither trained on nor scored");
  std::string known;
  for (const Schema &schema : builtin_schemas()) known += (known.empty() ? "" : ", ") + schema.name;
  fail(Code::invalid, path, ": no schema fits rows with the fields ", fields_of(rows.front()), "; known schemas: ", known,
       "; others can be described by a schema file");
}

// The member of a group that counts answers as the whole file does.
Schema decide(const std::string &path, const std::vector<Schema> &group) {
  AnswerBase base;
  RowReader rows(path, group.front().plain_text, group.front().columns());
  for (Json row; rows.next(row);) base.see(group.front(), row, static_cast<int64_t>(rows.number()));
  const std::string field = "answers ('" + group.front().find("answer")->names.front() + "')";
  if (base.zero_row && base.top_row)
    fail(Code::invalid, path, ": ", field, " count neither from 0 nor from 1: row ", base.zero_row, " has 0 and row ",
         base.top_row, " the number of options");
  const AnswerForm form = base.zero_row ? AnswerForm::index_from_0 : AnswerForm::index_from_1;
  std::string names;
  for (const Schema &schema : group) {
    if ((base.zero_row || base.top_row) && schema.answer.front() == form) return schema;
    names += (names.empty() ? "" : " or ") + schema.name;
  }
  fail(Code::invalid, path, ": no row tells whether ", field,
       " count from 0 or from 1 (none is 0 or the number of options); set schema to ", names);
}

}  // namespace

Schema choose_schema(const std::string &path, const std::string &requested) {
  std::string name = requested;
  const std::string frame = take_frame(name);
  const std::vector<Schema> candidates = name.empty() ? recognise(path) : find_schemas(name);
  return framed(candidates.size() == 1 ? candidates.front() : decide(path, candidates), frame);
}

}  // namespace moe
