// How many processors this process may use.
#pragma once

namespace moe {

int usable_processors();  // of the process's affinity mask where the system has one; at least 1

}  // namespace moe
