// Pooling over any windows of N,H,W,C images: a thread computes V channels of one result, from all that it is made of.
// (Windows that tile the image are part of generated loops.)
#pragma once
#include "group.cuh"
#include "places.cuh"

// Windows of KH × KW taps over H × W pixels: window (i, j) begins at pixel (i·SH − TOP, j·SW − LEFT).
template <int N, int H, int W, int C, int OH, int OW, int KH, int KW, int SH, int SW, int DH, int DW, int TOP, int LEFT>
struct Pooling {
  static constexpr Index IMAGE = (Index)H * W * C, RESULT = (Index)OH * OW * C;
  static constexpr int TAPS = KH * KW;

  // Call `f(offset in the image, number of the tap)` for each element of a window that there is, row by row.
  template <class F> static MG_INLINE void each_tap(int i, int j, F f) {
    for (int a = 0; a < KH; a++) {
      const int row = i * SH - TOP + a * DH;
      if (row < 0 || row >= H) continue;
      for (int b = 0; b < KW; b++) {
        const int column = j * SW - LEFT + b * DW;
        if (column >= 0 && column < W) f(((Index)row * W + column) * C, a * KW + b);
      }
    }
  }
  // Call `f(i, j, number of the tap)` for each window that a pixel is an element of.
  template <class F> static MG_INLINE void each_window(int row, int column, F f) {
    const int y = row + TOP, x = column + LEFT;
    for (int i = first(y, KH, SH, DH); i <= y / SH && i < OH; i++) {
      if ((y - i * SH) % DH != 0) continue;
      for (int j = first(x, KW, SW, DW); j <= x / SW && j < OW; j++)
        if ((x - j * SW) % DW == 0) f(i, j, (y - i * SH) / DH * KW + (x - j * SW) / DW);
    }
  }
  // The first window that reaches as far as a pixel.
  static MG_INLINE int first(int pixel, int taps, int stride, int dilation) {
    const int before = pixel - (taps - 1) * dilation;
    return before <= 0 ? 0 : (before + stride - 1) / stride;
  }
  // Call `f(image, row, column, channel)` for each pack of V channels of N arrays of HEIGHT × WIDTH pixels.
  template <int V, int HEIGHT, int WIDTH, class F> static MG_INLINE void each(F f) {
    constexpr Index SIZE = (Index)N * HEIGHT * WIDTH * (C / V);
    typedef Counter<SIZE> I;
    for (Index t = thread_index(); t < SIZE; t += thread_count()) {
      const I pixel = (I)t / (I)(C / V), line = pixel / (I)WIDTH;
      f((Index)(line / (I)HEIGHT), (int)(line % (I)HEIGHT), (int)(pixel % (I)WIDTH), (int)((I)t % (I)(C / V)) * V);
    }
  }
  template <int V, class F> static MG_INLINE void each_result(F f) { each<V, OH, OW>(f); }
  template <int V, class F> static MG_INLINE void each_pixel(F f) { each<V, H, W>(f); }
  static MG_INLINE Index result(Index n, int i, int j, int c) { return n * RESULT + ((Index)i * OW + j) * C + c; }
  static MG_INLINE Index pixel(Index n, int row, int column, int c) {
    return n * IMAGE + ((Index)row * W + column) * C + c;
  }
};

template <class T, int V> MG_INLINE Pack<Compute<T>, V> floats_at(const T* p) {
  const Pack<T, V> stored = load<V>(p);
  Pack<Compute<T>, V> values;
#pragma unroll
  for (int v = 0; v < V; v++) values.at[v] = to_float(stored.at[v]);
  return values;
}
template <class T, int V> MG_INLINE void store_floats(T* p, const Pack<Compute<T>, V>& values) {
  Pack<T, V> stored;
#pragma unroll
  for (int v = 0; v < V; v++) stored.at[v] = from_float<T>(values.at[v]);
  store<V>(p, stored);
}
template <class A, int V> MG_INLINE Pack<A, V> packed(A x) {
  Pack<A, V> values;
#pragma unroll
  for (int v = 0; v < V; v++) values.at[v] = x;
  return values;
}

template <class P, class T, int V> MG_INLINE void max_pool(const T* x, T* y) {
  typedef Compute<T> A;
  P::template each_result<V>([=](Index n, int i, int j, int c) {
    Pack<A, V> top = packed<A, V>(Larger::start<A>());
    P::each_tap(i, j, [&](Index at, int) {
      const Pack<A, V> here = floats_at<T, V>(x + n * P::IMAGE + at + c);
#pragma unroll
      for (int v = 0; v < V; v++) top.at[v] = maximum(top.at[v], here.at[v]);
    });
    store_floats<T, V>(y + P::result(n, i, j, c), top);
  });
}

// No tap: where the largest is NaN, nothing equals it. PLACE is unsigned, and its last number stays free for this.
template <class PLACE> constexpr PLACE NOWHERE = (PLACE)~(PLACE)0;

// The first tap of a window with the largest element, for each channel.
template <class P, class PLACE, class T, int V>
MG_INLINE Pack<PLACE, V> first_largest(const T* image, int i, int j, int c) {
  typedef Compute<T> A;
  Pack<A, V> top = packed<A, V>(Larger::start<A>());
  Pack<PLACE, V> place = packed<PLACE, V>(NOWHERE<PLACE>);
  P::each_tap(i, j, [&](Index at, int tap) {
    const Pack<A, V> here = floats_at<T, V>(image + at + c);
#pragma unroll
    for (int v = 0; v < V; v++) {
      const bool found = here.at[v] > top.at[v] || (here.at[v] == top.at[v] && place.at[v] == NOWHERE<PLACE>);
      if (found) place.at[v] = (PLACE)tap;
      top.at[v] = maximum(top.at[v], here.at[v]);
    }
  });
#pragma unroll
  for (int v = 0; v < V; v++)
    if (top.at[v] != top.at[v]) place.at[v] = NOWHERE<PLACE>;
  return place;
}

template <class P, class PLACE, class T, int V> MG_INLINE void max_pool_places(const T* x, PLACE* places) {
  P::template each_result<V>([=](Index n, int i, int j, int c) {
    store<V>(places + P::result(n, i, j, c), first_largest<P, PLACE, T, V>(x + n * P::IMAGE, i, j, c));
  });
}

// g, added where the first largest element of each window is: each pixel asks the windows that it is in.
template <class P, class PLACE, class T, int V> MG_INLINE void max_pool_adjoint(const PLACE* places, const T* g, T* y) {
  typedef Compute<T> A;
  P::template each_pixel<V>([=](Index n, int row, int column, int c) {
    Pack<A, V> sum = packed<A, V>(0);
    P::each_window(row, column, [&](int i, int j, int tap) {
      const Index at = P::result(n, i, j, c);
      const Pack<PLACE, V> place = load<V>(places + at);
      const Pack<A, V> share = floats_at<T, V>(g + at);
#pragma unroll
      for (int v = 0; v < V; v++) sum.at[v] += place.at[v] == (PLACE)tap ? share.at[v] : (A)0;
    });
    store_floats<T, V>(y + P::pixel(n, row, column, c), sum);
  });
}

// The element of `values` where the first largest element of each window of x is.
template <class P, class PLACE, class T, int V> MG_INLINE void max_pool_select(const T* x, const T* values, T* y) {
  P::template each_result<V>([=](Index n, int i, int j, int c) {
    const Pack<PLACE, V> place = first_largest<P, PLACE, T, V>(x + n * P::IMAGE, i, j, c);
    Pack<Compute<T>, V> found = packed<Compute<T>, V>(0);
    P::each_tap(i, j, [&](Index at, int tap) {
      const Pack<Compute<T>, V> here = floats_at<T, V>(values + n * P::IMAGE + at + c);
#pragma unroll
      for (int v = 0; v < V; v++)
        if (place.at[v] == (PLACE)tap) found.at[v] = here.at[v];
    });
    store_floats<T, V>(y + P::result(n, i, j, c), found);
  });
}

// How many taps of a window lie within [begin, end), which may reach into the padding.
MG_INLINE int counted(int first, int taps, int dilation, int begin, int end) {
  const int before = first < begin ? (begin - first + dilation - 1) / dilation : 0;
  const int until = first < end ? (end - first + dilation - 1) / dilation : 0;
  return (until < taps ? until : taps) - (before < taps ? before : taps);
}
// What the average of a window is multiplied with: 1 by the number of elements that count, of some rows and columns.
template <int KH, int KW, int SH, int SW, int DH, int DW, int TOP, int LEFT, int ROW, int ROWS, int COLUMN, int COLUMNS>
struct Shares {
  template <class A> static MG_INLINE A of(int i, int j) {
    const int rows = counted(i * SH - TOP, KH, DH, ROW, ROWS);
    const int columns = counted(j * SW - LEFT, KW, DW, COLUMN, COLUMNS);
    return (A)1 / (A)((Index)rows * columns);
  }
};

template <class P, class S, class T, int V> MG_INLINE void avg_pool(const T* x, T* y) {
  typedef Compute<T> A;
  P::template each_result<V>([=](Index n, int i, int j, int c) {
    Pack<A, V> sum = packed<A, V>(0);
    P::each_tap(i, j, [&](Index at, int) {
      const Pack<A, V> here = floats_at<T, V>(x + n * P::IMAGE + at + c);
#pragma unroll
      for (int v = 0; v < V; v++) sum.at[v] += here.at[v];
    });
    const A share = S::template of<A>(i, j);
#pragma unroll
    for (int v = 0; v < V; v++) sum.at[v] *= share;
    store_floats<T, V>(y + P::result(n, i, j, c), sum);
  });
}

template <class P, class S, class T, int V> MG_INLINE void avg_pool_adjoint(const T* g, T* y) {
  typedef Compute<T> A;
  P::template each_pixel<V>([=](Index n, int row, int column, int c) {
    Pack<A, V> sum = packed<A, V>(0);
    P::each_window(row, column, [&](int i, int j, int) {
      const Pack<A, V> here = floats_at<T, V>(g + P::result(n, i, j, c));
      const A share = S::template of<A>(i, j);
#pragma unroll
      for (int v = 0; v < V; v++) sum.at[v] += here.at[v] * share;
    });
    store_floats<T, V>(y + P::pixel(n, row, column, c), sum);
  });
}
