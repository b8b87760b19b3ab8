// The kernel of Winograd's convolutions, transformed: U = G g Gᵀ for each input and output channel.
//
// U is as the innermost product reads it: for each panel of two vectors of output channels, IN² matrices
// [depth][PANEL], where `depth` are the channels that are summed over.
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
        for (ptrdiff_t i = 0; i < lanes; i++) copy_lanes(data + ((8 - tap) * c + column + i) * o + k, depths, to + i * L);
        transpose(to);
      } else {
        for (ptrdiff_t d = 0; d < depths; d++) copy_lanes(data + (tap * c + k + d) * o + column, lanes, to + d * L);
      }
  }
};

// Transforms one panel, and some of its depth: u is [IN²][depths][PANEL].
template <int OUT, class T, bool TRANSPOSED>
static __attribute__((noinline)) void transform(const Kernel<T, TRANSPOSED>& kernel, ptrdiff_t first, ptrdiff_t depths,
                                                ptrdiff_t panel, T* u) {
  using Step = typename Filter<OUT>::Kernel;
  constexpr ptrdiff_t L = LANES<T>;
  alignas(MG_VECTOR_BYTES) T block[9 * L * L] = {};
  const ptrdiff_t point = (depths + 1) * PANEL<T>, begin = panel * PANEL<T>, end = at_most(begin + PANEL<T>, kernel.width());
  for (ptrdiff_t column = begin; column < end; column += L)
    for (ptrdiff_t k = 0; k < depths; k += L) {
      const ptrdiff_t rows = at_most(L, depths - k), lanes = at_most(L, end - column);
      const bool in_place = kernel.in_place(lanes);
      if (!in_place) kernel.copy(first + k, rows, column, lanes, block);
      const T* from = in_place ? kernel.data + (first + k) * kernel.o + column : block;
      const ptrdiff_t tap = in_place ? kernel.c * kernel.o : L * L, step = in_place ? kernel.o : L;
      for (ptrdiff_t d = 0; d < rows; d++)
        on_both_sides<Step>(from + d * step, 3 * tap, tap, u + (k + d) * PANEL<T> + column - begin, Step::TO * point,
                            point);
    }
}

// Transforms all of a kernel: packed is [panels][IN²][depth][PANEL].
template <int OUT, class T, bool TRANSPOSED>
void pack(const Team& team, const Kernel<T, TRANSPOSED>& kernel, T* packed) {
  constexpr ptrdiff_t POINTS = (OUT + 2) * (OUT + 2);
  const Range panels = share(divided_up(kernel.width(), PANEL<T>), team);
  for (ptrdiff_t p = panels.begin; p < panels.end; p++)
    transform<OUT>(kernel, 0, kernel.depth(), p, packed + p * POINTS * (kernel.depth() + 1) * PANEL<T>);
}

}  // namespace winograd
