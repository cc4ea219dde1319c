// What the shared object exports (lib/tensor/cuda.cpp opens it).
#include "cuda/cuda_backend.h"

#define MOE_EXPORTED extern "C" __attribute__((visibility("default")))

MOE_EXPORTED const char *moe_cuda_version() { return MOE_BACKEND_VERSION; }
MOE_EXPORTED moe::Backend *moe_cuda_open(int device) { return new moe::cuda::CudaBackend(device); }
