// Streams, events, copies and the state of the device. Without asynchronous mode all work is done at once; with it a stream
// keeps its work until something waits for it, so what depends on an order that nobody asked for goes wrong.
#include <cuda_runtime.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <vector>

#include "cuda_host/internal.h"

struct CUevent_st {
  uint64_t recorded = 0, done = 0;  // how often
  cudaStream_t stream = nullptr;
  double seconds = 0;
};
struct CUstream_st {
  std::deque<std::function<void()>> work;
  bool blocking = true;  // ordered with the legacy default stream
};

namespace cuda_host {
namespace {

std::recursive_mutex one_call;

CUstream_st default_stream;
std::vector<cudaStream_t> streams{&default_stream};
cudaError_t last_error = cudaSuccess;
bool async_mode, broken;
int devices = 1, capability = 80;

cudaStream_t real(cudaStream_t stream) { return stream == nullptr || stream == cudaStreamLegacy ? &default_stream : stream; }

void run_one(cudaStream_t stream) {
  const std::function<void()> work = std::move(stream->work.front());
  stream->work.pop_front();
  work();
}
void finish(cudaStream_t stream) {
  while (!stream->work.empty()) run_one(stream);
}
void finish_ordered_with_default() {
  for (size_t i = 0; i < streams.size(); i++)
    if (streams[i]->blocking) finish(streams[i]);
}
void run_ahead() {
  while (has_seed() && random_number() % 3 == 0) {
    cudaStream_t stream = streams[random_number() % streams.size()];
    if (!stream->work.empty()) run_one(stream);
  }
}
void wait_for(cudaEvent_t event, uint64_t count) {
  while (event->done < count) {
    if (event->stream->work.empty()) fail("an event is waited for that no stream will record");
    run_one(event->stream);
  }
}

enum class Side { host, device };
Side side_of(const void *address) { return in_device_memory(address) ? Side::device : Side::host; }
cudaError_t check_copy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t state = device_state()) return state;
  const Side t = side_of(to), f = side_of(from);
  if (kind != cudaMemcpyDefault) {
    const Side to_expected = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice ? Side::device : Side::host;
    const Side from_expected = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice ? Side::device : Side::host;
    if (t != to_expected || f != from_expected) return cudaErrorInvalidValue;
  }
  if (bytes == 0) return cudaSuccess;
  if ((t == Side::device && !inside_allocation(to, bytes)) || (f == Side::device && !inside_allocation(from, bytes)))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}
void do_copy(void *to, const void *from, size_t bytes) {
  DeviceAccess access;
  memcpy(to, from, bytes);
  if (side_of(to) == Side::device) {
    if (side_of(from) == Side::device) copy_marks(to, from, bytes);
    else mark_defined(to, bytes);
  }
}

}  // namespace

OneCall::OneCall() { one_call.lock(); }
OneCall::~OneCall() { one_call.unlock(); }

void set_async(bool on) {
  finish_everything();
  async_mode = on;
}
void break_device(bool on) {
  broken = on;
  last_error = cudaSuccess;
}
void set_devices(int count) { devices = count; }
void set_capability(int value) { capability = value; }

cudaError_t device_state() {
  if (devices < 0) return cudaErrorInsufficientDriver;
  if (devices == 0) return cudaErrorNoDevice;
  return broken ? cudaErrorIllegalAddress : cudaSuccess;
}
cudaError_t set_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

void finish_everything() {
  for (size_t i = 0; i < streams.size(); i++) finish(streams[i]);
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
  stream = real(stream);
  if (!async_mode) return work();
  if (stream == &default_stream) finish_ordered_with_default();
  stream->work.push_back(std::move(work));
  run_ahead();
}

}  // namespace cuda_host

using namespace cuda_host;

extern "C" {

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const OneCall call;
  if (const cudaError_t error = check_copy(to, from, bytes, kind)) return set_error(error);
  if (async_mode && side_of(to) == Side::host) memset(to, 0xff, bytes);  // undefined until the stream is waited for
  if (async_mode && side_of(from) == Side::host) {
    // Pageable memory is staged before the call returns; pinned memory is read later and must then still be the same.
    std::vector<char> staged(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
    const bool read_later = is_pinned(from);
    enqueue(stream, [=, staged = std::move(staged)] {
      if (read_later && memcmp(from, staged.data(), bytes) != 0) fail("pinned memory was changed before its copy to the device was done");
      do_copy(to, staged.data(), bytes);
    });
  } else {
    enqueue(stream, [=] { do_copy(to, from, bytes); });
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  const OneCall call;
  counters.waits++;
  finish_ordered_with_default();
  if (const cudaError_t error = check_copy(to, from, bytes, kind)) return set_error(error);
  do_copy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  if (bytes > 0 && !inside_allocation(to, bytes)) return set_error(cudaErrorInvalidValue);
  enqueue(stream, [=] {
    DeviceAccess access;
    memset(to, value, bytes);
    mark_defined(to, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  *stream = new CUstream_st;
  (*stream)->blocking = !(flags & cudaStreamNonBlocking);
  streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const OneCall call;
  finish(stream);
  streams.erase(std::find(streams.begin(), streams.end(), stream));
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  counters.waits++;
  if (real(stream) == &default_stream) finish_ordered_with_default();
  else finish(stream);
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  counters.waits++;
  finish_everything();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const OneCall call;
  const uint64_t count = event->recorded;  // what was recorded by now
  enqueue(stream, [=] { wait_for(event, count); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const OneCall call;
  finish_everything();
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const OneCall call;
  event->recorded++;
  event->stream = real(stream);
  enqueue(stream, [=] {
    event->done++;
    event->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  if (event->done < event->recorded) counters.waits++;
  wait_for(event, event->recorded);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t first, cudaEvent_t last) {
  const OneCall call;
  *milliseconds = static_cast<float>((last->seconds - first->seconds) * 1e3);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const OneCall call;
  const cudaError_t error = last_error;
  last_error = device_state();
  return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetDeviceCount(int *count) {
  const OneCall call;
  *count = std::max(devices, 0);
  return devices > 0 ? cudaSuccess : set_error(device_state());
}
cudaError_t cudaSetDevice(int device) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  return device >= 0 && device < devices ? cudaSuccess : set_error(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int *device) {
  const OneCall call;
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
  const OneCall call;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = capability % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    default: return set_error(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
  const OneCall call;
  *version = devices < 0 ? 0 : CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
  const OneCall call;
  *version = CUDART_VERSION;
  return cudaSuccess;
}
const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    default: return "invalid argument";
  }
}

}  // extern "C"
