// Winograd's convolution, forward and transposed: see winograd.h for the idea.
//
// A chunk of squares of the image is transformed into V, as wide as its channels. Then, for each panel of two vectors
// of output channels, IN² matrix products V·U give M, which the output transform turns into pixels while it is in
// cache. Threads share the squares; or, where the kernel is large and the squares are few, the panels, so that each
// reads only its part of the kernel, and each transforms all squares for itself.
#pragma once
#include "winograd_kernel.h"

namespace winograd {

// Squares that are multiplied at a time: with two vectors of output channels, 16 sums that do not wait for each other.
constexpr ptrdiff_t GROUP = MG_REGISTERS == 32 ? 8 : 6;

// The kernel as it was packed before.
template <int OUT, class T> struct Packed {
  static constexpr ptrdiff_t GROUPS = 4, DEPTH = PTRDIFF_MAX;
  const T* data;
  ptrdiff_t depth;

  const T* part(ptrdiff_t panel, ptrdiff_t, ptrdiff_t) const {
    return data + panel * (OUT + 2) * (OUT + 2) * (depth + 1) * PANEL<T>;
  }
};

// The kernel as it is, transformed part by part into a small buffer when its turn comes. That pays where there are so
// few squares that reading U, four times as large as the kernel, would take longer than multiplying by it.
template <int OUT, class T, bool TRANSPOSED> struct Streamed {
  static constexpr ptrdiff_t GROUPS = 16, DEPTH = 64;
  Kernel<T, TRANSPOSED> kernel;
  T* buffer;

  const T* part(ptrdiff_t panel, ptrdiff_t first, ptrdiff_t depths) const {
    transform_panel<OUT>(kernel, first, depths, panel, buffer);
    return buffer;
  }
};

// The innermost product, of GROUP squares and VECTORS vectors of output channels, over `depth` channels. v is
// [depth/LANES][GROUP][POINTS][LANES], u is [depth][PANEL], and m is [GROUP][PANEL], added to if `more`.
template <class T, int POINTS, int VECTORS>
static __attribute__((noinline)) void multiply(const T* v, const T* u, ptrdiff_t depth, T* m, bool more) {
  using V = typename Vec<T>::type;
  constexpr ptrdiff_t L = LANES<T>;
  V sum[GROUP][VECTORS];
  MG_UNROLL for (int p = 0; p < GROUP; p++)
    MG_UNROLL for (int i = 0; i < VECTORS; i++) sum[p][i] = more ? load(m + p * PANEL<T> + i * L) : V{};
  for (ptrdiff_t k = 0; k < depth; k += L, v += GROUP * POINTS * L) {
    const T* const end = v + at_most(L, depth - k);
    for (const T* at = v; at < end; at++, u += PANEL<T>) {
      V w[VECTORS];
      MG_UNROLL for (int i = 0; i < VECTORS; i++) w[i] = load(u + i * L);
      MG_UNROLL for (int p = 0; p < GROUP; p++)
        MG_UNROLL for (int i = 0; i < VECTORS; i++) sum[p][i] += at[p * POINTS * L] * w[i];
    }
  }
  MG_UNROLL for (int p = 0; p < GROUP; p++)
    MG_UNROLL for (int i = 0; i < VECTORS; i++) store(m + p * PANEL<T> + i * L, sum[p][i]);
}

// One convolution, and what is done at a time.
template <int OUT, class T> struct Forward {
  static constexpr ptrdiff_t L = LANES<T>, POINTS = (OUT + 2) * (OUT + 2);
  const Conv& conv;
  const Squares<OUT> squares;
  const ptrdiff_t vectors = divided_up(conv.c, L), panels = divided_up(conv.o, PANEL<T>);
  const ptrdiff_t group_size = vectors * GROUP * POINTS * L;  // of V
  const ptrdiff_t chunk_groups;

  // A chunk has at least 4 groups, and more only while its V has no more than 5·2¹⁸ elements.
  Forward(const Conv& conv, ptrdiff_t groups)
      : conv(conv), squares(conv.n, conv.oh, conv.ow),
        chunk_groups(at_most(groups, at_least(4, (5 << 18) / group_size))) {}

  // Whether threads share panels rather than squares. Time is counted in sixths of what one group takes with one
  // panel: a panel of U to be read costs 3, and the transform of a group 1.
  bool by_panels(const Team& team) const {
    const ptrdiff_t lines = divided_up(squares.lines(), team.threads);
    const ptrdiff_t groups = divided_up(lines * squares.across, GROUP), all = divided_up(squares.count(), GROUP);
    const ptrdiff_t mine = divided_up(panels, team.threads);
    return (6 * all + 3 * divided_up(all, chunk_groups)) * mine + all <
           (6 * groups + 3 * divided_up(groups, chunk_groups)) * panels + groups;
  }

  // V is [groups][channels/LANES][GROUP][POINTS][LANES]. The last group is filled up with the last square.
  void transform_images(const T* x, Range chunk, T* v) const {
    const Images<T> images{x, conv.h, conv.w, conv.c, conv.c};
    const ptrdiff_t rows = divided_up(chunk.end - chunk.begin, GROUP) * GROUP;
    for (ptrdiff_t i = 0; i < rows; i++) {
      const auto at = squares.place(at_most(chunk.begin + i, chunk.end - 1));
      transform_square<typename Filter<OUT>::Image>(images, at.image, at.top - conv.top, at.left - conv.left,
                                                    v + i / GROUP * group_size + i % GROUP * POINTS * L,
                                                    Layout{L, GROUP * POINTS * L, 1});
    }
  }

  // M of one panel is [groups][POINTS][GROUP][PANEL].
  template <class U>
  void multiply_panel(const U& kernel, ptrdiff_t groups, ptrdiff_t panel, const T* v, T* m) const {
    const bool narrow = conv.o - panel * PANEL<T> <= L;
    for (ptrdiff_t first = 0; first < conv.c; first += at_most(U::DEPTH, conv.c - first)) {
      const ptrdiff_t depths = at_most(U::DEPTH, conv.c - first);
      const T* u = kernel.part(panel, first, depths);
      for (ptrdiff_t f = 0; f < POINTS; f++, u += (depths + 1) * PANEL<T>)
        for (ptrdiff_t g = 0; g < groups; g++) {
          const T* const from = v + g * group_size + first * GROUP * POINTS + f * L;
          T* const to = m + (g * POINTS + f) * GROUP * PANEL<T>;
          if (narrow) multiply<T, POINTS, 1>(from, u, depths, to, first > 0);
          else multiply<T, POINTS, 2>(from, u, depths, to, first > 0);
        }
    }
  }

  // The pixels of one square, for one vector of channels.
  template <class E>
  void put_square(ptrdiff_t square, const T* m, ptrdiff_t column, E& e) const {
    constexpr ptrdiff_t POINT = GROUP * PANEL<T>;
    alignas(MG_VECTOR_BYTES) T y[OUT * OUT * L];
    on_both_sides<typename Filter<OUT>::Output>(m, (OUT + 2) * POINT, POINT, y, OUT * L, L);
    const auto at = squares.place(square);
    const ptrdiff_t rows = at_most(OUT, conv.oh - at.top), columns = at_most(OUT, conv.ow - at.left);
    const ptrdiff_t lanes = at_most(L, conv.o - column);
    for (ptrdiff_t i = 0; i < rows; i++)
      for (ptrdiff_t j = 0; j < columns; j++) {
        const ptrdiff_t pixel = (at.image * conv.oh + at.top + i) * conv.ow + at.left + j;
        const T* const value = y + (i * OUT + j) * L;
        if (lanes == L) e.put(pixel, column, load(value));
        else for (ptrdiff_t k = 0; k < lanes; k++) e.put(pixel, column + k, value[k]);
      }
  }

  template <class E>
  void put_panel(Range chunk, ptrdiff_t panel, const T* m, E& e) const {
    const ptrdiff_t begin = panel * PANEL<T>, end = at_most(conv.o, begin + PANEL<T>);
    for (ptrdiff_t square = chunk.begin; square < chunk.end; square++) {
      const ptrdiff_t i = square - chunk.begin;
      const T* const sums = m + i / GROUP * POINTS * GROUP * PANEL<T> + i % GROUP * PANEL<T>;
      for (ptrdiff_t column = begin; column < end; column += L) put_square(square, sums + column - begin, column, e);
    }
  }

  template <class U, class E>
  void run(const Team& team, const T* x, const U& kernel, T* v, E& e) const {
    const bool split = by_panels(team);
    const Team alone{0, 1};
    const Range lines = share(squares.lines(), split ? alone : team), mine = share(panels, split ? team : alone);
    const ptrdiff_t first = mine.begin * PANEL<T>, columns = at_most(conv.o, mine.end * PANEL<T>) - first;
    if (columns <= 0) return;
    T* const m = v + chunk_groups * group_size;
    ptrdiff_t line = lines.begin;  // the first that is not complete
    const ptrdiff_t end = lines.end * squares.across, step = chunk_groups * GROUP;
    for (ptrdiff_t begin = line * squares.across; begin < end; begin += step) {
      const Range chunk{begin, at_most(end, begin + step)};
      transform_images(x, chunk, v);
      for (ptrdiff_t p = mine.begin; p < mine.end; p++) {
        multiply_panel(kernel, divided_up(chunk.end - begin, GROUP), p, v, m);
        put_panel(chunk, p, m, e);
      }
      const ptrdiff_t complete = chunk.end / squares.across, pixel = squares.pixel(line);
      if (complete > line) e.done(pixel, squares.pixel(complete) - pixel, first, columns, team);
      line = complete;
    }
  }

  // What a thread needs of scratch memory, and where: V, M, and `more` elements.
  ptrdiff_t scratch(ptrdiff_t more) const { return chunk_groups * (group_size + POINTS * GROUP * PANEL<T>) + more; }
};

template <int OUT, class T, class E>
void convolve(const Team& team, const Conv& conv, const T* x, const T* packed, E& e, char* scratch) {
  const Forward<OUT, T> forward(conv, Packed<OUT, T>::GROUPS);
  T* const mine = (T*)scratch + team.thread * forward.scratch(0);
  forward.run(team, x, Packed<OUT, T>{packed, conv.c}, mine, e);
}

template <int OUT, bool TRANSPOSED, class T, class E>
void convolve_streamed(const Team& team, const Conv& conv, const T* x, const Kernel<T, TRANSPOSED>& kernel, E& e,
                       char* scratch) {
  using U = Streamed<OUT, T, TRANSPOSED>;
  const Forward<OUT, T> forward(conv, U::GROUPS);
  const ptrdiff_t size = Forward<OUT, T>::POINTS * (U::DEPTH + 1) * PANEL<T>;
  T* const mine = (T*)scratch + team.thread * forward.scratch(size);
  forward.run(team, x, U{kernel, mine}, mine + size, e);
}

// The forward convolution that the transposed one is, with the kernel turned.
inline Conv turned(Conv conv) {
  Conv result = conv;
  result.h = conv.oh, result.w = conv.ow, result.c = conv.o;
  result.oh = conv.h, result.ow = conv.w, result.o = conv.c;
  result.top = 2 - conv.top, result.left = 2 - conv.left;
  return result;
}

// The algorithms: the kernel packed before or streamed, the convolution forward or transposed.
template <int OUT, bool TRANSPOSED> struct Stored {
  template <class T>
  static void pack(const Team& team, const Conv& conv, const T* kernel, T* packed) {
    winograd::pack<OUT>(team, Kernel<T, TRANSPOSED>{kernel, conv.c, conv.o}, packed);
  }
  template <class T, class E>
  static void run(const Team& team, const Conv& conv, const T* x, const T* packed, E& e, char* scratch) {
    convolve<OUT>(team, TRANSPOSED ? turned(conv) : conv, x, packed, e, scratch);
  }
};

template <int OUT, bool TRANSPOSED> struct OnTheFly {
  template <class T, class E>
  static void run(const Team& team, const Conv& conv, const T* x, const T* kernel, E& e, char* scratch) {
    convolve_streamed<OUT>(team, TRANSPOSED ? turned(conv) : conv, x, Kernel<T, TRANSPOSED>{kernel, conv.c, conv.o}, e,
                           scratch);
  }
};

}  // namespace winograd

using winograd2 = winograd::Stored<2, false>;
using winograd4 = winograd::Stored<4, false>;
using winograd2_transpose = winograd::Stored<2, true>;
using winograd4_transpose = winograd::Stored<4, true>;
using winograd4_streamed = winograd::OnTheFly<4, false>;
using winograd4_streamed_transpose = winograd::OnTheFly<4, true>;
