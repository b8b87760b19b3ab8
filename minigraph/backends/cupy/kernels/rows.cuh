// Softmax and its kin. An array is seen as [outer][K][STEP], and a row is K elements that lie STEP apart.
#pragma once
#include "group.cuh"

// One thread's share of a row that G threads have in hand: every G-th pack of V elements. Short rows stay in registers;
// of long ones the elements are read again each time, from the caches mostly.
template <class T, Index K, Index STEP, int G, int V> struct Row {
  typedef Compute<T> A;
  static constexpr Index EACH = (K / V + G - 1) / G;
  static constexpr bool HELD = EACH * V * (Index)sizeof(A) <= 128;
  const T* const x;
  const Index first;
  Pack<A, V> held[HELD ? EACH : 1];

  static MG_INLINE Pack<A, V> computed(const T* at) {
    const Pack<T, V> stored = load<V>(at);
    Pack<A, V> values;
#pragma unroll
    for (int v = 0; v < V; v++) values.at[v] = to_float(stored.at[v]);
    return values;
  }
  MG_INLINE Row(const T* row) : x(row), first((Index)(threadIdx.x % G) * V) {
    if constexpr (HELD) {
#pragma unroll
      for (int e = 0; e < (int)EACH; e++)
        if (first + e * G * V < K) held[e] = computed(x + (first + e * G * V) * STEP);
    }
  }
  // Call `f(place in the row, pack)` for each of this thread's packs.
  template <class F> MG_INLINE void each(F f) const {
#pragma unroll(HELD ? EACH : 4)
    for (Index e = 0; e < EACH; e++) {
      const Index j = first + e * G * V;
      if (j < K) f(j, HELD ? held[HELD ? e : 0] : computed(x + j * STEP));
    }
  }
  MG_INLINE A largest() const {
    A top = Larger::start<A>();
    each([&](Index, const Pack<A, V>& p) {
#pragma unroll
      for (int v = 0; v < V; v++) top = maximum(top, p.at[v]);
    });
    return joined<Larger, G>(top);
  }
  // Σ exp(x − top)
  MG_INLINE A sum_above(A top) const {
    A sum = 0;
    each([&](Index, const Pack<A, V>& p) {
#pragma unroll
      for (int v = 0; v < V; v++) sum += exponential(p.at[v] - top);
    });
    return joined<Plus, G>(sum);
  }
  // Write f(x) for each element of the row.
  template <class F> MG_INLINE void write(T* y, F f) const {
    each([&](Index j, const Pack<A, V>& p) {
      Pack<T, V> values;
#pragma unroll
      for (int v = 0; v < V; v++) values.at[v] = from_float<T>(f(p.at[v]));
      store<V>(y + j * STEP, values);
    });
  }
};

// The row of G threads, and where it begins. Threads without one, in the last block, do as the last row's: all of a
// warp must take part where its numbers are joined.
struct MyRow {
  Index row;
  bool exists;
  MG_INLINE MyRow(Index rows, int G) : row(thread_index() / G), exists(row < rows) { row = exists ? row : rows - 1; }
  MG_INLINE Index begin(Index k, Index step) const { return row / step * k * step + row % step; }
};

template <class T, Index K, Index STEP, int G, int V> MG_INLINE void softmax(Index rows, const T* x, T* y) {
  const MyRow my(rows, G);
  const Row<T, K, STEP, G, V> row(x + my.begin(K, STEP));
  const Compute<T> top = row.largest(), sum = row.sum_above(top);
  if (my.exists) row.write(y + my.begin(K, STEP), [=](Compute<T> x) { return exponential(x - top) / sum; });
}

template <class T, Index K, Index STEP, int G, int V> MG_INLINE void log_softmax(Index rows, const T* x, T* y) {
  const MyRow my(rows, G);
  const Row<T, K, STEP, G, V> row(x + my.begin(K, STEP));
  const Compute<T> top = row.largest(), log_sum = logarithm(row.sum_above(top));
  if (my.exists) row.write(y + my.begin(K, STEP), [=](Compute<T> x) { return x - top - log_sum; });
}

// y = −Σ t·log_softmax(x); a class of weight 0 costs nothing, even where its logarithm is −∞.
template <class T, Index K, Index STEP, int G, int V>
MG_INLINE void softmax_cross_entropy(Index rows, const T* x, const T* t, T* y) {
  typedef Compute<T> A;
  const MyRow my(rows, G);
  const Row<T, K, STEP, G, V> row(x + my.begin(K, STEP));
  const A top = row.largest(), log_sum = logarithm(row.sum_above(top));
  const T* weights = t + my.begin(K, STEP);
  A total = 0;
  row.each([&](Index j, const Pack<A, V>& p) {
    const Pack<A, V> w = row.computed(weights + j * STEP);
#pragma unroll
    for (int v = 0; v < V; v++) total += w.at[v] == 0 ? (A)0 : w.at[v] * (p.at[v] - top - log_sum);
  });
  total = joined<Plus, G>(total);
  if (my.exists && threadIdx.x % G == 0) y[my.row] = from_float<T>(-total);
}
