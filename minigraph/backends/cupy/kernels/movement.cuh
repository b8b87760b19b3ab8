// What moves elements, or makes them of nothing: copies from places to places, padding, one-hot vectors, fills. What is
// only moved is moved by words of up to 16 bytes, whatever its type.
#pragma once
#include "places.cuh"

struct alignas(16) Word16 {
  uint64_t low, high;
};

// y's places from x's places, in order.
template <class To, class From, class Word> MG_INLINE void copy(const Word* x, Word* y) {
#pragma unroll 4
  for (Index i = thread_index(); i < To::SIZE; i += thread_count()) y[To::at(i)] = x[From::at(i)];
}

// y[batch][column][row] = x[batch][row][column], for matrices that lie at places of both: SIDE² elements at a time go
// through shared memory, so that rows are read and columns are written by neighbouring threads.
template <int SIDE, Index ROWS, Index COLUMNS, Index FROM, Index TO, class Source, class Target, class Word>
MG_INLINE void transpose(const Word* x, Word* y) {
  constexpr Index DOWN = (ROWS + SIDE - 1) / SIDE, ACROSS = (COLUMNS + SIDE - 1) / SIDE;
  __shared__ Word tile[SIDE][SIDE + 1];
  const Index batch = blockIdx.x / (DOWN * ACROSS), rest = blockIdx.x % (DOWN * ACROSS);
  const Index row = rest / ACROSS * SIDE, column = rest % ACROSS * SIDE;
  const int lane = threadIdx.x % SIDE, first = threadIdx.x / SIDE, step = blockDim.x / SIDE;
  x += Source::at(batch), y += Target::at(batch);
  for (int r = first; r < SIDE; r += step)
    if (row + r < ROWS && column + lane < COLUMNS) tile[r][lane] = x[(row + r) * FROM + column + lane];
  __syncthreads();
  for (int c = first; c < SIDE; c += step)
    if (column + c < COLUMNS && row + lane < ROWS) y[(column + c) * TO + row + lane] = tile[lane][c];
}

// x where it is laid, a constant elsewhere.
template <class Where, int V, class T> MG_INLINE void lay(T value, const T* x, T* y) {
  Pack<T, V> around;
#pragma unroll
  for (int v = 0; v < V; v++) around.at[v] = value;
  for (Index i = thread_index(); i < Where::SIZE; i += thread_count()) {
    const Index at = Where::at(i);
    store<V>(y + i * V, at < 0 ? around : load<V>(x + at * V));
  }
}

template <class T> MG_INLINE void fill(Index n, T value, T* y) {
  for (Index i = thread_index(); i < n; i += thread_count()) y[i] = value;
}

// y[outer][K][INNER] = 1 where x[outer][INNER] is j, else 0.
template <Index SIZE, Index K, Index INNER, class I, class T> MG_INLINE void one_hot(const I* x, T* y) {
  typedef Counter<SIZE> N;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    const N above = (N)i / (N)INNER;
    const Index j = above % (N)K;
    const bool hot = x[(Index)(above / (N)K) * INNER + (N)i % (N)INNER] == (I)j && (Index)(I)j == j;
    y[i] = from_float<T>((Compute<T>)hot);
  }
}
