// Packing: the columns of a matrix that a tile multiplies, brought side by side.
//
// Where columns lie apart and steps side by side, the matrix is transposed on the way, in squares as wide as a vector:
// neighbouring rows swap single numbers, then rows two apart swap pairs, then rows four apart swap fours, and so on
// (Eklundh, "A Fast Computer Method for Matrix Transposing", 1972).
#pragma once
#include "tile.h"

template <ptrdiff_t... I> struct Lanes {};

// The numbers of the lanes: UpTo<3>::Lanes is Lanes<0, 1, 2>.
template <ptrdiff_t N, ptrdiff_t... I> struct UpTo : UpTo<N - 1, N - 1, I...> {};
template <ptrdiff_t... I> struct UpTo<0, I...> { using type = Lanes<I...>; };

template <ptrdiff_t STEP, class V, ptrdiff_t... I>
MG_INLINE void swap_blocks(V& a, V& b, Lanes<I...>) {
  const V low = {(I & STEP ? b[I & ~STEP] : a[I])...}, high = {(I & STEP ? b[I] : a[I | STEP])...};
  a = low;
  b = high;
}

template <class T, ptrdiff_t STEP = 1>
MG_INLINE void transpose_square(typename Vec<T>::type* rows) {
  if constexpr (STEP < LANES<T>) {
    MG_UNROLL for (ptrdiff_t i = 0; i < LANES<T>; i++)
      if (!(i & STEP)) swap_blocks<STEP>(rows[i], rows[i + STEP], typename UpTo<LANES<T>>::type{});
    transpose_square<T, 2 * STEP>(rows);
  }
}

template <class T>
static __attribute__((noinline)) void transpose(const T* from, ptrdiff_t stride, T* to, ptrdiff_t to_stride) {
  typename Vec<T>::type rows[LANES<T>];
  MG_UNROLL for (ptrdiff_t i = 0; i < LANES<T>; i++) rows[i] = load(from + i * stride);
  transpose_square<T>(rows);
  MG_UNROLL for (ptrdiff_t i = 0; i < LANES<T>; i++) store(to + i * to_stride, rows[i]);
}

// Copy some steps of some columns of B to [steps][TILE_COLUMNS], a few lines of the cache from each column in turn.
template <class T>
static void copy_columns(Range steps, Range columns, const T* b, ptrdiff_t k_stride, ptrdiff_t column_stride,
                         T* packed) {
  for (ptrdiff_t from = steps.begin; from < steps.end; from += 64)
    for (ptrdiff_t j = columns.begin; j < columns.end; j++)
      for (ptrdiff_t k = from; k < at_most(from + 64, steps.end); k++)
        packed[k * TILE_COLUMNS<T> + j] = b[k * k_stride + j * column_stride];
}

// Copy a part of a panel of B to [steps][TILE_COLUMNS], with zeros behind the last column. Columns that are a multiple
// of 4 KiB apart are in each other's way in the cache: these are not read side by side.
template <class T>
static void pack_panel(ptrdiff_t steps, ptrdiff_t columns, const T* b, ptrdiff_t k_stride, ptrdiff_t column_stride,
                       T* packed) {
  constexpr ptrdiff_t L = LANES<T>, N = TILE_COLUMNS<T>;
  for (ptrdiff_t k = 0; columns < N && k < steps; k++)
    for (ptrdiff_t j = columns; j < N; j++) packed[k * N + j] = 0;
  if (column_stride == 1 && columns == N) {
    for (ptrdiff_t k = 0; k < steps; k++) {
      store(packed + k * N, load(b + k * k_stride));
      store(packed + k * N + L, load(b + k * k_stride + L));
    }
    return;
  }
  const bool squares = k_stride == 1 && column_stride * sizeof(T) % 4096 != 0;
  const ptrdiff_t square_steps = squares ? steps / L * L : 0, square_columns = columns / L * L;
  for (ptrdiff_t from = 0; from < square_steps; from += 4 * L)
    for (ptrdiff_t j = 0; j < square_columns; j += L)
      for (ptrdiff_t k = from; k < at_most(from + 4 * L, square_steps); k += L)
        transpose(b + k + j * column_stride, column_stride, packed + k * N + j, N);
  copy_columns({0, square_steps}, {square_columns, columns}, b, k_stride, column_stride, packed);
  copy_columns({square_steps, steps}, {0, columns}, b, k_stride, column_stride, packed);
}
