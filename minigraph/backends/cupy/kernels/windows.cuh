// Convolutions' windows over N,H,W,C images: gathered as the rows of a matrix, added up again, or met one by one.
#pragma once
#include "places.cuh"

// The numbers of a convolution: images of H×W×(GROUPS·C), outputs of OUT_H×OUT_W, windows of R×S taps that lie DOWN and
// ACROSS apart, and move by DY and DX; padding of TOP rows and LEFT columns. A matrix row is [group][tap][channel].
template <int H_, int W_, int C_, int GROUPS_, int OUT_H_, int OUT_W_, int R_, int S_, int DY_, int DX_, int DOWN_,
          int ACROSS_, int TOP_, int LEFT_>
struct Windows {
  static constexpr int H = H_, W = W_, C = C_, GROUPS = GROUPS_, OUT_H = OUT_H_, OUT_W = OUT_W_, R = R_, S = S_;
  static constexpr int DY = DY_, DX = DX_, DOWN = DOWN_, ACROSS = ACROSS_, TOP = TOP_, LEFT = LEFT_, TAPS = R_ * S_;
  static constexpr Index DEPTH = (Index)TAPS * C_, CHANNELS = (Index)GROUPS_ * C_;

  // Where a tap of a window lies in the image, and whether that is not in the padding.
  static MG_INLINE int row(int out, int r) { return out * DY + r * DOWN - TOP; }
  static MG_INLINE int column(int out, int s) { return out * DX + s * ACROSS - LEFT; }
  static MG_INLINE bool inside(int h, int w) { return 0 <= h && h < H && 0 <= w && w < W; }

  // The window that meets a place of the image with a tap: −1 if none does.
  static MG_INLINE int window(int place, int stride, int windows) {
    return place < 0 || place % stride != 0 || place / stride >= windows ? -1 : place / stride;
  }
  static MG_INLINE int window_down(int h, int r) { return window(h + TOP - r * DOWN, DY, OUT_H); }
  static MG_INLINE int window_across(int w, int s) { return window(w + LEFT - s * ACROSS, DX, OUT_W); }
};

template <class T, int V> MG_INLINE Pack<T, V> zeros() {
  Pack<T, V> pack;
#pragma unroll
  for (int v = 0; v < V; v++) pack.at[v] = from_float<T>(0);
  return pack;
}

// matrix[image][row][column of windows] = the window, for ROWS rows of windows from FIRST on.
template <class G, int V, Index IMAGES, int FIRST, int ROWS, class T> MG_INLINE void im2col(const T* x, T* matrix) {
  constexpr Index SIZE = IMAGES * ROWS * G::OUT_W * G::GROUPS * (G::DEPTH / V);
  typedef Counter<SIZE> N;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    N rest = (N)i;
    const int c = rest % (N)(G::C / V) * V;
    rest /= (N)(G::C / V);
    const int s = rest % (N)G::S;
    rest /= (N)G::S;
    const int r = rest % (N)G::R;
    rest /= (N)G::R;
    const int group = rest % (N)G::GROUPS;
    rest /= (N)G::GROUPS;
    const int w = G::column(rest % (N)G::OUT_W, s);
    rest /= (N)G::OUT_W;
    const int h = G::row(FIRST + (int)(rest % (N)ROWS), r);
    const Index pixel = ((Index)(rest / (N)ROWS) * G::H + h) * G::W + w;
    const bool inside = G::inside(h, w);
    store<V>(matrix + i * V, inside ? load<V>(x + pixel * G::CHANNELS + group * G::C + c) : zeros<T, V>());
  }
}

// The adjoint: to each element of the image rows from TOP_ROW on, HEIGHT of them, goes the sum of the matrix' elements
// that it is gathered into. The matrix has ROWS rows of windows from FIRST on, which are all that meet these image rows.
template <class G, int V, Index IMAGES, int TOP_ROW, int HEIGHT, int FIRST, int ROWS, class T>
MG_INLINE void col2im(const Compute<T>* matrix, T* x) {
  constexpr Index SIZE = IMAGES * HEIGHT * G::W * (G::CHANNELS / V);
  typedef Counter<SIZE> N;
  for (Index i = thread_index(); i < SIZE; i += thread_count()) {
    N rest = (N)i;
    const int c = rest % (N)(G::C / V) * V;
    rest /= (N)(G::C / V);
    const int group = rest % (N)G::GROUPS;
    rest /= (N)G::GROUPS;
    const int w = rest % (N)G::W;
    rest /= (N)G::W;
    const int h = TOP_ROW + (int)(rest % (N)HEIGHT);
    const Index image = rest / (N)HEIGHT;
    Compute<T> sum[V] = {};
    for (int r = 0; r < G::R; r++) {
      const int i_out = G::window_down(h, r);
      if (i_out < 0) continue;
      for (int s = 0; s < G::S; s++) {
        const int j_out = G::window_across(w, s);
        if (j_out < 0) continue;
        const Index row = ((image * ROWS + i_out - FIRST) * G::OUT_W + j_out) * G::GROUPS + group;
        const Pack<Compute<T>, V> pack = load<V>(matrix + row * G::DEPTH + (r * G::S + s) * G::C + c);
#pragma unroll
        for (int v = 0; v < V; v++) sum[v] += pack.at[v];
      }
    }
    Pack<T, V> total;
#pragma unroll
    for (int v = 0; v < V; v++) total.at[v] = from_float<T>(sum[v]);
    store<V>(x + ((image * G::H + h) * G::W + w) * G::CHANNELS + group * G::C + c, total);
  }
}
