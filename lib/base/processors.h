// Which processors this process may use.
#pragma once

namespace moe {

int usable_processors();  // of the process's affinity mask where the system has one; at least 1
// Binds the calling thread to one of them, the index-th counted round. False where the system does not do that.
bool bind_thread(int index);

}  // namespace moe
