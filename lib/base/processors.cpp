#include "base/processors.h"

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <thread>

namespace moe {

int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

bool bind_thread(int index) {
#if defined(__linux__)
  cpu_set_t usable, one;
  if (sched_getaffinity(0, sizeof usable, &usable) != 0 || CPU_COUNT(&usable) == 0) return false;
  int left = index % CPU_COUNT(&usable), processor = 0;
  for (; !CPU_ISSET(processor, &usable) || left-- > 0; processor++) {
  }
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  return sched_setaffinity(0, sizeof one, &one) == 0;
#else
  static_cast<void>(index);
  return false;
#endif
}

}  // namespace moe
