// Code that is looked for and opened at run time. What was opened stays open: nothing may outlive its code.
#pragma once
#include <string>

namespace moe {

struct SharedObject {
  std::string path;  // as it was found
  void *handle;
  void *find(const char *symbol) const;  // nullptr = it has none of this name
};

// A name without a slash is looked for beside the file that holds this code, in ../lib from there, then where the system looks.
// Code::unsupported: where it was looked for, or why the system refuses what it found.
SharedObject open_shared_object(const std::string &name);

}  // namespace moe
