// Reductions along one axis, and softmax and its kin. An array is seen as [outer][k][inner], and k goes.
#pragma once
#include "elementary.h"

// Call `f(o, i, first, step)` for each row: where it begins, and how far its elements lie apart.
template <class F> MG_INLINE void for_rows(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, F f) {
  const Range rows = share(outer * inner, team);
  for (ptrdiff_t r = rows.begin; r < rows.end; r++) f(r, r / inner * k * inner + r % inner);
}

template <class T> struct Adding {
  static constexpr T start = 0;
  template <class V> static MG_INLINE_METHOD V join(V a, V b) { return a + b; }
};
template <class T> struct Largest {
  static constexpr T start = -INFINITY;
  template <class V> static MG_INLINE_METHOD V join(V a, V b) { return maximum(a, b); }
};
template <class T> struct Smallest {
  static constexpr T start = INFINITY;
  template <class V> static MG_INLINE_METHOD V join(V a, V b) { return minimum(a, b); }
};

// Blocks of so many are joined by themselves first: the error of a sum then grows with their number, not with k.
constexpr ptrdiff_t BLOCK_OF_K = 64;

template <class Join, class V, class T> MG_INLINE V joined(const T* x, ptrdiff_t k, ptrdiff_t step) {
  V total = all<V>(Join::start);
  for (ptrdiff_t from = 0; from < k; from += BLOCK_OF_K) {
    V block = all<V>(Join::start);
    for (ptrdiff_t j = from; j < at_most(from + BLOCK_OF_K, k); j++) block = Join::join(block, get<V>(x + j * step));
    total = Join::join(total, block);
  }
  return total;
}

// y[outer][inner] = x's elements along k joined, divided by `divisor`.
template <template <class> class Join, class T>
static void reduce(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const T* x, T* y, T divisor) {
  typedef typename Vec<T>::type V;
  const ptrdiff_t blocks = divided_up(inner, LANES<T>);
  const Range mine = share(outer * blocks, team);
  for (ptrdiff_t b = mine.begin; b < mine.end; b++) {
    const ptrdiff_t o = b / blocks, i = b % blocks * LANES<T>;
    const T* from = x + o * k * inner + i;
    T* to = y + o * inner + i;
    if (i + LANES<T> <= inner) {
      set(to, joined<Join<T>, V>(from, k, inner) / all<V>(divisor));
      continue;
    }
    if (inner == 1 && k >= LANES<T>) {  // the row itself is read by vectors
      const ptrdiff_t whole = k / LANES<T>;
      const V lanes = joined<Join<T>, V>(from, whole, LANES<T>);
      T total = joined<Join<T>, T>(from + whole * LANES<T>, k % LANES<T>, 1);
      for (ptrdiff_t l = 0; l < LANES<T>; l++) total = Join<T>::join(total, (T)lanes[l]);
      *to = total / divisor;
      continue;
    }
    for (ptrdiff_t l = 0; i + l < inner; l++) to[l] = joined<Join<T>, T>(from + l, k, inner) / divisor;
  }
}

template <class T> MG_INLINE T largest(const T* x, ptrdiff_t k, ptrdiff_t step) {
  return joined<Largest<T>, T>(x, k, step);
}

// y = exp(x − max x) / Σ exp(x − max x)
template <class T>
static void softmax(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const T* x, T* y) {
  for_rows(team, outer, k, inner, [=](ptrdiff_t, ptrdiff_t at) {
    const T top = largest(x + at, k, inner);
    T sum = 0;
    for (ptrdiff_t j = 0; j < k; j++) sum += y[at + j * inner] = exponential(x[at + j * inner] - top);
    for (ptrdiff_t j = 0; j < k; j++) y[at + j * inner] /= sum;
  });
}

// ln Σ exp(x − top); the logarithm of a sum of zeros or infinities is ∓∞.
template <class T> MG_INLINE T log_sum(const T* x, ptrdiff_t k, ptrdiff_t step, T top) {
  T sum = 0;
  for (ptrdiff_t j = 0; j < k; j++) sum += exponential(x[j * step] - top);
  return logarithm(sum);
}

template <class T>
static void log_softmax(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const T* x, T* y) {
  for_rows(team, outer, k, inner, [=](ptrdiff_t, ptrdiff_t at) {
    const T top = largest(x + at, k, inner), sum = log_sum(x + at, k, inner, top);
    for (ptrdiff_t j = 0; j < k; j++) y[at + j * inner] = x[at + j * inner] - top - sum;
  });
}

template <class T>
static void logsumexp(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const T* x, T* y) {
  for_rows(team, outer, k, inner, [=](ptrdiff_t row, ptrdiff_t at) {
    const T top = largest(x + at, k, inner), shift = isinf(top) ? (T)0 : top;
    y[row] = log_sum(x + at, k, inner, shift) + shift;
  });
}

// y = −Σ t·log_softmax(x)
template <class T>
static void softmax_cross_entropy(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const T* x,
                                  const T* t, T* y) {
  for_rows(team, outer, k, inner, [=](ptrdiff_t row, ptrdiff_t at) {
    const T top = largest(x + at, k, inner), sum = log_sum(x + at, k, inner, top);
    T total = 0;
    for (ptrdiff_t j = 0; j < k; j++) {
      const T weight = t[at + j * inner];
      if (weight != 0) total += weight * (x[at + j * inner] - top - sum);  // 0·ln 0 = 0
    }
    y[row] = -total;
  });
}

// y[outer][k][inner] = 1 where x[outer][inner] is j, else 0
template <class T, class I>
static void one_hot(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const I* x, T* y) {
  for_rows(team, outer, k, inner, [=](ptrdiff_t row, ptrdiff_t at) {
    for (ptrdiff_t j = 0; j < k; j++) y[at + j * inner] = (T)((ptrdiff_t)x[row] == j);
  });
}

// y = the place of the first largest element along k; NaN is the largest.
template <class T>
static void argmax(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const T* x, int64_t* y) {
  for_rows(team, outer, k, inner, [=](ptrdiff_t row, ptrdiff_t at) {
    T top = x[at];
    y[row] = 0;
    for (ptrdiff_t j = 1; j < k && top == top; j++) {
      const T next = x[at + j * inner];
      if (next > top || next != next) top = next, y[row] = j;
    }
  });
}

// Mean and variance along k, in two passes.
template <class T>
static void row_moments(const Team& team, ptrdiff_t outer, ptrdiff_t k, ptrdiff_t inner, const T* x, T* mean, T* variance) {
  for_rows(team, outer, k, inner, [=](ptrdiff_t row, ptrdiff_t at) {
    double sum = 0, squares = 0;
    for (ptrdiff_t j = 0; j < k; j++) sum += (double)x[at + j * inner];
    const double m = sum / (double)k;
    for (ptrdiff_t j = 0; j < k; j++) squares += ((double)x[at + j * inner] - m) * ((double)x[at + j * inner] - m);
    mean[row] = (T)m, variance[row] = (T)(squares / (double)k);
  });
}
