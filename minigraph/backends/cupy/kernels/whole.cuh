// Functions of whole numbers that loops over floats do not have, and the batch norm along any axis.
#pragma once
#include "places.cuh"

// What kernels leave in the program's status word where an integer is to have a negative power.
enum : int { NEGATIVE_POWER = 2 };

// xʸ by squaring, as far as the type's bits go.
template <class T> MG_INLINE T whole_power(T x, T y, int* status) {
  if (T(-1) < T(0) && y < T(0)) {
    atomicMax(status, (int)NEGATIVE_POWER);
    return 0;
  }
  uint64_t result = 1, base = (uint64_t)x;
  for (uint64_t rest = (uint64_t)y; rest > 0; rest >>= 1) {
    if (rest & 1) result *= base;
    base *= base;
  }
  return (T)result;
}
template <Index SIZE, class X, class Y, class T> MG_INLINE void powers(const T* x, const T* y, int* status, T* z) {
  for (Index i = thread_index(); i < SIZE; i += thread_count()) z[i] = whole_power(x[X::at(i)], y[Y::at(i)], status);
}

template <Index SIZE, class T> MG_INLINE void clip_whole(T low, T high, const T* x, T* y) {
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    const T least = x[i] < low ? low : x[i];
    y[i] = high < least ? high : least;
  }
}

// y = (x − mean)·γ/√(variance + ε) + β of x[outer][C][INNER], V elements at a time, which are of one channel.
template <Index SIZE, Index C, Index INNER, int V, class T>
MG_INLINE void batch_norm(Compute<T> epsilon, const T* x, const T* gamma, const T* beta, const T* mean,
                          const T* variance, T* y) {
  typedef Compute<T> A;
  typedef Counter<SIZE / V> N;
  for (Index i = thread_index(); i < SIZE / V; i += thread_count()) {
    const Index c = (N)i / (N)(INNER / V) % (N)C;
    const A scale = to_float(gamma[c]) / sqrt(to_float(variance[c]) + epsilon);
    const A middle = to_float(mean[c]), shift = to_float(beta[c]);
    Pack<T, V> pack = load<V>(x + i * V);
#pragma unroll
    for (int v = 0; v < V; v++) pack.at[v] = from_float<T>((to_float(pack.at[v]) - middle) * scale + shift);
    store<V>(y + i * V, pack);
  }
}
