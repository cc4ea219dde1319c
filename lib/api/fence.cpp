#include "api/fence.h"

#include <algorithm>
#include <cstddef>

#include "base/utf8.h"

// moe.h promises these to every compiled caller.
#define SAME_CODE(name, constant) static_assert(static_cast<int32_t>(moe::Code::name) == MOE_ERR_##constant)
SAME_CODE(no_memory, NOMEM);
SAME_CODE(invalid, INVALID);
SAME_CODE(state, STATE);
SAME_CODE(io, IO);
SAME_CODE(format, FORMAT);
SAME_CODE(unsupported, UNSUPPORTED);
SAME_CODE(numeric, NUMERIC);
SAME_CODE(cancelled, CANCELLED);
SAME_CODE(buffer, BUFFER);
SAME_CODE(busy, BUSY);
SAME_CODE(device, DEVICE);
SAME_CODE(internal, INTERNAL);
#undef SAME_CODE

static_assert(sizeof(moe_error) == 1024 && offsetof(moe_error, message) == 8);
static_assert(sizeof(moe_step) == 112 && offsetof(moe_step, step) == 8 && offsetof(moe_step, loss) == 40);
static_assert(offsetof(moe_batch, n_tokens) == 8 && offsetof(moe_batch, tokens) == 24);
static_assert(sizeof(void *) != 8 || sizeof(moe_batch) == 64);
static_assert(sizeof(void *) != 8 || sizeof(moe_piece) == 48);
static_assert(sizeof(void *) != 8 || sizeof(moe_event) == 64);
static_assert(sizeof(void *) != 8 || sizeof(moe_option) == 64);

namespace moe::api {

void clear_error(moe_error *error) noexcept {
  if (!error) return;
  error->code = MOE_OK;
  error->message[0] = 0;
}

int32_t report_error(moe_error *error, int32_t code, std::string_view message) noexcept {
  if (!error) return code;
  error->code = code;
  size_t length = 0;
  while (length < message.size()) {
    const size_t bytes = utf8_length(message.substr(length));
    const size_t step = bytes ? bytes : 1;
    if (length + step >= sizeof error->message) break;
    const bool plain =
        bytes > 1 || (bytes == 1 && static_cast<unsigned char>(message[length]) >= 0x20 && message[length] != 0x7f);
    if (plain) std::memcpy(error->message + length, message.data() + length, step);
    else error->message[length] = bytes ? ' ' : '?';
    length += step;
  }
  error->message[length] = 0;
  return code;
}

}  // namespace moe::api

extern "C" const char *moe_status_name(int32_t code) {
  switch (code) {
    case MOE_OK: return "MOE_OK";
    case MOE_ERR_NOMEM: return "MOE_ERR_NOMEM";
    case MOE_ERR_INVALID: return "MOE_ERR_INVALID";
    case MOE_ERR_STATE: return "MOE_ERR_STATE";
    case MOE_ERR_IO: return "MOE_ERR_IO";
    case MOE_ERR_FORMAT: return "MOE_ERR_FORMAT";
    case MOE_ERR_UNSUPPORTED: return "MOE_ERR_UNSUPPORTED";
    case MOE_ERR_NUMERIC: return "MOE_ERR_NUMERIC";
    case MOE_ERR_CANCELLED: return "MOE_ERR_CANCELLED";
    case MOE_ERR_BUFFER: return "MOE_ERR_BUFFER";
    case MOE_ERR_BUSY: return "MOE_ERR_BUSY";
    case MOE_ERR_DEVICE: return "MOE_ERR_DEVICE";
    case MOE_ERR_INTERNAL: return "MOE_ERR_INTERNAL";
    default: return "MOE_ERR_UNKNOWN";
  }
}
