// Matrix products of the types that libraries have none for.
#pragma once
#include "places.cuh"

// z[batch] = x[batch]·y[batch] for integers, which wrap around, and for conditions, of which one is enough. Each thread
// makes an element. An element of x is ROW further in the next row, and IN_X further in the next place of the inner
// axis; of y, IN_Y further there, and COLUMN in the next column. X and Y are where the matrices of a batch begin.
template <Index M, Index N, Index K, Index ROW, Index IN_X, Index IN_Y, Index COLUMN, class X, class Y, class T>
MG_INLINE void multiply(const T* x, const T* y, T* z) {
  constexpr Index SIZE = X::SIZE * M * N;
  typedef Counter<SIZE> C;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    const C above = (C)i / (C)N;
    const Index batch = above / (C)M;
    const T* left = x + X::at(batch) + (Index)(above % (C)M) * ROW;
    const T* right = y + Y::at(batch) + (Index)((C)i % (C)N) * COLUMN;
    uint64_t sum = 0;  // what is beyond the type is cut off at the end
    for (Index k = 0; k < K; k++) sum += (uint64_t)left[k * IN_X] * (uint64_t)right[k * IN_Y];
    z[i] = (T)sum;
  }
}
