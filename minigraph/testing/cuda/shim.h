// CUDA C++ for a processor: what a kernel's text needs so that a C++ compiler takes it, and runs every thread of it.
//
// A file of kernels follows this header, and MG_KERNEL(name) follows it for each of them.
#pragma once
#define MG_HOST 1
#include <utility>

#include "block.h"
#include "numbers.h"

#define __global__ __attribute__((visibility("hidden")))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __constant__
// Declarations of shared memory are followed by MG_POISON(name).
#define __shared__ static
#define MG_POISON(NAME)                                       \
  do {                                                        \
    static unsigned long mg_poisoned;                         \
    mg::poison(mg_poisoned, (void*)&NAME, sizeof NAME);       \
  } while (0)

constexpr int warpSize = mg::WARP;

// Barriers know where they stand: threads that wait at different ones are an error.
#define MG_PLACE (mg::Place{__LINE__, __COUNTER__})
#define __syncthreads() mg::wait(mg::AT_BLOCK_BARRIER, MG_PLACE)
#define __syncwarp(...) mg::SyncLanes{MG_PLACE}(__VA_ARGS__)
#define __shfl_sync(...) mg::shuffle(MG_PLACE, __VA_ARGS__)
#define __shfl_up_sync(...) mg::shuffle_up(MG_PLACE, __VA_ARGS__)
#define __shfl_down_sync(...) mg::shuffle_down(MG_PLACE, __VA_ARGS__)
#define __shfl_xor_sync(...) mg::shuffle_xor(MG_PLACE, __VA_ARGS__)

namespace mg {

inline int lane() { return current % WARP; }

inline void sync_lanes(Place place, unsigned mask) {
  if (!(mask >> lane() & 1))
    fail("lane %d calls a warp's barrier in line %d with mask %08x, without itself", lane(), place.line, mask);
  self().mask = mask;
  wait(AT_WARP_BARRIER, place);
}

struct SyncLanes {
  Place place;
  void operator()(unsigned mask = 0xFFFFFFFF) const { sync_lanes(place, mask); }
};

// The value that another lane of the mask has brought to this place.
template <class T> T received(Place place, unsigned mask, T value, int source) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2, "a shuffle is of 2, 4 or 8 bytes");
  Thread& thread = self();
  memcpy(thread.value, &value, sizeof value);
  thread.source = source;
  sync_lanes(place, mask);
  memcpy(&value, thread.received, sizeof value);
  return value;
}

// A warp is cut into parts of `width` lanes: a lane beyond the own part's end is the own.
template <class T> T shuffle(Place place, unsigned mask, T value, int source, int width = WARP) {
  return received(place, mask, value, lane() / width * width + (source & (width - 1)));
}
template <class T> T shuffle_up(Place place, unsigned mask, T value, unsigned delta, int width = WARP) {
  const int source = lane() - (int)delta;
  return received(place, mask, value, source < lane() / width * width ? lane() : source);
}
template <class T> T shuffle_down(Place place, unsigned mask, T value, unsigned delta, int width = WARP) {
  const int source = lane() + (int)delta;
  return received(place, mask, value, source >= (lane() / width + 1) * width ? lane() : source);
}
template <class T> T shuffle_xor(Place place, unsigned mask, T value, int flipped, int width = WARP) {
  const int source = lane() ^ flipped;
  return received(place, mask, value, source >= (lane() / width + 1) * width ? lane() : source);
}

// How a parameter is declared: r, w (pointers to what is read, written), i, f; its bytes; what its address divides by.
template <class T> struct Declared {
  static constexpr char kind = (T)1.5 == (T)1 ? 'i' : 'f', alignment = '1';
};
template <class T> struct Declared<T*> { static constexpr char kind = 'w', alignment = '0' + alignof(T) % 64; };
template <class T> struct Declared<const T*> { static constexpr char kind = 'r', alignment = '0' + alignof(T) % 64; };

template <class... A> const char* signature(void (*)(A...)) {
  static const char text[][4] = {{Declared<A>::kind, '0' + sizeof(A), Declared<A>::alignment, 0}..., ""};
  static char joined[3 * sizeof...(A) + 1];
  for (size_t i = 0; i < sizeof...(A); ++i) memcpy(joined + 3 * i, text[i], 4);
  return joined;
}

template <class... A> struct Call {
  void (*kernel)(A...);
  void** arguments;
  template <size_t... I> void operator()(std::index_sequence<I...>) { kernel(*(A*)arguments[I]...); }
  static void run(void* call) { (*(Call*)call)(std::index_sequence_for<A...>()); }
};

template <class... A> const char* launch(void (*kernel)(A...), const unsigned* shape, char* stacks, void** arguments) {
  Call<A...> call{kernel, arguments};
  body = Call<A...>::run;
  body_data = &call;
  return run_grid(shape, stacks);
}

}  // namespace mg

template <class T> inline T __ldg(const T* p) { return *p; }
inline void __threadfence() {}

// Blocks and threads run one after the other: what reads, changes and writes is atomic as it stands.
template <class T> inline T mg_exchanged(T* p, T value) {
  const T old = *p;
  *p = value;
  return old;
}
#define MG_ATOMICS(T)                                                                              \
  inline T atomicAdd(T* p, T x) { return mg_exchanged(p, (T)(*p + x)); }                           \
  inline T atomicMax(T* p, T x) { return mg_exchanged(p, *p < x ? x : *p); }
MG_ATOMICS(int)
MG_ATOMICS(unsigned)
MG_ATOMICS(unsigned long long)
#undef MG_ATOMICS

#define MG_ENTRY extern "C" __attribute__((visibility("default"))) const char*
#define MG_KERNEL(NAME)                                                                            \
  MG_ENTRY mg_launch_##NAME(const unsigned* shape, char* stacks, void** arguments) {               \
    return mg::launch(NAME, shape, stacks, arguments);                                             \
  }                                                                                                \
  MG_ENTRY mg_signature_##NAME() { return mg::signature(NAME); }
