// Convolutions of images of one channel by 3x3 kernels: the first layer of small networks.
//
// A sum has nine terms, too few for tiles that are stored between multiplying and putting. So the whole kernel of a
// panel of columns stays in registers, a few pixels are summed side by side, and each result is put at once. For the
// gradient with respect to the kernel the nine sums stay in registers instead.
#pragma once
#include "totals.h"

namespace stem_lines {

constexpr ptrdiff_t TAPS = 9, PIXELS = 4;
constexpr ptrdiff_t LINES = 8;  // lines of pixels that are done together

// The three lines of an image that a line of the result reads, with the padding around them.
template <class T> static void copy_lines(const Conv& conv, const T* images, ptrdiff_t line, T* to) {
  const ptrdiff_t width = conv.ow + 2, n = line / conv.oh, first = line % conv.oh - conv.top;
  for (ptrdiff_t a = 0; a < 3; a++) {
    T* row = to + a * width;
    const bool outside = first + a < 0 || first + a >= conv.h;
    const T* from = images + (n * conv.h + first + a) * conv.w - conv.left;
    for (ptrdiff_t j = 0; j < width; j++) row[j] = outside || j < conv.left || j >= conv.left + conv.w ? 0 : from[j];
  }
}

// One line of results, COUNT pixels at a time from pixel `from` on; return where it ended.
template <class T, int VECTORS, ptrdiff_t COUNT, class E>
MG_INLINE ptrdiff_t put_line(const Conv& conv, const T* lines, const typename Vec<T>::type (&kernel)[TAPS][VECTORS],
                             ptrdiff_t row, ptrdiff_t column, ptrdiff_t from, E& e) {
  const ptrdiff_t width = conv.ow + 2;
  for (; from + COUNT <= conv.ow; from += COUNT) {
    typename Vec<T>::type sums[COUNT][VECTORS] = {};
    MG_UNROLL for (ptrdiff_t tap = 0; tap < TAPS; tap++)
      MG_UNROLL for (ptrdiff_t p = 0; p < COUNT; p++)
        MG_UNROLL for (ptrdiff_t v = 0; v < VECTORS; v++)
          sums[p][v] += kernel[tap][v] * lines[tap / 3 * width + tap % 3 + from + p];
    MG_UNROLL for (ptrdiff_t p = 0; p < COUNT; p++)
      MG_UNROLL for (ptrdiff_t v = 0; v < VECTORS; v++) e.put(row + from + p, column + v * LANES<T>, sums[p][v]);
  }
  return from;
}

template <class T, int VECTORS, class E>
static void put_panel(const Conv& conv, const T* lines, const T* weights, ptrdiff_t row, ptrdiff_t column, E& e) {
  typename Vec<T>::type kernel[TAPS][VECTORS];
  for (ptrdiff_t tap = 0; tap < TAPS; tap++)
    for (ptrdiff_t v = 0; v < VECTORS; v++) kernel[tap][v] = load(weights + tap * conv.o + column + v * LANES<T>);
  const ptrdiff_t from = put_line<T, VECTORS, PIXELS>(conv, lines, kernel, row, column, 0, e);
  put_line<T, VECTORS, 1>(conv, lines, kernel, row, column, from, e);
}

// Add one line's part of the kernel's gradient to sums in registers.
template <class T, int VECTORS>
static void add_panel(const Conv& conv, const T* lines, const T* outputs, double* totals, ptrdiff_t column,
                      ptrdiff_t count) {
  const ptrdiff_t width = conv.ow + 2;
  typename Vec<T>::type sums[TAPS][VECTORS] = {};
  for (ptrdiff_t line = 0; line < count; line++)
    for (ptrdiff_t j = 0; j < conv.ow; j++) {
      typename Vec<T>::type y[VECTORS];
      MG_UNROLL for (ptrdiff_t v = 0; v < VECTORS; v++)
        y[v] = load(outputs + (line * conv.ow + j) * conv.o + column + v * LANES<T>);
      MG_UNROLL for (ptrdiff_t tap = 0; tap < TAPS; tap++)
        MG_UNROLL for (ptrdiff_t v = 0; v < VECTORS; v++)
          sums[tap][v] += y[v] * lines[(line * 3 + tap / 3) * width + tap % 3 + j];
    }
  for (ptrdiff_t tap = 0; tap < TAPS; tap++)
    for (ptrdiff_t v = 0; v < VECTORS; v++) add_to(totals + tap * conv.o + column + v * LANES<T>, sums[tap][v]);
}

}  // namespace stem_lines

namespace stem {

template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* images, const T* kernel, E& e, char* scratch) {
  using namespace stem_lines;
  const Range mine = share(conv.n * conv.oh, team);
  T* lines = (T*)scratch + team.thread * 3 * (conv.ow + 2);
  for (ptrdiff_t begin = mine.begin; begin < mine.end; begin += LINES) {
    const ptrdiff_t end = at_most(begin + LINES, mine.end);
    for (ptrdiff_t line = begin; line < end; line++) {
      copy_lines(conv, images, line, lines);
      ptrdiff_t c = 0;
      for (; c + 2 * LANES<T> <= conv.o; c += 2 * LANES<T>) put_panel<T, 2>(conv, lines, kernel, line * conv.ow, c, e);
      for (; c < conv.o; c += LANES<T>) put_panel<T, 1>(conv, lines, kernel, line * conv.ow, c, e);
    }
    e.done(begin * conv.ow, (end - begin) * conv.ow, 0, conv.o, team);
  }
}

}  // namespace stem

namespace stem_kernel_adjoint {

template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* images, const T* outputs, E& e, char* scratch) {
  using namespace stem_lines;
  const ptrdiff_t width = conv.ow + 2, size = TAPS * conv.o;
  double* all_totals = (double*)scratch;
  double* totals = all_totals + team.thread * size;
  T* lines = (T*)(all_totals + team.threads * size) + team.thread * LINES * 3 * width;
  memset(totals, 0, size * sizeof(double));
  const Range mine = share(conv.n * conv.oh, team);
  for (ptrdiff_t begin = mine.begin; begin < mine.end; begin += LINES) {
    const ptrdiff_t count = at_most(LINES, mine.end - begin);
    for (ptrdiff_t line = 0; line < count; line++) copy_lines(conv, images, begin + line, lines + line * 3 * width);
    const T* from = outputs + begin * conv.ow * conv.o;
    ptrdiff_t c = 0;
    for (; c + 2 * LANES<T> <= conv.o; c += 2 * LANES<T>) add_panel<T, 2>(conv, lines, from, totals, c, count);
    for (; c < conv.o; c += LANES<T>) add_panel<T, 1>(conv, lines, from, totals, c, count);
  }
  team.barrier();
  if (team.thread) return;
  for (int t = 1; t < team.threads; t++)
    for (ptrdiff_t i = 0; i < size; i++) totals[i] += all_totals[t * size + i];
  for (ptrdiff_t i = 0; i < size; i++) e.put(i / conv.o, i % conv.o, (T)totals[i]);
  e.done(0, TAPS, 0, conv.o, team);
}

}  // namespace stem_kernel_adjoint
