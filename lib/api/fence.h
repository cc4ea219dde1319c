// The one way out of the library: every function of moe.h that can fail runs its body in fence(), which turns what is thrown into
// a code and a message.
#pragma once
#include <moe.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/error.h"

namespace moe::api {

void clear_error(moe_error *error) noexcept;
// Copies as much of the message as fits, ending between two characters; control characters become spaces. Returns `code`.
int32_t report_error(moe_error *error, int32_t code, std::string_view message) noexcept;

template <class Body>
int32_t fence(moe_error *error, Body &&body) noexcept {
  try {
    body();
    clear_error(error);
    return MOE_OK;
  } catch (const Error &failure) {
    return report_error(error, static_cast<int32_t>(failure.code()), failure.message());
  } catch (const std::bad_alloc &) {
    return report_error(error, MOE_ERR_NOMEM, "out of memory");
  } catch (const std::length_error &) {
    return report_error(error, MOE_ERR_NOMEM, "out of memory: more was asked for than can be addressed");
  } catch (const std::exception &failure) {
    return report_error(error, MOE_ERR_INTERNAL, failure.what());
  } catch (...) {
    return report_error(error, MOE_ERR_INTERNAL, "an exception of an unknown type");
  }
}

// A result pointer: required, and cleared before anything else can fail.
template <class T>
void required_out(T **out, const char *name) {
  if (!out) fail(Code::invalid, name, ": the pointer for the result is NULL");
  *out = nullptr;
}

inline const char *required_text(const char *text, const char *name) {
  if (!text) fail(Code::invalid, name, ": expected a text, found NULL");
  return text;
}

// Content of the caller: NULL only with length 0.
inline std::string_view content(const char *text, size_t length, const char *name) {
  if (!text && length > 0) fail(Code::invalid, name, ": NULL with a length of ", length);
  return {text ? text : "", length};
}

template <class T>
std::span<const T> array(const T *values, size_t count, const char *name) {
  if (!values && count > 0) fail(Code::invalid, name, ": NULL with a count of ", count);
  return {values, count};
}

// The rule of (buffer, capacity, needed): all or nothing; NULL with capacity 0 asks.
template <class T>
void copy_out(std::span<const T> values, T *buffer, size_t capacity, size_t *needed) {
  if (!needed) fail(Code::invalid, "needed: the pointer for the count is NULL");
  *needed = values.size();
  if (!buffer && capacity == 0) return;
  if (!buffer) fail(Code::invalid, "buffer: NULL with a capacity of ", capacity);
  if (values.size() > capacity) fail(Code::buffer, "buffer: ", values.size(), " elements needed, ", capacity, " given");
  if (!values.empty()) std::memcpy(buffer, values.data(), values.size_bytes());
}

// A struct that the caller fills or that is filled for the caller: of version 0.1 at least.
template <class T>
void check_struct(const T *value, const char *name, size_t first_size = sizeof(T)) {
  if (!value) fail(Code::invalid, name, ": NULL");
  if (value->struct_size < first_size) {
    fail(Code::invalid, name, ": struct_size: expected ", first_size, " or more, found ", value->struct_size);
  }
}

// Writes a result struct into the caller's, which may be shorter or longer than this library's.
template <class T>
void give_struct(T value, T *out) {
  const uint32_t size = out->struct_size;
  value.struct_size = size;
  std::memcpy(out, &value, std::min<size_t>(size, sizeof value));
}

}  // namespace moe::api
