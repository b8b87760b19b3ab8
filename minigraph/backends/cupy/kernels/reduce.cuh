// Reductions along any axes, in one stage or two, always in the same order: equal numbers give equal bits.
//
// A block has ACROSS results in hand, or packs of V of them, and ALONG threads for each; `parts` blocks share the
// elements of one result, and a second launch joins what they leave. Neighbouring threads read neighbouring elements:
// of the reduced axes if the last axis is one of them, of the others if not.
#pragma once
#include "group.cuh"
#include "places.cuh"

// --- what is reduced: element j of result i ------------------------------------------------------------------------

struct Plainly {
  template <class A> MG_INLINE A operator()(A x, Index, Index) const { return x; }
};
// exp(x − top), where the top is not infinite: ∞ − ∞ is not a number, but the logarithm of the sum is ±∞.
template <class A> MG_INLINE A finite_or_0(A x) { return isinf(x) ? (A)0 : x; }
template <class A> struct ExponentialAbove {
  const A* tops;
  MG_INLINE A operator()(A x, Index i, Index) const { return exponential(x - finite_or_0(tops[i])); }
};
template <class A> struct SquareAround {
  const A* means;
  MG_INLINE A operator()(A x, Index i, Index) const { return (x - means[i]) * (x - means[i]); }
};

// An element with its place along the axis. The first of the largest wins, and NaN is the largest.
template <class A> struct Placed {
  A value;
  Index place;
};
struct FirstLargest {
  template <class P> static MG_INLINE P start() { return {Larger::start<decltype(P::value)>(), 0x7fffffffffffffffL}; }
  template <class A> static MG_INLINE Placed<A> join(Placed<A> a, Placed<A> b) {
    const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
    const bool equal = a_is_nan ? b_is_nan : a.value == b.value;
    const bool first = equal ? a.place < b.place : a_is_nan || a.value > b.value;
    return first ? a : b;
  }
};
struct WithPlace {
  template <class A> MG_INLINE Placed<A> operator()(A x, Index, Index j) const { return {x, j}; }
};

// --- what becomes of a total: of result i, joined by one of `parts` ------------------------------------------------

template <class A> struct LeftForLater {
  A* partials;
  Index results;
  MG_INLINE void operator()(Index i, Index part, A total) const { partials[part * results + i] = total; }
};
template <class T> struct Stored {
  T* y;
  template <class A> MG_INLINE void operator()(Index i, Index, A total) const {
    y[i] = from_float<T>((Compute<T>)total);
  }
};
template <class T> struct Divided {
  T* y;
  Compute<T> by;
  MG_INLINE void operator()(Index i, Index, Compute<T> total) const { y[i] = from_float<T>(total / by); }
};
// A mean that is not rounded yet as well, to be subtracted.
template <class T> struct DividedTwice {
  T* y;
  Compute<T>* wide;
  Compute<T> by;
  MG_INLINE void operator()(Index i, Index, Compute<T> total) const { y[i] = from_float<T>(wide[i] = total / by); }
};
template <class T> struct LogarithmOf {
  T* y;
  const Compute<T>* tops;
  MG_INLINE void operator()(Index i, Index, Compute<T> total) const {
    y[i] = from_float<T>(logarithm(total) + finite_or_0(tops[i]));
  }
};
struct PlaceOf {
  int64_t* y;
  template <class A> MG_INLINE void operator()(Index i, Index, Placed<A> found) const { y[i] = found.place; }
};

// --- the reduction -------------------------------------------------------------------------------------------------

// Kept::at(i) and Reduced::at(j) are where result i and its element j lie, in packs of V elements of x: of one result if
// the last axis is reduced, WITHIN, else of V results.
template <class Join, class A, int V, bool WITHIN, int ACROSS, int ALONG, Index PARTS, class Kept, class Reduced,
          class T, class Value, class Finish>
MG_INLINE void reduce(const T* x, Value value, Finish finish) {
  constexpr Index K = Reduced::SIZE, SHARE = (K + PARTS - 1) / PARTS;
  const int across = WITHIN ? threadIdx.x / ALONG : threadIdx.x % ACROSS;
  const int along = WITHIN ? threadIdx.x % ALONG : threadIdx.x / ACROSS;
  const Index part = blockIdx.x % PARTS, i = blockIdx.x / PARTS * ACROSS + across;
  const Index end = part * SHARE + SHARE < K ? part * SHARE + SHARE : K;
  A totals[V];
#pragma unroll
  for (int v = 0; v < V; v++) totals[v] = Join::template start<A>();
  if (i < Kept::SIZE) {
    const T* own = x + Kept::at(i) * V;
#pragma unroll 4
    for (Index j = part * SHARE + along; j < end; j += ALONG) {
      const Pack<T, V> pack = load<V>(own + Reduced::at(j) * V);
#pragma unroll
      for (int v = 0; v < V; v++) {
        const Index result = WITHIN ? i : i * V + v, element = WITHIN ? j * V + v : j;
        totals[v] = Join::join(totals[v], (A)value(to_float(pack.at[v]), result, element));
      }
    }
  }
  if constexpr (WITHIN) {
#pragma unroll
    for (int v = 1; v < V; v++) totals[0] = Join::join(totals[0], totals[v]);
  }
  constexpr int RESULTS = WITHIN ? 1 : V;
  if constexpr (ALONG > 1) {
    constexpr int APART = WITHIN ? 1 : ACROSS;
    __shared__ A shared[RESULTS][ACROSS * ALONG];
#pragma unroll
    for (int v = 0; v < RESULTS; v++) shared[v][threadIdx.x] = totals[v];
    for (int half = ALONG / 2; half > 0; half /= 2) {
      __syncthreads();
      if (along < half)
#pragma unroll
        for (int v = 0; v < RESULTS; v++)
          shared[v][threadIdx.x] = totals[v] = Join::join(totals[v], shared[v][threadIdx.x + half * APART]);
    }
  }
  if (along == 0 && i < Kept::SIZE)
#pragma unroll
    for (int v = 0; v < RESULTS; v++) finish(i * RESULTS + v, part, totals[v]);
}
