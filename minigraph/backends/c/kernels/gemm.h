// Products of matrices: each thread takes a part of the rows or of the columns, and goes through it in tiles.
//
// Columns come in panels of one tile's width, k in chunks, so that a panel's chunk stays in the first-level cache while
// the tiles of a group of rows pass over it. Where the columns of B lie apart, the chunk is packed first: copied to
// where they lie side by side; and so it is where its rows would be in each other's way in the cache. A is read as it
// lies.
#pragma once
#include "pack.h"

namespace gemm_blocks {

constexpr ptrdiff_t CHUNK = 384;             // steps of k
constexpr ptrdiff_t GROUP = 16 * TILE_ROWS;  // rows

// Rows that are a multiple of 4 KiB apart compete for the same few lines of the first-level cache, 8 or more: a tile of
// fewer rows leaves them there.
static ptrdiff_t tile_height(ptrdiff_t stride) {
  return stride % 4096 == 0 ? at_most(6, TILE_ROWS) : stride % 2048 == 0 ? at_most(12, TILE_ROWS) : TILE_ROWS;
}

// Multiply a group of rows with one panel of columns, and put the result.
template <class T, class E>
static void multiply_group(Range group, Range columns, ptrdiff_t k, const T* a, ptrdiff_t a_row, ptrdiff_t a_k,
                           const T* b, ptrdiff_t b_k, ptrdiff_t b_column, E& e, T* packed) {
  constexpr ptrdiff_t N = TILE_COLUMNS<T>;
  T blocks[GROUP * N];
  const ptrdiff_t width = columns.end - columns.begin, chunk = divided_up(k, at_least(divided_up(k, CHUNK), 1));
  const ptrdiff_t m = group.end - group.begin, height = m <= 8 ? TILE_ROWS : tile_height(a_row * sizeof(T));
  const bool packing = b_column != 1 || width < N || (m > 4 * TILE_ROWS && b_k * sizeof(T) % 1024 == 0);
  ptrdiff_t from = 0;
  do {
    const ptrdiff_t steps = at_most(chunk, k - from);
    const T* panel = b + from * b_k + columns.begin * b_column;
    if (packing) pack_panel(steps, width, panel, b_k, b_column, packed);
    for (ptrdiff_t i = group.begin; i < group.end; i += height) {
      const T* rows[TILE_ROWS];
      const ptrdiff_t n = at_most(height, group.end - i);
      for (ptrdiff_t p = 0; p < n; p++) rows[p] = a + (i + p) * a_row + from * a_k;
      multiply<T>(n, rows, {1, 0, 1, 0, steps, a_k}, packing ? packed : panel, packing ? N : b_k, width,
                  blocks + (i - group.begin) * N, from > 0);
    }
    from += steps;
  } while (from < k);
  for (ptrdiff_t i = group.begin; i < group.end; i += TILE_ROWS) {
    ptrdiff_t ids[TILE_ROWS];
    for (ptrdiff_t p = 0; p < TILE_ROWS; p++) ids[p] = i + p;
    put_tile(e, blocks + (i - group.begin) * N, at_most(TILE_ROWS, group.end - i), ids, columns.begin, width);
  }
}

}  // namespace gemm_blocks

// Put Σ_k A[row, k]·B[k, column] for m rows and n columns. `scratch` has CHUNK × TILE_COLUMNS elements a thread.
template <class T, class E>
static void gemm(const Team& team, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T* a, ptrdiff_t a_row_stride,
                 ptrdiff_t a_k_stride, const T* b, ptrdiff_t b_k_stride, ptrdiff_t b_column_stride, E& e,
                 void* scratch) {
  using namespace gemm_blocks;
  constexpr ptrdiff_t N = TILE_COLUMNS<T>;
  T* packed = (T*)scratch + team.thread * CHUNK * N;
  const Parts mine = shared(m, divided_up(n, N), team, true);
  for (ptrdiff_t i = mine.rows.begin; i < mine.rows.end; i += GROUP) {
    const Range group = {i, at_most(i + GROUP, mine.rows.end)};
    for (ptrdiff_t panel = mine.panels.begin; panel < mine.panels.end; panel++) {
      const Range columns = {panel * N, at_most(panel * N + N, n)};
      multiply_group(group, columns, k, a, a_row_stride, a_k_stride, b, b_k_stride, b_column_stride, e, packed);
      e.done(group.begin, group.end - group.begin, columns.begin, columns.end - columns.begin, team);
    }
  }
}
