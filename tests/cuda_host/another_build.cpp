// A shared object with the functions of libmoe_cuda and the version of another build.
extern "C" __attribute__((visibility("default"))) const char *moe_cuda_version() { return "0.0.1-000000000000"; }
extern "C" __attribute__((visibility("default"))) void *moe_cuda_open(int) { return nullptr; }
