// Winograd's convolutions: what forward, transposed and kernel-gradient share.
//
// A convolution with few taps multiplies polynomials. Evaluate both at some points, multiply point by point, and
// interpolate: IN = OUT + 3 − 1 products give OUT outputs of a filter with 3 taps, where the sums as they are written
// take 3·OUT. In two dimensions, y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A for a kernel g of 3×3 and a square d of IN×IN pixels:
// F(4×4, 3×3) takes 36 products for 16 pixels instead of 144, F(2×2, 3×3) 16 for 4 instead of 36. Summed over the
// input channels, each of the IN² points is a matrix product [squares × channels]·[channels × output channels].
// (Winograd 1980; Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, arXiv:1509.09308.)
#pragma once
#include "vector.h"

namespace winograd {

// One dimension of F(OUT×OUT, 3×3): five small matrices, each as the function that applies it to FROM vectors.
template <int OUT> struct Filter;

// Points 0, 1, −1 and ∞.
template <> struct Filter<2> {
  struct Image {  // Bᵀ
    static constexpr int FROM = 4, TO = 4;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* d, typename Vec<T>::type* v) {
      v[0] = d[0] - d[2];
      v[1] = d[2] + d[1];
      v[2] = d[2] - d[1];
      v[3] = d[3] - d[1];
    }
  };
  struct Kernel {  // G
    static constexpr int FROM = 3, TO = 4;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* g, typename Vec<T>::type* u) {
      const auto ends = g[0] + g[2];
      u[0] = g[0];
      u[1] = T(0.5) * (ends + g[1]);
      u[2] = T(0.5) * (ends - g[1]);
      u[3] = g[2];
    }
  };
  struct Output {  // Aᵀ
    static constexpr int FROM = 4, TO = 2;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* m, typename Vec<T>::type* y) {
      y[0] = m[0] + m[1] + m[2];
      y[1] = m[1] - m[2] + m[3];
    }
  };
  struct OutputAdjoint {  // A
    static constexpr int FROM = 2, TO = 4;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* y, typename Vec<T>::type* m) {
      m[0] = y[0];
      m[1] = y[0] + y[1];
      m[2] = y[0] - y[1];
      m[3] = y[1];
    }
  };
  struct KernelAdjoint {  // Gᵀ
    static constexpr int FROM = 4, TO = 3;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* u, typename Vec<T>::type* g) {
      const auto half = T(0.5) * (u[1] + u[2]);
      g[0] = u[0] + half;
      g[1] = T(0.5) * (u[1] - u[2]);
      g[2] = u[3] + half;
    }
  };
};

// Points 0, ±a, ±b and ∞ with a = 5/8 and b = 25/16: errors are 2 to 4 times smaller than with the usual ±1 and ±2,
// for a·b is nearly 1; the coefficients of all but G have no rounding errors.
template <> struct Filter<4> {
  static constexpr double a = 5.0 / 8, b = 25.0 / 16, A2 = a * a, B2 = b * b;
  struct Image {
    static constexpr int FROM = 6, TO = 6;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* d, typename Vec<T>::type* v) {
      const auto even_a = d[4] - T(B2) * d[2], odd_a = d[3] - T(B2) * d[1];
      const auto even_b = d[4] - T(A2) * d[2], odd_b = d[3] - T(A2) * d[1];
      v[0] = T(A2 * B2) * d[0] + (d[4] - T(A2 + B2) * d[2]);
      v[1] = even_a + T(a) * odd_a;
      v[2] = even_a - T(a) * odd_a;
      v[3] = even_b + T(b) * odd_b;
      v[4] = even_b - T(b) * odd_b;
      v[5] = T(A2 * B2) * d[1] + (d[5] - T(A2 + B2) * d[3]);
    }
  };
  // Each row of G is divided by the product of the distances between its point and the others.
  static constexpr double AT_0 = 1 / (A2 * B2), AT_A = 1 / (2 * A2 * (A2 - B2)), AT_B = 1 / (2 * B2 * (B2 - A2));
  struct Kernel {
    static constexpr int FROM = 3, TO = 6;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* g, typename Vec<T>::type* u) {
      const auto even_a = T(AT_A) * g[0] + T(AT_A * A2) * g[2], odd_a = T(AT_A * a) * g[1];
      const auto even_b = T(AT_B) * g[0] + T(AT_B * B2) * g[2], odd_b = T(AT_B * b) * g[1];
      u[0] = T(AT_0) * g[0];
      u[1] = even_a + odd_a;
      u[2] = even_a - odd_a;
      u[3] = even_b + odd_b;
      u[4] = even_b - odd_b;
      u[5] = g[2];
    }
  };
  struct Output {
    static constexpr int FROM = 6, TO = 4;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* m, typename Vec<T>::type* y) {
      const auto even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
      y[0] = m[0] + even_a + even_b;
      y[1] = T(a) * odd_a + T(b) * odd_b;
      y[2] = T(A2) * even_a + T(B2) * even_b;
      y[3] = m[5] + T(A2 * a) * odd_a + T(B2 * b) * odd_b;
    }
  };
  struct OutputAdjoint {
    static constexpr int FROM = 4, TO = 6;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* y, typename Vec<T>::type* m) {
      const auto even_a = y[0] + T(A2) * y[2], odd_a = T(a) * y[1] + T(A2 * a) * y[3];
      const auto even_b = y[0] + T(B2) * y[2], odd_b = T(b) * y[1] + T(B2 * b) * y[3];
      m[0] = y[0];
      m[1] = even_a + odd_a;
      m[2] = even_a - odd_a;
      m[3] = even_b + odd_b;
      m[4] = even_b - odd_b;
      m[5] = y[3];
    }
  };
  struct KernelAdjoint {
    static constexpr int FROM = 6, TO = 3;
    template <class T> MG_INLINE void apply(const typename Vec<T>::type* u, typename Vec<T>::type* g) {
      const auto even_a = u[1] + u[2], even_b = u[3] + u[4];
      g[0] = T(AT_0) * u[0] + T(AT_A) * even_a + T(AT_B) * even_b;
      g[1] = T(AT_A * a) * (u[1] - u[2]) + T(AT_B * b) * (u[3] - u[4]);
      g[2] = u[5] + T(AT_A * A2) * even_a + T(AT_B * B2) * even_b;
    }
  };
};

// Two dimensions: a matrix applied to the columns and then to the rows of a square of vectors.
template <class Step, class T>
MG_INLINE void on_both_sides(const T* in, ptrdiff_t in_row, ptrdiff_t in_column, T* out, ptrdiff_t out_row,
                             ptrdiff_t out_column) {
  using V = typename Vec<T>::type;
  alignas(MG_VECTOR_BYTES) V half[Step::TO][Step::FROM];
  MG_UNROLL for (int j = 0; j < Step::FROM; j++) {
    V from[Step::FROM], to[Step::TO];
    MG_UNROLL for (int i = 0; i < Step::FROM; i++) from[i] = load(in + i * in_row + j * in_column);
    Step::template apply<T>(from, to);
    MG_UNROLL for (int i = 0; i < Step::TO; i++) half[i][j] = to[i];
  }
  MG_UNROLL for (int i = 0; i < Step::TO; i++) {
    V to[Step::TO];
    Step::template apply<T>(half[i], to);
    MG_UNROLL for (int j = 0; j < Step::TO; j++) store(out + i * out_row + j * out_column, to[j]);
  }
}

// Output channels that are multiplied at a time.
template <class T> constexpr ptrdiff_t PANEL = 2 * LANES<T>;

template <class T>
MG_INLINE void copy_lanes(const T* from, ptrdiff_t lanes, T* to) {
  if (lanes == LANES<T>) store(to, load(from));
  else for (ptrdiff_t i = 0; i < lanes; i++) to[i] = from[i];
}

// How an output is cut into squares: along rows, then down, then from image to image.
template <int OUT> struct Squares {
  ptrdiff_t images, height, width;  // in pixels
  ptrdiff_t down, across;           // in squares

  Squares(ptrdiff_t n, ptrdiff_t h, ptrdiff_t w)
      : images(n), height(h), width(w), down(divided_up(h, OUT)), across(divided_up(w, OUT)) {}

  ptrdiff_t lines() const { return images * down; }
  ptrdiff_t count() const { return lines() * across; }

  struct Place { ptrdiff_t image, top, left; };
  Place place(ptrdiff_t square) const {
    const ptrdiff_t line = square / across;
    return {line / down, line % down * OUT, square % across * OUT};
  }
  // The pixel with which a line of squares begins.
  ptrdiff_t pixel(ptrdiff_t line) const { return (line / down * height + line % down * OUT) * width; }
};

// Images of which `c` channels are used: a pixel begins `step` elements behind the one before.
template <class T> struct Images {
  const T* data;
  ptrdiff_t h, w, c, step;
};

// Where the vectors of a transformed square go: `point` apart for the points of one, and `block` apart for every
// `vectors` vectors of channels.
struct Layout { ptrdiff_t point, block, vectors; };

// Transforms all channels of one square of pixels. What lies outside of the image is zero.
template <class Step, class T>
static __attribute__((noinline)) void transform_square(const Images<T>& x, ptrdiff_t image, ptrdiff_t top,
                                                       ptrdiff_t left, T* out, const Layout& to) {
  constexpr ptrdiff_t L = LANES<T>, FROM = Step::FROM;
  const ptrdiff_t i_begin = at_least(0, -top), i_end = at_most(FROM, x.h - top);
  const ptrdiff_t j_begin = at_least(0, -left), j_end = at_most(FROM, x.w - left);
  const bool inside = i_begin == 0 && j_begin == 0 && i_end == FROM && j_end == FROM;
  const T* const corner = x.data + ((image * x.h + top) * x.w + left) * x.step;
  alignas(MG_VECTOR_BYTES) T patch[FROM * FROM * L];
  if (!inside || x.c % L) memset(patch, 0, sizeof patch);
  for (ptrdiff_t c = 0, vector = 0; c < x.c; c += L, vector++) {
    const ptrdiff_t lanes = at_most(L, x.c - c);
    const bool direct = inside && lanes == L;
    if (!direct)
      for (ptrdiff_t i = i_begin; i < i_end; i++)
        for (ptrdiff_t j = j_begin; j < j_end; j++)
          copy_lanes(corner + (i * x.w + j) * x.step + c, lanes, patch + (i * FROM + j) * L);
    on_both_sides<Step>(direct ? corner + c : patch, direct ? x.w * x.step : FROM * L, direct ? x.step : L,
                        out + vector / to.vectors * to.block + vector % to.vectors * L, Step::TO * to.point, to.point);
  }
}

}  // namespace winograd
