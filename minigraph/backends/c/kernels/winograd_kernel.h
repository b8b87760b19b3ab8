// The kernel of Winograd's convolutions, transformed: U = G g Gᵀ for each input and output channel.
//
// U is as the innermost product reads it: for each panel of two vectors of output channels, IN² matrices
// [depth + 1][PANEL], where `depth` are the channels that are summed over. The last row is empty: it keeps the IN²
// numbers that are written at a time out of the same set of the cache.
#pragma once
#include "winograd.h"

namespace winograd {

// Lanes of a and b together, chosen by their index: 0 is the first of a, LANES the first of b.
template <class T>
MG_INLINE typename Vec<T>::type shuffle(typename Vec<T>::type a, typename Vec<T>::type b, typename Vec<T>::mask at) {
#if defined(__clang__)
  constexpr int L = LANES<T>;
  typename Vec<T>::type result;
  MG_UNROLL for (int i = 0; i < L; i++) result[i] = at[i] < L ? a[at[i]] : b[at[i] - L];
  return result;
#else
  return __builtin_shuffle(a, b, at);
#endif
}

// Transposes a square of LANES vectors: exchanges its quarters off the diagonal, then theirs, and so on (Eklundh 1972).
template <class T, int SIZE = LANES<T> / 2>
MG_INLINE void transpose(T* rows) {
  constexpr int L = LANES<T>;
  typename Vec<T>::mask upper, lower;
  MG_UNROLL for (int i = 0; i < L; i++) {
    upper[i] = i & SIZE ? L + i - SIZE : i;
    lower[i] = i & SIZE ? L + i : i + SIZE;
  }
  for (int i = 0; i < L; i++) {
    if (i & SIZE) continue;
    const auto a = load(rows + i * L), b = load(rows + (i + SIZE) * L);
    store(rows + i * L, shuffle<T>(a, b, upper));
    store(rows + (i + SIZE) * L, shuffle<T>(a, b, lower));
  }
  if constexpr (SIZE > 1) transpose<T, SIZE / 2>(rows);
}

// A kernel [3][3][c][o] as a convolution sees it: `depth` channels are summed over, `width` channels are the result's.
// The transposed convolution is the forward one of the kernel turned by 180°, whose channels have changed places.
template <class T, bool TRANSPOSED> struct Kernel {
  const T* data;
  ptrdiff_t c, o;

  ptrdiff_t depth() const { return TRANSPOSED ? o : c; }
  ptrdiff_t width() const { return TRANSPOSED ? c : o; }
  bool in_place(ptrdiff_t lanes) const { return !TRANSPOSED && lanes == LANES<T>; }

  // Copies depths from k on, of one vector of the width, to [3][3][LANES][LANES].
  void copy(ptrdiff_t k, ptrdiff_t depths, ptrdiff_t column, ptrdiff_t lanes, T* to) const {
    constexpr ptrdiff_t L = LANES<T>;
    for (ptrdiff_t tap = 0; tap < 9; tap++, to += L * L)
      if constexpr (TRANSPOSED) {
        const T* const from = data + ((8 - tap) * c + column) * o + k;
        for (ptrdiff_t i = 0; i < lanes; i++) copy_lanes(from + i * o, depths, to + i * L);
        transpose(to);
      } else {
        const T* const from = data + (tap * c + k) * o + column;
        for (ptrdiff_t d = 0; d < depths; d++) copy_lanes(from + d * o, lanes, to + d * L);
      }
  }
};

// Vectors of a kernel: from tap to tap, and from depth to depth.
template <class T> struct Source {
  const T* data;
  ptrdiff_t tap, step;
};

// Transforms one panel, and some of its depth: u is [IN²][depths + 1][PANEL].
template <int OUT, class T, bool TRANSPOSED>
static __attribute__((noinline)) void transform_panel(const Kernel<T, TRANSPOSED>& kernel, ptrdiff_t first,
                                                      ptrdiff_t depths, ptrdiff_t panel, T* u) {
  using Step = typename Filter<OUT>::Kernel;
  constexpr ptrdiff_t L = LANES<T>;
  alignas(MG_VECTOR_BYTES) T block[9 * L * L] = {};
  const ptrdiff_t point = (depths + 1) * PANEL<T>;
  const ptrdiff_t begin = panel * PANEL<T>, end = at_most(begin + PANEL<T>, kernel.width());
  for (ptrdiff_t column = begin; column < end; column += L)
    for (ptrdiff_t k = 0; k < depths; k += L) {
      const ptrdiff_t rows = at_most(L, depths - k), lanes = at_most(L, end - column);
      T* const to = u + k * PANEL<T> + column - begin;
      if (!kernel.in_place(lanes)) kernel.copy(first + k, rows, column, lanes, block);
      Source<T> from{block, L * L, L};
      if (kernel.in_place(lanes)) from = {kernel.data + (first + k) * kernel.o + column, kernel.c * kernel.o, kernel.o};
      for (ptrdiff_t d = 0; d < rows; d++)
        on_both_sides<Step>(from.data + d * from.step, 3 * from.tap, from.tap, to + d * PANEL<T>, Step::TO * point,
                            point);
    }
}

// Transforms all of a kernel: packed is [panels][IN²][depth + 1][PANEL].
template <int OUT, class T, bool TRANSPOSED>
void pack(const Team& team, const Kernel<T, TRANSPOSED>& kernel, T* packed) {
  constexpr ptrdiff_t POINTS = (OUT + 2) * (OUT + 2);
  const Range panels = share(divided_up(kernel.width(), PANEL<T>), team);
  for (ptrdiff_t p = panels.begin; p < panels.end; p++)
    transform_panel<OUT>(kernel, 0, kernel.depth(), p, packed + p * POINTS * (kernel.depth() + 1) * PANEL<T>);
}

}  // namespace winograd
