// moe_options_*: see moe.h.
#include <string>
#include <vector>

#include "api/handles.h"

using namespace moe::api;

namespace {

// The texts of the rows as C strings that live as long as the library.
const std::vector<std::string> &bounds_of_rows() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> texts;
    for (const OptionRow &row : option_rows()) texts.push_back(option_bounds(row));
    return texts;
  }();
  return all;
}

// Runs `change` on the options, alone.
template <class Change>
int32_t change_options(moe_options *handle, moe_error *error, Change change) {
  return fence(error, [&] {
    const auto core = core_of(handle, "moe_options");
    const Writing writing(core->use, "moe_options");
    change(core->options);
  });
}

}  // namespace

extern "C" {

int32_t moe_options_create(moe_options **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = make_handle<moe_options>(std::make_shared<OptionsCore>());
  });
}

int32_t moe_options_set(moe_options *options, const char *key, const char *value, moe_error *error) {
  return change_options(options, error,
                        [&](Options &values) { values.set(required_text(key, "key"), required_text(value, "value")); });
}

int32_t moe_options_append(moe_options *options, const char *key, const char *value, size_t length, moe_error *error) {
  return change_options(options, error,
                        [&](Options &values) { values.append(required_text(key, "key"), content(value, length, "value")); });
}

int32_t moe_options_load_json(moe_options *options, const char *json, size_t length, moe_error *error) {
  return change_options(options, error,
                        [&](Options &values) { values.load_json(moe::Json::parse(content(json, length, "json"), "options")); });
}

int32_t moe_options_has(const moe_options *options, const char *key) {
  const OptionsCore *core = peek(options);
  int32_t has = 0;
  fence(nullptr, [&] { has = core && key && core->options.has(key); });
  return has;
}

int32_t moe_options_get(const moe_options *options, const char *key, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    core_of(options, "moe_options");
    *out = new_text(OptionsOf(options)->as_text(required_text(key, "key")));
  });
}

int32_t moe_options_resolved(const moe_options *options, const char *verb, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    core_of(options, "moe_options");
    *out = new_json(OptionsOf(options)->resolved(verb ? verb : ""));
  });
}

int32_t moe_options_check(const moe_options *options, const char *verb, moe_error *error) {
  return fence(error, [&] {
    core_of(options, "moe_options");
    OptionsOf(options)->check(required_text(verb, "verb"));
  });
}

int32_t moe_options_set_log(moe_options *options, moe_log_callback log, void *user, moe_error *error) {
  return change_options(options, error, [&](Options &values) {
    if (!log) values.log = nullptr;
    else
      values.log = [log, user](moe::LogLevel level, const std::string &line) {
        log(static_cast<int32_t>(level), line.c_str(), user);
      };
  });
}

void moe_options_free(moe_options **options) { free_handle(options); }

int32_t moe_options_row(size_t index, moe_option *out) {
  int32_t found = 0;
  fence(nullptr, [&] {
    check_struct(out, "out");
    if (index >= option_rows().size()) return;
    const OptionRow &row = option_rows()[index];
    moe_option option = MOE_OPTION_INIT;
    option.is_list = row.is_list;
    option.key = row.key;
    option.aliases = row.aliases;
    option.type = option_type_name(row.type);
    option.default_value = row.default_value;
    option.bounds = bounds_of_rows()[index].c_str();
    option.help = row.help;
    option.verbs = row.verbs;
    give_struct(option, out);
    found = 1;
  });
  return found;
}

int32_t moe_options_describe(const char *verb, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_json(options_json(verb ? verb : ""));
  });
}

}  // extern "C"
