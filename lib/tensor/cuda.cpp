// The shared object exports two functions (cuda/module.cu): its version, which must be that of this build to the letter, because
// the classes of tensor/backend.h are shared by both sides, and the function that opens a device.
#include "tensor/cuda.h"

#include <charconv>

#include "base/error.h"
#include "base/shared_object.h"

namespace moe {
namespace {

int number_of(const std::string &device) {
  if (device == "cuda") return 0;
  int number = -1;
  if (device.rfind("cuda:", 0) == 0) {
    const char *first = device.data() + 5, *last = device.data() + device.size();
    const auto [end, error] = std::from_chars(first, last, number);
    if (error != std::errc() || end != last) number = -1;
  }
  if (number < 0) fail(Code::invalid, "device: expected cuda or cuda:N, found ", device);
  return number;
}

}  // namespace

std::unique_ptr<Backend> open_cuda(const std::string &device, const std::string &file) {
  const int number = number_of(device);
  SharedObject object;
  try {
    object = open_shared_object(file);
  } catch (const Error &error) {
    fail(error.code(), "device ", device,
         ": the CUDA part of the library is missing (it is built where nvcc is found): ", error.message());
  }
  const auto version = reinterpret_cast<const char *(*)()>(object.find("moe_cuda_version"));
  const auto open = reinterpret_cast<Backend *(*)(int)>(object.find("moe_cuda_open"));
  if (!version || !open) fail(Code::unsupported, object.path, ": not the CUDA part of this library");
  if (std::string(version()) != MOE_BACKEND_VERSION) {
    fail(Code::unsupported, object.path, ": of another build: expected version ", MOE_BACKEND_VERSION, ", found ", version());
  }
  return std::unique_ptr<Backend>(open(number));
}

}  // namespace moe
