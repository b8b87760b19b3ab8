// Sums and moments of columns, in two stages that add in a fixed order: threads of a block, then blocks.
//
// A thread keeps what it has seen in an accumulator; a block joins its threads' through shared memory and writes one
// partial result for each column; a second kernel joins the blocks'. No atomics: equal numbers give equal bits.
#pragma once
#include "elementary.cuh"

// Σ x of each lane.
template <class C, int N> struct Adding {
  static constexpr int NUMBERS = 1;
  C sum[N];
  MG_INLINE Adding() {
    for (int i = 0; i < N; i++) sum[i] = 0;
  }
  template <class From> MG_INLINE void add(const Lanes<From, N>& x) {
    for (int i = 0; i < N; i++) sum[i] += x.at[i];
  }
  // What a lane leaves for others to join, and the joining.
  MG_INLINE void leave(int i, C* numbers) const { numbers[0] = sum[i]; }
  static MG_INLINE void join(C* mine, const C* other) { mine[0] += other[0]; }
  static MG_INLINE void clear(C* numbers) { numbers[0] = 0; }
};

// Number, mean and Σ(x − mean)² of each lane, from sums about its first element: no digits are lost where the mean is
// large. Two sets are joined as Chan, Golub & LeVeque do, "Updating formulae and a pairwise algorithm for computing
// sample variances", 1979.
template <class C, int N> struct Spreading {
  static constexpr int NUMBERS = 3;
  C shift[N], sum[N], squares[N], n;
  MG_INLINE Spreading() : n(0) {
    for (int i = 0; i < N; i++) shift[i] = sum[i] = squares[i] = 0;
  }
  template <class From> MG_INLINE void add(const Lanes<From, N>& x) {
    for (int i = 0; i < N; i++) {
      if (n == 0) shift[i] = x.at[i];
      const C d = x.at[i] - shift[i];
      sum[i] += d;
      squares[i] += d * d;
    }
    n += 1;
  }
  MG_INLINE void leave(int i, C* numbers) const {
    numbers[0] = n;
    numbers[1] = n == 0 ? 0 : shift[i] + sum[i] / n;
    const C rest = n == 0 ? 0 : squares[i] - sum[i] * (sum[i] / n);
    numbers[2] = rest < 0 ? 0 : rest;
  }
  static MG_INLINE void join(C* mine, const C* other) {
    if (other[0] == 0) return;
    const C both = mine[0] + other[0], delta = other[1] - mine[1];
    mine[1] += delta * (other[0] / both);
    mine[2] += other[2] + delta * delta * (mine[0] * other[0] / both);
    mine[0] = both;
  }
  static MG_INLINE void clear(C* numbers) { numbers[0] = numbers[1] = numbers[2] = 0; }
};

// Where a column's numbers go: for the second stage, NUMBERS arrays of `columns` one behind the other; or as the result.
template <class C, int NUMBERS> struct Partial {
  C* to;
  Index columns;
  MG_INLINE void operator()(Index column, const C* numbers) const {
    for (int k = 0; k < NUMBERS; k++) to[k * columns + column] = numbers[k];
  }
};
template <class T, class C> struct Sum {
  T* sum;
  C divisor;
  MG_INLINE void operator()(Index column, const C* numbers) const { sum[column] = from_float<T>(numbers[0] / divisor); }
};
template <class T, class C> struct MeanAndVariance {
  T *mean, *variance;
  MG_INLINE void operator()(Index column, const C* numbers) const {
    if (mean) mean[column] = from_float<T>(numbers[1]);
    if (variance) variance[column] = from_float<T>(numbers[2] / numbers[0]);
  }
};

// A block of X × Y threads, thread (x, y) with lanes of columns x·N … x·N + N − 1: the numbers of each column are put
// together and written. Y is a power of two.
template <class Of, class C, int N, int X, int Y, class Write>
MG_INLINE void join_block(const Of& mine, int x, int y, Index column, Index columns, const Write& write) {
  __shared__ C shared[Of::NUMBERS * X * Y];
#pragma unroll  // lanes are registers, which have no index
  for (int i = 0; i < N; i++) {
    C own[Of::NUMBERS], other[Of::NUMBERS];
    mine.leave(i, own);
    for (int half = Y / 2; half > 0; half /= 2) {
      for (int k = 0; k < Of::NUMBERS; k++) shared[(k * Y + y) * X + x] = own[k];
      __syncthreads();
      if (y < half) {
        for (int k = 0; k < Of::NUMBERS; k++) other[k] = shared[(k * Y + y + half) * X + x];
        Of::join(own, other);
      }
      __syncthreads();
    }
    if (y == 0 && column + i < columns) write(column + i, own);
  }
}

// The same where all lanes of all THREADS threads belong to one sum.
template <class Of, class C, int N, int THREADS, class Write>
MG_INLINE void join_all(const Of& mine, const Write& write) {
  __shared__ C shared[Of::NUMBERS * THREADS];
  C own[Of::NUMBERS], other[Of::NUMBERS];
  mine.leave(0, own);
#pragma unroll
  for (int i = 1; i < N; i++) {
    mine.leave(i, other);
    Of::join(own, other);
  }
  const int x = threadIdx.x;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    for (int k = 0; k < Of::NUMBERS; k++) shared[k * THREADS + x] = own[k];
    __syncthreads();
    if (x < half) {
      for (int k = 0; k < Of::NUMBERS; k++) other[k] = shared[k * THREADS + x + half];
      Of::join(own, other);
    }
    __syncthreads();
  }
  if (x == 0) write(0, own);
}

// The second stage: the block of 32 × 8 threads joins `parts` partial results, `apart` numbers from each other, for 32
// columns; where all columns are one sum, `whole`, it goes on to join those, and there is one block.
template <class Of, class C, class Write>
MG_INLINE void join_parts(const C* partials, Index parts, Index apart, Index columns, bool whole, const Write& write) {
  constexpr int X = 32, Y = 8;
  __shared__ C shared[Of::NUMBERS * X * Y];
  const int thread = threadIdx.x, x = thread % X, y = thread / X;
  const Index own_column = whole ? 0 : (Index)blockIdx.x * X + x;
  const Index last = whole ? columns : own_column + 1 < columns ? own_column + 1 : columns;
  C own[Of::NUMBERS], other[Of::NUMBERS];
  Of::clear(own);
  for (Index column = whole ? x : own_column; column < last; column += X)
    for (Index part = y; part < parts; part += Y) {
      for (int k = 0; k < Of::NUMBERS; k++) other[k] = partials[part * apart + k * columns + column];
      Of::join(own, other);
    }
  for (int half = X * Y / 2; half >= (whole ? 1 : X); half /= 2) {
    for (int k = 0; k < Of::NUMBERS; k++) shared[k * X * Y + thread] = own[k];
    __syncthreads();
    if (thread < half) {
      for (int k = 0; k < Of::NUMBERS; k++) other[k] = shared[k * X * Y + thread + half];
      Of::join(own, other);
    }
    __syncthreads();
  }
  if (whole ? thread == 0 : y == 0 && own_column < columns) write(own_column, own);
}
