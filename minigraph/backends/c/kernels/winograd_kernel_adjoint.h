// The gradient of a 3×3 kernel by Winograd's convolution: the adjoint of winograd_forward.h with respect to the kernel.
//
// The forward convolution is linear in the kernel, y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, so ∂g = Gᵀ[Σ (Bᵀ d B) ⊙ (A ∂y Aᵀ)]G,
// summed over all squares. At each of the IN² points the sum is a matrix product [channels × squares]·[squares ×
// output channels], and G turns the sums S into 3×3 taps once, at the end.
//
// Where S is small, each thread adds up its share of the squares, in chunks that fit the cache, and the threads' sums
// are added at the end in their order. Where S is large, each thread takes its share of the input channels; then, if
// all squares fit one chunk, a block of S is turned into taps as soon as it is complete, and S never exists as a whole.
#pragma once
#include "winograd.h"

namespace winograd {

// Input channels that are multiplied at a time: with two vectors of output channels, 16 sums that do not wait for each
// other.
constexpr ptrdiff_t ROWS = MG_REGISTERS == 32 ? 8 : 4;

// The innermost product, of ROWS channels and VECTORS vectors of output channels, over some squares. v is
// [ROWS/LANES][block], of squares times LANES, y is [squares][PANEL], and s is [ROWS][PANEL], added to if `more`.
template <class T, int VECTORS>
static __attribute__((noinline)) void correlate(const T* v, ptrdiff_t block, const T* y, ptrdiff_t squares, T* s,
                                                bool more) {
  using V = typename Vec<T>::type;
  constexpr ptrdiff_t L = LANES<T>;
  V sum[ROWS][VECTORS];
  MG_UNROLL for (int r = 0; r < ROWS; r++)
    MG_UNROLL for (int i = 0; i < VECTORS; i++) sum[r][i] = more ? load(s + r * PANEL<T> + i * L) : V{};
  for (ptrdiff_t k = 0; k < squares; k++, v += L, y += PANEL<T>) {
    V w[VECTORS];
    MG_UNROLL for (int i = 0; i < VECTORS; i++) w[i] = load(y + i * L);
    MG_UNROLL for (int r = 0; r < ROWS; r++)
      MG_UNROLL for (int i = 0; i < VECTORS; i++) sum[r][i] += v[r / L * block + r % L] * w[i];
  }
  MG_UNROLL for (int r = 0; r < ROWS; r++)
    MG_UNROLL for (int i = 0; i < VECTORS; i++) store(s + r * PANEL<T> + i * L, sum[r][i]);
}

// What one thread does, and where. V, Y and S are [POINTS] planes, of the squares of a chunk or of sums; a plane is a
// little larger than need be, so that planes do not share the same sets of the cache.
template <int OUT, class T> struct KernelAdjoint {
  static constexpr ptrdiff_t L = LANES<T>, POINTS = (OUT + 2) * (OUT + 2), GAP = PANEL<T>;
  const Conv& conv;
  const Squares<OUT> squares;
  bool by_channels, at_once;
  Range mine, channels;                  // squares and input channels
  ptrdiff_t rows, panels, down, across;  // the size of a block of S, and how many there are
  ptrdiff_t chunk;                       // squares
  ptrdiff_t v_plane, y_plane, s_plane, size;
  T *v, *y, *s;

  KernelAdjoint(const Team& team, const Conv& conv, T* scratch) : conv(conv), squares(conv.n, conv.oh, conv.ow) {
    const Team alone{0, 1};
    by_channels = conv.c * conv.o * team.threads >= 1 << 16 || squares.count() < team.threads;
    mine = share(squares.count(), by_channels ? alone : team);
    channels = share(conv.c, by_channels ? team : alone, L);
    // All threads have the same sizes, those of the largest share.
    const ptrdiff_t count = divided_up(squares.count(), by_channels ? 1 : team.threads);
    const ptrdiff_t vectors = divided_up(divided_up(conv.c, L), by_channels ? team.threads : 1);
    rows = divided_up(at_most(vectors * L, 32), ROWS) * ROWS;
    panels = at_most(divided_up(conv.o, PANEL<T>), 2);
    down = divided_up(vectors * L, rows), across = divided_up(conv.o, panels * PANEL<T>);
    const ptrdiff_t height = divided_up(vectors * L, at_least(L, ROWS)) * at_least(L, ROWS), width = panels * PANEL<T>;
    // By squares, a chunk stays in the cache beside S. By channels, at best all squares are one chunk.
    chunk = at_most(count, by_channels ? at_least(24, (3 << 19) / (POINTS * (height + width))) : 24);
    at_once = by_channels && chunk == count;
    v_plane = chunk * height + GAP, y_plane = chunk * width + GAP, s_plane = rows * width + GAP;
    size = POINTS * (v_plane + y_plane + (at_once ? 1 : down * across) * s_plane);
    v = scratch + team.thread * size, y = v + POINTS * v_plane, s = y + POINTS * y_plane;
  }

  ptrdiff_t width() const { return panels * PANEL<T>; }  // of a block

  void transform_images(const T* x, Range part) const {
    const Images<T> images{x + channels.begin, conv.h, conv.w, channels.end - channels.begin, conv.c};
    for (ptrdiff_t i = part.begin; i < part.end; i++) {
      const auto at = squares.place(i);
      transform_square<typename Filter<OUT>::Image>(images, at.image, at.top - conv.top, at.left - conv.left,
                                                    v + (i - part.begin) * L, Layout{v_plane, chunk * L, 1});
    }
  }

  void transform_outputs(const T* dy, Range part, ptrdiff_t column) const {
    const Images<T> images{dy + column, conv.oh, conv.ow, at_most(width(), conv.o - column), conv.o};
    for (ptrdiff_t i = part.begin; i < part.end; i++) {
      const auto at = squares.place(i);
      transform_square<typename Filter<OUT>::OutputAdjoint>(images, at.image, at.top, at.left,
                                                            y + (i - part.begin) * PANEL<T>,
                                                            Layout{y_plane, chunk * PANEL<T>, 2});
    }
  }

  // One block of S, [POINTS][rows/ROWS][panels][ROWS][PANEL], from all squares of a chunk.
  void correlate_block(ptrdiff_t count, ptrdiff_t row, ptrdiff_t column, T* block, bool more) const {
    const ptrdiff_t end = at_most(row + rows, channels.end - channels.begin);
    for (ptrdiff_t f = 0; f < POINTS; f++)
      for (ptrdiff_t p = 0; p < panels; p++) {
        const ptrdiff_t left = conv.o - column - p * PANEL<T>;
        const T* const b = y + f * y_plane + p * chunk * PANEL<T>;
        for (ptrdiff_t r = row; r < end && left > 0; r += ROWS) {
          const T* const a = v + f * v_plane + r / L * chunk * L + r % L;
          T* const c = block + f * s_plane + ((r - row) / ROWS * panels + p) * ROWS * PANEL<T>;
          if (left > L) correlate<T, 2>(a, chunk * L, b, count, c, more);
          else correlate<T, 1>(a, chunk * L, b, count, c, more);
        }
      }
  }

  // The taps of one input channel and one vector of output channels, from the sums of so many threads.
  template <class E>
  void put_vector(const T* sums, ptrdiff_t threads, ptrdiff_t channel, ptrdiff_t column, E& e) const {
    alignas(MG_VECTOR_BYTES) T total[POINTS * L], taps[9 * L];
    for (ptrdiff_t f = 0; f < POINTS && threads > 1; f++) {
      auto sum = load(sums + f * s_plane);
      for (ptrdiff_t t = 1; t < threads; t++) sum += load(sums + t * size + f * s_plane);
      store(total + f * L, sum);
    }
    const T* const u = threads > 1 ? total : sums;
    const ptrdiff_t plane = threads > 1 ? L : s_plane;
    on_both_sides<typename Filter<OUT>::KernelAdjoint>(u, (OUT + 2) * plane, plane, taps, 3 * L, L);
    const ptrdiff_t lanes = at_most(L, conv.o - column);
    for (ptrdiff_t tap = 0; tap < 9; tap++)
      if (lanes == L) e.put(tap * conv.c + channel, column, load(taps + tap * L));
      else for (ptrdiff_t i = 0; i < lanes; i++) e.put(tap * conv.c + channel, column + i, taps[tap * L + i]);
  }

  // Some rows of a block, which begins at this channel and column.
  template <class E>
  void put_rows(const Team& team, const T* block, ptrdiff_t threads, ptrdiff_t channel, Range part, ptrdiff_t column,
                E& e) const {
    const ptrdiff_t count = at_most(part.end, channels.end - channel) - part.begin;
    const ptrdiff_t columns = at_most(width(), conv.o - column);
    if (count <= 0) return;
    for (ptrdiff_t r = part.begin; r < part.begin + count; r++)
      for (ptrdiff_t j = 0; j < columns; j += L) {
        const ptrdiff_t tile = r / ROWS * panels + j / PANEL<T>;
        const T* const sums = block + (tile * ROWS + r % ROWS) * PANEL<T> + j % PANEL<T>;
        put_vector(sums, threads, channel + r, column + j, e);
      }
    for (ptrdiff_t tap = 0; tap < 9; tap++)
      e.done(tap * conv.c + channel + part.begin, count, column, columns, team);
  }

  template <class E>
  void run(const Team& team, const T* x, const T* dy, E& e) const {
    if (channels.begin == channels.end) return;
    for (ptrdiff_t begin = mine.begin; begin < mine.end; begin += chunk) {
      const Range part{begin, at_most(mine.end, begin + chunk)};
      transform_images(x, part);
      for (ptrdiff_t j = 0; j < across; j++) {
        transform_outputs(dy, part, j * width());
        for (ptrdiff_t i = 0; i < down; i++) {
          T* const block = s + (at_once ? 0 : (i * across + j) * POINTS * s_plane);
          correlate_block(part.end - begin, i * rows, j * width(), block, begin > mine.begin);
          if (at_once) put_rows(team, block, 1, channels.begin + i * rows, Range{0, rows}, j * width(), e);
        }
      }
    }
    if (!at_once) put_sums(team, e);
  }

  // All blocks, as rows one after the other: this thread's own, or its share of what all threads have added up.
  template <class E>
  void put_sums(const Team& team, E& e) const {
    const Team alone{0, 1};
    const T* const first = by_channels ? s : s - team.thread * size;
    if (!by_channels) team.barrier();
    const Range all = share(down * across * rows, by_channels ? alone : team, ROWS);
    for (ptrdiff_t r = all.begin, count; r < all.end; r += count) {
      const ptrdiff_t block = r / rows, from = r % rows;
      count = at_most(rows - from, all.end - r);
      put_rows(team, first + block * POINTS * s_plane, by_channels ? 1 : team.threads,
               channels.begin + block / across * rows, Range{from, from + count}, block % across * width(), e);
    }
  }

};

template <int OUT> struct KernelAdjointOf {
  template <class T, class E>
  static void run(const Team& team, const Conv& conv, const T* x, const T* dy, E& e, char* scratch) {
    KernelAdjoint<OUT, T>(team, conv, (T*)scratch).run(team, x, dy, e);
  }
};

}  // namespace winograd

using winograd2_kernel_adjoint = winograd::KernelAdjointOf<2>;
using winograd4_kernel_adjoint = winograd::KernelAdjointOf<4>;
