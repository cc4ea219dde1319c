#include "base/shared_object.h"

#include <dlfcn.h>
#include <unistd.h>

#include <vector>

#include "base/error.h"

namespace moe {
namespace {

// The folder of the shared library or program that this code is in.
std::string own_folder() {
  Dl_info information;
  if (dladdr(reinterpret_cast<const void *>(&own_folder), &information) == 0 || !information.dli_fname) return ".";
  const std::string file = information.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "." : file.substr(0, slash);
}

std::string last_reason() {
  const char *reason = dlerror();
  return reason ? reason : "no reason given";
}

}  // namespace

void *SharedObject::find(const char *symbol) const { return dlsym(handle, symbol); }

SharedObject open_shared_object(const std::string &name) {
  const bool is_path = name.find('/') != std::string::npos;
  std::vector<std::string> paths;
  if (is_path) paths = {name};
  else paths = {own_folder() + "/" + name, own_folder() + "/../lib/" + name};
  for (const std::string &path : paths) {
    if (access(path.c_str(), F_OK) != 0) continue;
    if (void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return {path, handle};
    fail(Code::unsupported, path, ": cannot be opened: ", last_reason());
  }
  if (is_path) fail(Code::unsupported, name, ": no such file");
  if (void *handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return {name, handle};
  fail(Code::unsupported, name, ": not found in ", paths[0], ", ", paths[1], " nor where the system looks: ", last_reason());
}

}  // namespace moe
