// The tile of a matrix product: the innermost loop of all kernels that multiply matrices.
//
// A tile is a few rows times two vectors of columns of the product, held in registers while k runs over everything
// that is to be added up. Each step loads two vectors of B, and multiplies them with one number of each row of A:
// 14 rows are 28 fused multiply-adds for 16 loads. (Goto & van de Geijn, "Anatomy of High-Performance Matrix
// Multiplication", 2008.) Rows of A are given by pointers, and what k runs over by a `Walk`. So the same loop is a
// matrix product, a convolution (a row is a pixel, the walk goes over the taps), and a kernel's gradient (a row is an
// input channel at a tap, the walk goes over the pixels).
#pragma once
#include "vector.h"

// As many accumulators as registers allow, but for two vectors of B and one of A.
constexpr int TILE_ROWS = MG_REGISTERS == 32 ? 14 : 6;

template <class T>
constexpr ptrdiff_t TILE_COLUMNS = 2 * LANES<T>;

// Where k goes in A: three nested loops, from each row's pointer on. B simply advances.
struct Walk {
  ptrdiff_t planes, plane_step;
  ptrdiff_t lines, line_step;
  ptrdiff_t length, step;

  ptrdiff_t steps() const { return planes * lines * length; }
};

// Loops that follow each other without a gap are one.
MG_INLINE Walk merged(Walk w) {
  if (w.lines == 1 || w.line_step == w.length * w.step) w = {w.planes, w.plane_step, 1, 0, w.lines * w.length, w.step};
  if (w.lines == 1) w = {1, 0, w.planes, w.plane_step, w.length, w.step};
  if (w.lines == 1 || w.line_step == w.length * w.step) w = {1, 0, 1, 0, w.lines * w.length, w.step};
  return w;
}

// One tile, in memory between calls: `block` is [rows][TILE_COLUMNS], added to if `more`. If no more than one vector of
// columns is wanted, VECTORS is 1.
template <class T, int ROWS, int VECTORS>
static __attribute__((noinline)) void multiply_rows(const T* const* rows, const Walk& walk, const T* b,
                                                    ptrdiff_t b_step, T* block, bool more) {
  using V = typename Vec<T>::type;
  constexpr ptrdiff_t L = LANES<T>, N = TILE_COLUMNS<T>;
  V left[ROWS], right[ROWS];
  MG_UNROLL for (int p = 0; p < ROWS; p++) {
    left[p] = more ? load(block + p * N) : V{};
    right[p] = more && VECTORS == 2 ? load(block + p * N + L) : V{};
  }
  for (ptrdiff_t plane = 0; plane < walk.planes; plane++)
    for (ptrdiff_t line = 0; line < walk.lines; line++) {
      ptrdiff_t at = plane * walk.plane_step + line * walk.line_step;
      for (ptrdiff_t k = 0; k < walk.length; k++, at += walk.step, b += b_step) {
        const V b_left = load(b), b_right = VECTORS == 2 ? load(b + L) : V{};
        __builtin_prefetch(b + 8 * b_step);
        __builtin_prefetch(b + 8 * b_step + L);
        MG_UNROLL for (int p = 0; p < ROWS; p++) {
          const V a = splat(rows[p][at]);
          left[p] += a * b_left;
          if (VECTORS == 2) right[p] += a * b_right;
        }
      }
    }
  MG_UNROLL for (int p = 0; p < ROWS; p++) {
    store(block + p * N, left[p]);
    if (VECTORS == 2) store(block + p * N + L, right[p]);
  }
}

// So many rows, an even number of at most ROWS: there is an inner loop for each.
template <class T, int ROWS, int VECTORS>
static void multiply_at_most(ptrdiff_t n, const T* const* rows, const Walk& walk, const T* b, ptrdiff_t b_step,
                             T* block, bool more) {
  if constexpr (ROWS > 2)
    if (n < ROWS) return multiply_at_most<T, ROWS - 2, VECTORS>(n, rows, walk, b, b_step, block, more);
  multiply_rows<T, ROWS, VECTORS>(rows, walk, b, b_step, block, more);
}

// A tile of n ≤ TILE_ROWS rows and so many columns. An odd number of rows is computed as the next even one.
template <class T>
static void multiply(ptrdiff_t n, const T* const* rows, const Walk& walk, const T* b, ptrdiff_t b_step,
                     ptrdiff_t columns, T* block, bool more) {
  constexpr ptrdiff_t NARROW = TILE_ROWS < 8 ? TILE_ROWS : 8;
  const T* even[TILE_ROWS];
  if (n % 2) {
    for (ptrdiff_t p = 0; p <= n; p++) even[p] = rows[at_most(p, n - 1)];
    rows = even;
    n++;
  }
  if (columns > LANES<T>) return multiply_at_most<T, TILE_ROWS, 2>(n, rows, walk, b, b_step, block, more);
  for (; n > 0; n -= NARROW, rows += NARROW, block += NARROW * TILE_COLUMNS<T>)
    multiply_at_most<T, NARROW, 1>(at_most(NARROW, n), rows, walk, b, b_step, block, more);
}

// Hand one tile over to the epilogue: row p of it is row ids[p] of the result; the last columns may be fewer.
template <class T, class E>
static void put_tile(E& e, const T* block, ptrdiff_t n, const ptrdiff_t* ids, ptrdiff_t column, ptrdiff_t columns) {
  constexpr ptrdiff_t L = LANES<T>;
  const ptrdiff_t whole = columns / L * L;
  for (ptrdiff_t p = 0; p < n; p++, block += 2 * L) {
    for (ptrdiff_t j = 0; j < whole; j += L) e.put(ids[p], column + j, load(block + j));
    for (ptrdiff_t j = whole; j < columns; j++) e.put(ids[p], column + j, block[j]);
  }
}

// How a team shares a result of rows × panels: in so many parts of the rows, times parts of the panels. Threads that
// share columns read the same panel, threads that share rows the same rows: take what leaves least to the busiest.
struct Parts { Range rows, panels; };

MG_INLINE Parts shared(ptrdiff_t rows, ptrdiff_t panels, const Team& team, bool prefer_panels) {
  int best = 1;
  ptrdiff_t least = -1;
  for (int across = 1; across <= team.threads; across++) {
    if (team.threads % across) continue;
    const ptrdiff_t work = divided_up(rows, team.threads / across) * divided_up(panels, across);
    if (least >= 0 && (work > least || (work == least && !prefer_panels))) continue;
    least = work;
    best = across;
  }
  const Team along{team.thread / best, team.threads / best}, across{team.thread % best, best};
  return {share(rows, along), share(panels, across)};
}
