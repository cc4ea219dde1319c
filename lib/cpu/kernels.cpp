// Finds the instruction-set level of this machine and hands out its kernel table.
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>

#include "base/error.h"

#define MOE_DECLARE_INT8(level) \
  namespace moe::cpu::level {     \
  void fill_int8_kernels(moe::cpu::Kernels &); \
  }
#define MOE_DECLARE_LEVEL(level)                    \
  MOE_DECLARE_INT8(level)                           \
  namespace moe::cpu::level {                       \
  void fill_product_kernels(moe::cpu::Kernels &);   \
  void fill_vector_kernels(moe::cpu::Kernels &);    \
  void fill_attention_kernels(moe::cpu::Kernels &); \
  }
MOE_DECLARE_LEVEL(scalar)
#if defined(__x86_64__)
MOE_DECLARE_LEVEL(avx2)
MOE_DECLARE_LEVEL(avx512)
MOE_DECLARE_LEVEL(avx512_bf16)
MOE_DECLARE_INT8(avx2_vnni)
MOE_DECLARE_INT8(avx512_vnni)
namespace moe::cpu::amx {
void fill_amx_kernels(moe::cpu::Kernels &);
}
#elif defined(__aarch64__)
MOE_DECLARE_LEVEL(neon)
MOE_DECLARE_LEVEL(neon_i8mm)
MOE_DECLARE_INT8(neon_dotprod)
#endif

namespace moe::cpu {
namespace {

// A level with the integer products of `int8_level`.
#define MOE_MAKE_TABLE(level_name, base_level, int8_level) \
  Kernels make_##level_name() {                            \
    Kernels table{};                                       \
    base_level::fill_product_kernels(table);               \
    base_level::fill_vector_kernels(table);                \
    base_level::fill_attention_kernels(table);             \
    int8_level::fill_int8_kernels(table);                  \
    table.level = #level_name;                             \
    return table;                                          \
  }
MOE_MAKE_TABLE(scalar, scalar, scalar)
#if defined(__x86_64__)
MOE_MAKE_TABLE(avx2, avx2, avx2)
MOE_MAKE_TABLE(avx2_vnni, avx2, avx2_vnni)
MOE_MAKE_TABLE(avx512, avx512, avx512)
MOE_MAKE_TABLE(avx512_vnni, avx512, avx512_vnni)
MOE_MAKE_TABLE(avx512_bf16, avx512_bf16, avx512_bf16)
Kernels make_amx() {
  Kernels table = make_avx512_bf16();
  amx::fill_amx_kernels(table);
  table.level = "amx";
  return table;
}
#elif defined(__aarch64__)
MOE_MAKE_TABLE(neon, neon, neon)
MOE_MAKE_TABLE(neon_dotprod, neon, neon_dotprod)
MOE_MAKE_TABLE(neon_i8mm, neon_i8mm, neon_i8mm)
#endif

struct Level {
  const char *name;
  bool (*available)();
  Kernels (*make)();
};

bool always() { return true; }
#if defined(__x86_64__)
// Clang 14 does not know the name "f16c".
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool has_avx512_bf16() { return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16"); }
// CPUID leaf 7, subleaf 1, EAX bit 4
bool has_avx2_vnni() {
  unsigned a = 0, b, c, d;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
// CPUID leaf 7, EDX bits 22 (bf16) and 24 (tiles). Linux grants the registers on request, for all threads of the process
// (Documentation/arch/x86/xstate.rst).
bool has_amx() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1) &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}
#elif defined(__aarch64__)  // the f32 vectors of `neon` belong to every such processor
#if defined(__APPLE__)
bool has(const char *name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_dotprod() && has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16"); }
#elif defined(__linux__)
bool has_dotprod() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
bool has_i8mm() {
  constexpr unsigned long needed = HWCAP2_I8MM | HWCAP2_BF16;
  return has_dotprod() && (getauxval(AT_HWCAP2) & needed) == needed;
}
#else
bool has_dotprod() { return false; }
bool has_i8mm() { return false; }
#endif
#endif

const Level kLevels[] = {
    {"scalar", always, make_scalar},
#if defined(__x86_64__)
    {"avx2", has_avx2, make_avx2},
    {"avx2_vnni", has_avx2_vnni, make_avx2_vnni},
    {"avx512", has_avx512, make_avx512},
    {"avx512_vnni", has_avx512_vnni, make_avx512_vnni},
    {"avx512_bf16", has_avx512_bf16, make_avx512_bf16},
    {"amx", has_amx, make_amx},
#elif defined(__aarch64__)
    {"neon", always, make_neon},
    {"neon_dotprod", has_dotprod, make_neon_dotprod},
    {"neon_i8mm", has_i8mm, make_neon_i8mm},
#endif
};

// vdpbf16ps does 64 flops a cycle and port on Zen 4 and later, as many as two FMAs; Intel cores before AMX reach half of their
// f32 rate with it.
bool bf16_dot_is_fast() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

const Level *find_level(const char *name) {
  for (const Level &level : kLevels) {
    if (std::strcmp(level.name, name) == 0) return &level;
  }
  return nullptr;
}

}  // namespace

const Kernels *kernels_of(const char *name) {
  const Level *level = find_level(name);
  if (!level || !level->available()) return nullptr;
  static const Kernels *tables[std::size(kLevels)] = {};
  static const bool filled = [] {
    static Kernels storage[std::size(kLevels)];
    for (size_t i = 0; i < std::size(kLevels); i++) {
      if (!kLevels[i].available()) continue;
      storage[i] = kLevels[i].make();
      tables[i] = &storage[i];
    }
    return true;
  }();
  (void)filled;
  return tables[level - kLevels];
}

const Kernels &best_kernels() {
  const char *cap = std::getenv("MOE_CPU_LEVEL");
  const Level *last = &kLevels[std::size(kLevels) - 1];
  if (cap && *cap) {
    last = find_level(cap);
    if (!last) {
      std::string names;
      for (const Level &level : kLevels) names.append(names.empty() ? "" : ", ").append(level.name);
      fail(Code::invalid, "MOE_CPU_LEVEL: expected one of ", names, ", found '", cap, "'");
    }
  }
  for (const Level *level = last; level > kLevels; level--) {
    const bool waits = !(cap && *cap) && std::strcmp(level->name, "avx512_bf16") == 0 && !bf16_dot_is_fast();
    if (level->available() && !waits) return *kernels_of(level->name);
  }
  return *kernels_of("scalar");
}

}  // namespace moe::cpu
