#include "data/row_view.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace moe {
namespace {

const char *kind_name(const Json &value) {
  switch (value.kind()) {
    case Json::Kind::null: return "null";
    case Json::Kind::boolean: return "a boolean";
    case Json::Kind::number: return "a number";
    case Json::Kind::string: return "a text";
    case Json::Kind::array: return "a list";
    case Json::Kind::object: return "an object";
  }
  return "unknown";
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_blank(std::string_view text) { return std::all_of(text.begin(), text.end(), is_space); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

bool same_letter(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

// A text or a number as text.
bool scalar_text(const Json &value, std::string &result) {
  if (value.is_string()) result = value.string();
  else if (value.is_number()) result = value.dump();
  else return false;
  return true;
}

// Length of the label "A. ", "A)", "A ) ", "A: " at the start of an option, 0 when it carries none.
size_t label_length(std::string_view text, std::string_view letter) {
  size_t at = letter.size();
  if (text.size() <= at || !same_letter(text.substr(0, at), letter)) return 0;
  if (text[at] == ' ' && text.size() > at + 1 && text[at + 1] == ')') ++at;
  if (text[at] != '.' && text[at] != ')' && text[at] != ':') return 0;
  ++at;
  while (at < text.size() && is_space(text[at])) ++at;
  return at < text.size() ? at : 0;
}

// {"text": [...], "label": [...]}, two lists of the same length (the layout of ARC).
bool paired_lists(const Json &value, const Json *&texts, const Json *&labels) {
  texts = value.find("text");
  labels = value.find("label");
  return value.size() == 2 && texts && labels && texts->is_array() && labels->is_array() && texts->size() == labels->size();
}

}  // namespace

std::string option_letter(size_t index) {
  return index < 26 ? std::string(1, static_cast<char>('A' + index)) : std::to_string(index + 1);
}

void strip_labels(std::vector<Option> &options) {
  std::vector<size_t> lengths;
  for (size_t i = 0; i < options.size(); ++i) {
    lengths.push_back(label_length(options[i].text, option_letter(i)));
    if (lengths.back() == 0) return;
  }
  for (size_t i = 0; i < options.size(); ++i) options[i].text.erase(0, lengths[i]);
}

bool split_options(std::string_view text, std::vector<Option> &result) {
  result.clear();
  const auto mark = [](size_t index) { return std::string(1, static_cast<char>('a' + index)) + " )"; };
  const auto is_quote = [](char c) { return c == '\'' || c == '"'; };
  text = trimmed(text);
  const bool list = text.size() > 4 && text.front() == '[' && is_quote(text[1]) && text.back() == ']' && is_quote(text[text.size() - 2]);
  if (list) text = text.substr(2, text.size() - 4);
  if (text.substr(0, 3) != mark(0)) return false;
  text.remove_prefix(3);
  for (size_t index = 0; index < 26; ++index) {
    size_t end = std::string_view::npos, begin = end;  // of this option, of the next
    for (size_t at = 0; index + 1 < 26 && (at = text.find(mark(index + 1), at)) != std::string_view::npos; ++at) {
      const std::string_view before = text.substr(0, at);
      const bool quoted = list && before.size() >= 4 && is_quote(before.back()) && is_quote(before[before.size() - 4]);
      if (!(list ? quoted && before.substr(before.size() - 3, 2) == ", " : before.ends_with(", "))) continue;
      end = at - (list ? 4 : 2);
      begin = at + 3;
      break;
    }
    result.push_back({option_letter(index), std::string(trimmed(text.substr(0, end)))});
    if (end == std::string_view::npos) return true;
    text.remove_prefix(begin);
  }
  return true;
}

const Json *RowView::field(const std::string &name) const {
  if (entry_)
    if (const Json *found = find_field(*entry_, name)) return found;
  return find_field(row_, name);
}

const Json *RowView::value(std::string_view role) const {
  const Schema::Field *known = schema_.find(role);
  if (!known) return nullptr;
  for (const std::string &name : known->names)
    if (const Json *found = field(name); found && !found->is_null()) return found;
  return nullptr;
}

std::string RowView::field_name(std::string_view role) const {
  const Schema::Field *known = schema_.find(role);
  if (!known) return std::string(role);
  for (const std::string &name : known->names)
    if (field(name)) return name;
  return known->names.front();
}

bool RowView::text(std::string_view role, std::string &result, std::string &reason) const {
  const Json *found = value(role);
  reason = "field '" + field_name(role) + "' is ";
  if (!found) return reason += "absent", false;
  result.clear();
  if (found->is_array() && found->size() > 0) {
    for (const Json &item : found->items()) {
      if (!item.is_string()) return reason += "a list that holds other than texts", false;
      result += (&item == &found->items().front() ? "" : "\n") + item.string();
    }
  } else if (!scalar_text(*found, result)) {
    return reason += std::string(kind_name(*found)) + ", expected a text", false;
  }
  if (is_blank(result)) return reason += "empty", false;
  reason.clear();
  return true;
}

bool RowView::option_values(std::vector<LabelledValue> &found, std::string &reason) const {
  for (const std::string &name : schema_.option_fields) {
    const Json *value = field(name);
    if (!value || value->is_null()) return reason = "field '" + name + "' is absent", false;
    found.emplace_back(option_letter(found.size()), value);
  }
  if (!schema_.option_fields.empty()) return true;

  const std::string name = field_name("options");
  const Json *list = value("options"), *texts, *labels;
  if (!list) return reason = "field '" + name + "' is absent", false;
  if (list->is_object() && paired_lists(*list, texts, labels)) {
    for (size_t i = 0; i < texts->size(); ++i) {
      std::string label;
      if (!scalar_text(labels->items()[i], label)) return reason = "field '" + name + "' has a label that is no text", false;
      found.emplace_back(label, &texts->items()[i]);
    }
  } else if (list->is_object()) {
    for (const auto &[label, option] : list->members()) found.emplace_back(label, &option);
  } else if (list->is_array()) {
    for (const Json &option : list->items()) found.emplace_back(option_letter(found.size()), &option);
  } else {
    return reason = "field '" + name + "' is " + kind_name(*list) + ", expected a list of options", false;
  }
  return true;
}

bool RowView::options(std::vector<Option> &result, std::string &reason) const {
  result.clear();
  for (const std::string &choice : schema_.choices) result.push_back({option_letter(result.size()), choice});
  if (!result.empty()) return true;
  const Json *list = value("options");
  if (schema_.split_options && list && list->is_string()) {
    if (!split_options(list->string(), result))
      return reason = "field '" + field_name("options") + "' does not list options as 'a ) ... , b ) ...'", false;
  } else {
    std::vector<LabelledValue> found;
    if (!option_values(found, reason)) return false;
    for (const auto &[label, value] : found) {
      std::string text;
      if (!scalar_text(*value, text))
        return reason = std::string("an option is ") + kind_name(*value) + ", expected a text", false;
      result.push_back({label, std::move(text)});
    }
  }
  if (result.size() < 2) return reason = "fewer than two options", false;
  if (schema_.strip_labels) strip_labels(result);
  for (const Option &option : result)
    if (is_blank(option.text)) return reason = "an option is empty", false;
  return true;
}

bool RowView::index_answer(int64_t &result) const {
  const Json *found = value("answer");
  if (!found) return false;
  if (found->is_number()) {
    const double number = found->number();
    if (!(number >= -1e9 && number <= 1e9)) return false;
    result = static_cast<int64_t>(number);
    return static_cast<double>(result) == number;
  }
  if (!found->is_string()) return false;
  const std::string_view digits = trimmed(found->string());  // CSV has only texts
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), result);
  return error == std::errc() && end == digits.data() + digits.size();
}

bool RowView::answer(const std::vector<Option> &options, int32_t &result, std::string &reason) const {
  const Json *found = value("answer");
  const std::string name = field_name("answer");
  if (!found) return reason = "no answer: field '" + name + "' is absent (an unlabelled row)", false;
  std::string text;
  if (!scalar_text(*found, text)) return reason = "field '" + name + "' is " + kind_name(*found) + ", expected an answer", false;
  if (is_blank(text)) return reason = "no answer: field '" + name + "' is empty (an unlabelled row)", false;
  int64_t index = 0;
  const bool is_index = index_answer(index);
  if (is_index && index == -1) return reason = "no answer: field '" + name + "' is -1 (an unlabelled row)", false;

  const auto match = [&](auto equal) {
    const auto at = std::find_if(options.begin(), options.end(), equal);
    result = static_cast<int32_t>(at - options.begin());
    return at != options.end();
  };
  int64_t place = -1;  // of an index answer
  bool counts = false;
  for (const AnswerForm form : schema_.answer) {
    if (form == AnswerForm::letter && match([&](const Option &option) { return same_letter(option.label, trimmed(text)); }))
      return true;
    if (form == AnswerForm::text && match([&](const Option &option) { return trimmed(option.text) == trimmed(text); }))
      return true;
    if (!is_index || form == AnswerForm::letter || form == AnswerForm::text) continue;
    counts = true;
    place = index - (form == AnswerForm::index_from_1);
    if (found->is_number()) break;  // a text of digits may still be a label or the text of an option
  }
  if (!counts) return reason = "field '" + name + "' names none of the options", false;
  if (place < 0 || place >= static_cast<int64_t>(options.size()))
    return reason = "field '" + name + "' is outside the options", false;
  return result = static_cast<int32_t>(place), true;
}

}  // namespace moe
