// Pooling over any windows: channels by vectors, windows one by one. (Windows that tile the image are part of loops.)
#pragma once
#include "elementary.h"

// The elements of a window that lie inside the image.
struct Taps { Range rows, columns; };

MG_INLINE Range inside(ptrdiff_t first, ptrdiff_t taps, ptrdiff_t dilation, ptrdiff_t size) {
  const ptrdiff_t begin = first < 0 ? divided_up(-first, dilation) : 0;
  return {begin, at_least(begin, at_most(taps, first < size ? divided_up(size - first, dilation) : 0))};
}

MG_INLINE Taps taps_of(const Conv& p, ptrdiff_t i, ptrdiff_t j) {
  return {inside(i * p.sh - p.top, p.kh, p.dh, p.h), inside(j * p.sw - p.left, p.kw, p.dw, p.w)};
}

// Call `f(offset in the image)` for each element of a window, row by row.
template <class F> MG_INLINE void for_taps(const Conv& p, ptrdiff_t n, ptrdiff_t i, ptrdiff_t j, F f) {
  const Taps taps = taps_of(p, i, j);
  for (ptrdiff_t a = taps.rows.begin; a < taps.rows.end; a++)
    for (ptrdiff_t b = taps.columns.begin; b < taps.columns.end; b++)
      f(((n * p.h + i * p.sh - p.top + a * p.dh) * p.w + j * p.sw - p.left + b * p.dw) * p.c);
}

// Call `f(lanes, c)` for the channels of [begin, end): by vectors, then one by one.
template <class T, class F> MG_INLINE void for_channels(ptrdiff_t begin, ptrdiff_t end, F f) {
  ptrdiff_t c = begin;
  for (; c + LANES<T> <= end; c += LANES<T>) f(typename Vec<T>::type{}, c);
  for (; c < end; c++) f(T{}, c);
}

template <class T, class V> MG_INLINE V largest_of(const Conv& p, ptrdiff_t n, ptrdiff_t i, ptrdiff_t j, const T* x) {
  V top = all<V>(-INFINITY);
  for_taps(p, n, i, j, [&](ptrdiff_t at) { top = maximum(top, get<V>(x + at)); });
  return top;
}

// Windows are shared among the threads: each result belongs to one.
template <class T, class F> MG_INLINE void for_windows(const Team& team, const Conv& p, F f) {
  const Range mine = share(p.n * p.oh, team);
  for (ptrdiff_t line = mine.begin; line < mine.end; line++)
    for (ptrdiff_t j = 0; j < p.ow; j++)
      for_channels<T>(0, p.c, [&](auto lanes, ptrdiff_t c) {
        f(lanes, line / p.oh, line % p.oh, j, c, (line * p.ow + j) * p.c + c);
      });
}

// Windows overlap in the image: a thread that adds to images has whole images, or whole channels of them.
template <class T, class F> MG_INLINE void for_images(const Team& team, const Conv& p, T* image, F f) {
  const ptrdiff_t blocks = divided_up(p.c, 4 * LANES<T>);
  const Range mine = share(p.n * blocks, team);
  for (ptrdiff_t b = mine.begin; b < mine.end; b++) {
    const ptrdiff_t n = b / blocks, begin = b % blocks * 4 * LANES<T>, end = at_most(begin + 4 * LANES<T>, p.c);
    for (ptrdiff_t at = n * p.h * p.w; at < (n + 1) * p.h * p.w; at++)
      memset(image + at * p.c + begin, 0, (end - begin) * sizeof(T));
    for (ptrdiff_t i = 0; i < p.oh; i++)
      for (ptrdiff_t j = 0; j < p.ow; j++)
        for_channels<T>(begin, end, [&](auto lanes, ptrdiff_t c) {
          f(lanes, n, i, j, c, ((n * p.oh + i) * p.ow + j) * p.c + c);
        });
  }
}

template <class T> static void max_pool(const Team& team, const Conv& p, const T* x, T* y) {
  for_windows<T>(team, p, [=](auto lanes, ptrdiff_t n, ptrdiff_t i, ptrdiff_t j, ptrdiff_t c, ptrdiff_t at) {
    typedef decltype(lanes) V;
    set(y + at, largest_of<T, V>(p, n, i, j, x + c));
  });
}

// g, added where the first largest element of each window of x is.
template <class T> static void max_pool_adjoint(const Team& team, const Conv& p, const T* x, const T* g, T* y) {
  for_images(team, p, y, [=](auto lanes, ptrdiff_t n, ptrdiff_t i, ptrdiff_t j, ptrdiff_t c, ptrdiff_t at) {
    typedef decltype(lanes) V;
    const V top = largest_of<T, V>(p, n, i, j, x + c);
    V rest = get<V>(g + at);  // becomes 0 lane by lane, where the element has been met
    for_taps(p, n, i, j, [&](ptrdiff_t tap) {
      const auto here = get<V>(x + tap + c) == top;
      set(y + tap + c, get<V>(y + tap + c) + choose(here, rest, all<V>(0)));
      rest = choose(here, all<V>(0), rest);
    });
  });
}

// The element of `values` where the first largest element of each window of x is.
template <class T> static void max_pool_select(const Team& team, const Conv& p, const T* x, const T* values, T* y) {
  for_windows<T>(team, p, [=](auto lanes, ptrdiff_t n, ptrdiff_t i, ptrdiff_t j, ptrdiff_t c, ptrdiff_t at) {
    typedef decltype(lanes) V;
    const V top = largest_of<T, V>(p, n, i, j, x + c);
    V found = all<V>(0), open = all<V>(1);  // 0 lane by lane, where the element has been met
    for_taps(p, n, i, j, [&](ptrdiff_t tap) {
      const auto here = get<V>(x + tap + c) == top;
      found = choose(here, choose(open == all<V>(1), get<V>(values + tap + c), found), found);
      open = choose(here, all<V>(0), open);
    });
    set(y + at, found);
  });
}

// What the average of a window divides by: the elements within `rows` and `columns`, which may reach into the padding.
template <class T> MG_INLINE T share_of(const Conv& p, ptrdiff_t i, ptrdiff_t j, Range rows, Range columns) {
  const Range a = inside(i * p.sh - p.top - rows.begin, p.kh, p.dh, rows.end - rows.begin);
  const Range b = inside(j * p.sw - p.left - columns.begin, p.kw, p.dw, columns.end - columns.begin);
  return (T)(1.0 / ((double)(a.end - a.begin) * (double)(b.end - b.begin)));
}

template <class T>
static void avg_pool(const Team& team, const Conv& p, Range rows, Range columns, const T* x, T* y) {
  for_windows<T>(team, p, [=](auto lanes, ptrdiff_t n, ptrdiff_t i, ptrdiff_t j, ptrdiff_t c, ptrdiff_t at) {
    typedef decltype(lanes) V;
    V sum = all<V>(0);
    for_taps(p, n, i, j, [&](ptrdiff_t tap) { sum += get<V>(x + tap + c); });
    set(y + at, sum * all<V>(share_of<T>(p, i, j, rows, columns)));
  });
}

template <class T>
static void avg_pool_adjoint(const Team& team, const Conv& p, Range rows, Range columns, const T* g, T* y) {
  for_images(team, p, y, [=](auto lanes, ptrdiff_t n, ptrdiff_t i, ptrdiff_t j, ptrdiff_t c, ptrdiff_t at) {
    typedef decltype(lanes) V;
    const V part = get<V>(g + at) * all<V>(share_of<T>(p, i, j, rows, columns));
    for_taps(p, n, i, j, [&](ptrdiff_t tap) { set(y + tap + c, get<V>(y + tap + c) + part); });
  });
}
