// Depthwise convolutions, and both of their adjoints: each channel by itself, a vector of channels at a time.
//
// There is no product of matrices here, only a weighted sum of pixels: as fast as memory is, if all taps of a pixel are
// added up in registers. The blocks of pixels are those of direct.h.
#pragma once
#include "direct.h"

namespace depthwise_blocks {

constexpr int STRIP = 8;  // pixels
constexpr int TAPS = 9;   // of a kernel's gradient, at a time

// All that is not the product, a depthwise convolution has in common with one that mixes all channels.
MG_INLINE Conv mixing(Conv conv) {
  conv.groups = 1;
  return conv;
}

// A vector of channels, or the single channels behind the last whole one.
template <class V, class T>
MG_INLINE V& channels_at(T* p) { return *(V*)p; }

// Add up all taps of some pixels, for the channels [c, c + lanes of V).
template <class V, class T, class E>
static void put_pixels(const direct_blocks::Block<T>& b, const direct_blocks::Phase& phase, const T* kernel,
                       const T* const* pixels, const ptrdiff_t* ids, ptrdiff_t n, ptrdiff_t c, E& e) {
  const Axis &v = phase.vertical, &h = phase.horizontal;
  V sums[STRIP] = {}, held[STRIP];
  for (ptrdiff_t i = 0; i < v.taps; i++)
    for (ptrdiff_t j = 0; j < h.taps; j++) {
      const ptrdiff_t tap = (v.tap + i * v.tap_step) * b.s.conv.kw + h.tap + j * h.tap_step;
      const ptrdiff_t at = i * v.reach * b.lay.line + j * h.reach * b.lay.pixel + c;
      const V weights = channels_at<const V>(kernel + tap * b.s.c + c);
      MG_UNROLL for (int p = 0; p < STRIP; p++) sums[p] += weights * channels_at<const V>(pixels[p] + at);
    }
  MG_UNROLL for (int p = 0; p < STRIP; p++) held[p] = sums[p];
  for (ptrdiff_t p = 0; p < n; p++) e.put(ids[p], c, held[p]);
}

template <class T, class E>
static void put_block(const direct_blocks::Block<T>& b, const T* kernel, Range channels, E& e) {
  using V = typename Vec<T>::type;
  const T** pixels = b.pixels;
  const ptrdiff_t* ids = b.ids;
  for (const direct_blocks::Phase* phase = b.phase; phase < b.phase + b.phases; phase++)
    for (ptrdiff_t n, left = phase->pixels; left > 0; left -= n, pixels += n, ids += n) {
      const T* strip[STRIP];
      n = at_most(STRIP, left);
      for (ptrdiff_t p = 0; p < STRIP; p++) strip[p] = pixels[at_most(p, n - 1)];
      ptrdiff_t c = channels.begin;
      for (; c + LANES<T> <= channels.end; c += LANES<T>) put_pixels<V>(b, *phase, kernel, strip, ids, n, c, e);
      for (; c < channels.end; c++) put_pixels<T>(b, *phase, kernel, strip, ids, n, c, e);
    }
}

template <class T, class E>
static void run(const Team& team, const Conv& conv, bool adjoint, const T* source, const T* kernel, E& e,
                void* scratch) {
  direct_blocks::Block<T> b(mixing(conv), adjoint, team, scratch);
  const Parts mine = shared(b.s.lines(), divided_up(b.s.c, LANES<T>), team, false);
  const Range channels = {mine.panels.begin * LANES<T>, at_most(mine.panels.end * LANES<T>, b.s.c)};
  for (ptrdiff_t line = mine.rows.begin; line < mine.rows.end; line += b.lines) {
    const Range lines = {line, at_most(line + b.lines, mine.rows.end)};
    direct_blocks::prepare(b, lines, source);
    put_block(b, kernel, channels, e);
    e.done(lines.begin * b.s.w, length(lines) * b.s.w, channels.begin, length(channels), team);
  }
}

// Add the products of a line of pixels to the sums of some taps. `taps` are where the first pixel reads.
template <class V, class T>
static void add_line(const T* const* taps, ptrdiff_t step, const T* outputs, ptrdiff_t pixels, ptrdiff_t channels,
                     ptrdiff_t c, V* all) {
  V sums[TAPS];
  MG_UNROLL for (int t = 0; t < TAPS; t++) sums[t] = all[t];
  for (ptrdiff_t j = 0; j < pixels; j++) {
    const V y = channels_at<const V>(outputs + j * channels + c);
    MG_UNROLL for (int t = 0; t < TAPS; t++) sums[t] += y * channels_at<const V>(taps[t] + j * step + c);
  }
  MG_UNROLL for (int t = 0; t < TAPS; t++) all[t] = sums[t];
}

// Add the products of a block, which lies in one image, to the sums of some taps, [taps][channels].
template <class V, class T>
static void add_taps(const Sides& s, const Lay& lay, const T* from, const T* outputs, ptrdiff_t lines, ptrdiff_t first,
                     ptrdiff_t c, T* sums) {
  const Conv& conv = s.conv;
  const ptrdiff_t n = at_most(TAPS, conv.kh * conv.kw - first);
  V all[TAPS];
  const T* taps[TAPS];
  for (ptrdiff_t t = 0; t < TAPS; t++) {
    const ptrdiff_t tap = first + at_most(t, n - 1);
    taps[t] = from + tap / conv.kw * conv.dh * lay.line + tap % conv.kw * conv.dw * lay.pixel;
    all[t] = channels_at<V>(sums + tap * s.c + c);
  }
  for (ptrdiff_t i = 0; i < lines; i++) {
    add_line<V>(taps, conv.sw * lay.pixel, outputs + i * s.w * s.c, s.w, s.c, c, all);
    for (ptrdiff_t t = 0; t < TAPS; t++) taps[t] += conv.sh * lay.line;
  }
  for (ptrdiff_t t = 0; t < n; t++) channels_at<V>(sums + (first + t) * s.c + c) = all[t];
}

// A thread's sums over its pixels.
template <class T>
static void add_pixels(const direct_blocks::Block<T>& b, Range lines, const T* images, const T* outputs, T* sums) {
  using V = typename Vec<T>::type;
  const Sides& s = b.s;
  const ptrdiff_t taps = s.conv.kh * s.conv.kw;
  memset(sums, 0, taps * s.c * sizeof(T));
  for (ptrdiff_t end, line = lines.begin; line < lines.end; line = end) {
    end = at_most(at_most(lines.end, (line / s.h + 1) * s.h), line + b.lines);
    const T* from = images + (line / s.h * s.source_h + line % s.h * s.conv.sh) * b.lay.line;
    if (b.lay.copied) copy_block(s, b.lay, {line, end}, images, b.copy);
    for (ptrdiff_t tap = 0; tap < taps; tap += TAPS) {
      const T *first = b.lay.copied ? b.copy : from, *y = outputs + line * s.w * s.c;
      ptrdiff_t c = 0;
      for (; c + LANES<T> <= s.c; c += LANES<T>) add_taps<V>(s, b.lay, first, y, end - line, tap, c, sums);
      for (; c < s.c; c++) add_taps<T>(s, b.lay, first, y, end - line, tap, c, sums);
    }
  }
}

}  // namespace depthwise_blocks

namespace depthwise {

template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* images, const T* kernel, E& e, void* scratch) {
  depthwise_blocks::run(team, conv, false, images, kernel, e, scratch);
}

}  // namespace depthwise

namespace depthwise_transpose {

template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* outputs, const T* kernel, E& e, void* scratch) {
  depthwise_blocks::run(team, conv, true, outputs, kernel, e, scratch);
}

}  // namespace depthwise_transpose

namespace depthwise_kernel_adjoint {

// Each thread adds up some lines, then some of the taps over all threads.
template <class T, class E>
static void run(const Team& team, const Conv& conv, const T* images, const T* outputs, E& e, void* scratch) {
  const ptrdiff_t taps = conv.kh * conv.kw, size = divided_up(taps * conv.c * sizeof(T), 64) * 64;
  T* all = (T*)scratch;
  direct_blocks::Block<T> b(depthwise_blocks::mixing(conv), false, team, (char*)scratch + size * team.threads);
  T* mine = (T*)((char*)scratch + size * team.thread);
  depthwise_blocks::add_pixels(b, share(b.s.lines(), team), images, outputs, mine);
  team.barrier();
  const Range rows = share(taps, team);
  for (ptrdiff_t tap = rows.begin; tap < rows.end; tap++)
    for (ptrdiff_t c = 0; c < conv.c; c++) {
      T sum = 0;
      for (int thread = 0; thread < team.threads; thread++) sum += ((T*)((char*)all + size * thread))[tap * conv.c + c];
      e.put(tap, c, sum);
    }
  if (rows.begin < rows.end) e.done(rows.begin, length(rows), 0, conv.c, team);
}

}  // namespace depthwise_kernel_adjoint
