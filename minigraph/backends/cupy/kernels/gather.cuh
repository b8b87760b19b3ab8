// Slices of an array by an array of indices, and the adjoint. An array is seen as [outer][AXIS][INNER].
#pragma once
#include "group.cuh"
#include "places.cuh"

// What kernels leave in the program's status word, if anything: the largest number counts.
enum : int { INDEX_OUT_OF_RANGE = 1 };

// An index as one of 0 … AXIS − 1: negative ones count from the end. What is out of range is clipped; it is an error as
// well, but where CLIPS says that it is meant: then what is negative is out of range.
template <Index AXIS, bool CLIPS, class I> MG_INLINE Index settled(I index, int* status) {
  const bool negative = I(-1) < I(0) && index < I(0);
  const Index at = negative && !CLIPS ? (Index)index + AXIS : (Index)index;
  const bool beyond = !negative && (uint64_t)index >= (uint64_t)AXIS;
  if (!beyond && at >= 0) return at;
  if constexpr (!CLIPS) atomicMax(status, (int)INDEX_OUT_OF_RANGE);
  return beyond ? AXIS - 1 : 0;
}

// y[outer][N][INNER] = x[outer][AXIS][INNER] at the indices
template <Index OUTER, Index AXIS, Index INNER, Index N, bool CLIPS, class I, class Word>
MG_INLINE void gather(const Word* x, const I* indices, int* status, Word* y) {
  constexpr Index SIZE = OUTER * N * INNER;
  typedef Counter<SIZE> C;
#pragma unroll 4
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    const C above = (C)i / (C)INNER;
    const Index at = settled<AXIS, CLIPS>(indices[above % (C)N], status);
    y[i] = x[((Index)(above / (C)N) * AXIS + at) * INNER + (C)i % (C)INNER];
  }
}

// To add up what goes to one place, in an order that is always the same, the indices are sorted first, each as a key
// that holds its position as well: key = index · ROOM + position, ROOM a power of two. Batcher's bitonic sort ("Sorting
// networks and their applications", 1968) compares pairs `apart` from each other; runs of a length go up and down.
MG_INLINE void compare_and_swap(Index& a, Index& b, bool up) {
  if ((a > b) != up) return;
  const Index other = a;
  a = b, b = other;
}
// The pair number p: its first place. The second is `apart` further.
MG_INLINE Index first_of_pair(Index p, Index apart) { return 2 * p - (p & (apart - 1)); }

// A block has CHUNK keys in shared memory for all steps of at most CHUNK/2 apart.
template <int CHUNK> MG_INLINE void merge_chunk(Index* keys, Index from, Index length) {
  for (int apart = (int)(length < CHUNK ? length : CHUNK) / 2; apart > 0; apart /= 2) {
    __syncthreads();
    for (int p = threadIdx.x; p < CHUNK / 2; p += blockDim.x) {
      const int i = (int)first_of_pair(p, apart);
      compare_and_swap(keys[i], keys[i + apart], ((from + i) & length) == 0);
    }
  }
  __syncthreads();
}

template <Index AXIS, bool CLIPS, Index N, Index ROOM, int CHUNK, class I>
MG_INLINE void sort_chunks(const I* indices, int* status, Index* keys) {
  __shared__ Index shared[CHUNK];
  const Index from = (Index)blockIdx.x * CHUNK;
  for (int i = threadIdx.x; i < CHUNK; i += blockDim.x)
    shared[i] = from + i < N ? settled<AXIS, CLIPS>(indices[from + i], status) * ROOM + from + i : AXIS * ROOM;
  for (Index length = 2; length <= CHUNK; length *= 2) merge_chunk<CHUNK>(shared, from, length);
  for (int i = threadIdx.x; i < CHUNK; i += blockDim.x) keys[from + i] = shared[i];
}

template <Index ROOM> MG_INLINE void sort_step(Index length, Index apart, Index* keys) {
  for (Index p = thread_index(); p < ROOM / 2; p += thread_count()) {
    const Index i = first_of_pair(p, apart);
    compare_and_swap(keys[i], keys[i + apart], (i & length) == 0);
  }
}

template <int CHUNK> MG_INLINE void sort_ends(Index length, Index* keys) {
  __shared__ Index shared[CHUNK];
  const Index from = (Index)blockIdx.x * CHUNK;
  for (int i = threadIdx.x; i < CHUNK; i += blockDim.x) shared[i] = keys[from + i];
  merge_chunk<CHUNK>(shared, from, length);
  for (int i = threadIdx.x; i < CHUNK; i += blockDim.x) keys[from + i] = shared[i];
}

// The first of the sorted keys that is not below another.
template <Index N> MG_INLINE Index lower_bound(const Index* keys, Index key) {
  Index begin = 0, end = N;
  while (begin < end) {
    const Index middle = (begin + end) / 2;
    if (keys[middle] < key) begin = middle + 1;
    else end = middle;
  }
  return begin;
}

// y[outer][AXIS][INNER] = the sum of x[outer][N][INNER] where the index is this one. A is what is added up in.
template <class A, Index OUTER, Index AXIS, Index INNER, Index N, Index ROOM, int V, class T>
MG_INLINE void gather_adjoint(const Index* keys, const T* x, T* y) {
  constexpr Index SIZE = OUTER * AXIS * (INNER / V);
  typedef Counter<SIZE> C;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    const C above = (C)i / (C)(INNER / V);
    const Index at = above % (C)AXIS, outer = above / (C)AXIS, inner = (Index)((C)i % (C)(INNER / V)) * V;
    A sum[V];
#pragma unroll
    for (int v = 0; v < V; v++) sum[v] = A(0);
#pragma unroll 4
    for (Index k = lower_bound<N>(keys, at * ROOM); k < N && keys[k] < (at + 1) * ROOM; k++) {
      const Pack<T, V> pack = load<V>(x + (outer * N + (keys[k] & (ROOM - 1))) * INNER + inner);
#pragma unroll
      for (int v = 0; v < V; v++) sum[v] = Plus::join(sum[v], (A)to_float(pack.at[v]));
    }
    Pack<T, V> total;
#pragma unroll
    for (int v = 0; v < V; v++) total.at[v] = from_float<T>((Compute<T>)sum[v]);
    store<V>(y + i * V, total);
  }
}
