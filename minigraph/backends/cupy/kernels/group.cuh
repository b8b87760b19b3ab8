// How two numbers become one, and how those of G neighbouring threads of a block do. G is a power of two.
#pragma once
#include "elementary.cuh"

// The extreme numbers of a type, which lose against all others.
template <class T> struct Extremes {
  static constexpr bool SIGNED = T(-1) < T(0);
  static MG_INLINE T least() { return SIGNED ? (T)((uint64_t)1 << (8 * sizeof(T) - 1)) : (T)0; }
  static MG_INLINE T most() { return (T) ~(uint64_t)least(); }
};
template <> struct Extremes<bool> {
  static MG_INLINE bool least() { return false; }
  static MG_INLINE bool most() { return true; }
};
template <> struct Extremes<float> {
  static MG_INLINE float least() { return -INFINITY; }
  static MG_INLINE float most() { return INFINITY; }
};
template <> struct Extremes<double> {
  static MG_INLINE double least() { return -(double)INFINITY; }
  static MG_INLINE double most() { return INFINITY; }
};

struct Plus {
  template <class A> static MG_INLINE A start() { return A(0); }
  template <class A> static MG_INLINE A join(A a, A b) { return a + b; }
  static MG_INLINE bool join(bool a, bool b) { return a || b; }
};
struct Larger {
  template <class A> static MG_INLINE A start() { return Extremes<A>::least(); }
  template <class A> static MG_INLINE A join(A a, A b) { return maximum(a, b); }
};
struct Smaller {
  template <class A> static MG_INLINE A start() { return Extremes<A>::most(); }
  template <class A> static MG_INLINE A join(A a, A b) { return minimum(a, b); }
};

// All G threads get what their numbers make together. Groups of more than a warp are a whole block, and go through
// shared memory.
template <class Join, int G, class A> MG_INLINE A joined(A mine) {
  for (int apart = (G < 32 ? G : 32) / 2; apart > 0; apart /= 2)
    mine = Join::join(mine, (A)__shfl_xor_sync(0xffffffffu, mine, apart));
  if constexpr (G > 32) {
    __shared__ A of_warps[G / 32];
    __syncthreads();  // all have read what was there before
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = of_warps[0];
    for (int warp = 1; warp < G / 32; warp++) mine = Join::join(mine, of_warps[warp]);
  }
  return mine;
}
