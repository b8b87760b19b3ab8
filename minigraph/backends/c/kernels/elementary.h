// The arithmetic of one element, for numbers and for vectors alike: what generated loops are written in.
#pragma once
#include "vector.h"

typedef Vec<float>::type floats;
typedef Vec<double>::type doubles;

template <class V> struct Lane { typedef V type; };
template <> struct Lane<floats> { typedef float type; };
template <> struct Lane<doubles> { typedef double type; };

template <class V, class T> MG_INLINE V get(const T* p) { return *(const V*)p; }
template <class V, class T> MG_INLINE void set(T* p, V v) { *(V*)p = v; }
template <class V> MG_INLINE V all(typename Lane<V>::type x) { return x - V{}; }

// A condition chooses lane by lane; of a number it is a plain condition.
template <class M, class V> MG_INLINE V choose(M condition, V yes, V no) { return condition ? yes : no; }

// Like NumPy's: NaN wins.
template <class V> MG_INLINE V maximum(V a, V b) { return choose(a >= b, a, choose(a != a, a, b)); }
template <class V> MG_INLINE V minimum(V a, V b) { return choose(a <= b, a, choose(a != a, a, b)); }
template <class V> MG_INLINE V relu(V x) { return choose(x <= all<V>(0), all<V>(0), x); }
template <class V> MG_INLINE V absolute(V x) { return choose(x == all<V>(0), all<V>(0), choose(x < all<V>(0), -x, x)); }
template <class V> MG_INLINE V sign_of(V x) {
  return choose(x > all<V>(0), all<V>(1), choose(x < all<V>(0), all<V>(-1), x));
}

// Functions of the C library, lane by lane; the compiler makes vectors of those that the processor has.
#define MG_LANES(name, of_float, of_double)                                   \
  MG_INLINE float name(float x) { return of_float(x); }                       \
  MG_INLINE double name(double x) { return of_double(x); }                    \
  MG_INLINE floats name(floats x) {                                           \
    floats y;                                                                 \
    MG_UNROLL for (ptrdiff_t i = 0; i < LANES<float>; i++) y[i] = of_float(x[i]);   \
    return y;                                                                 \
  }                                                                           \
  MG_INLINE doubles name(doubles x) {                                         \
    doubles y;                                                                \
    MG_UNROLL for (ptrdiff_t i = 0; i < LANES<double>; i++) y[i] = of_double(x[i]); \
    return y;                                                                 \
  }
MG_LANES(square_root, __builtin_sqrtf, __builtin_sqrt)
MG_LANES(round_down, __builtin_floorf, __builtin_floor)
MG_LANES(exponential, expf, exp)
MG_LANES(exponential_minus_1, expm1f, expm1)
MG_LANES(logarithm, logf, log)
MG_LANES(logarithm_1_plus, log1pf, log1p)
MG_LANES(sine, sinf, sin)
MG_LANES(cosine, cosf, cos)
MG_LANES(hyperbolic_tangent, tanhf, tanh)
MG_LANES(error_function, erff, erf)
#undef MG_LANES

MG_INLINE float power(float x, float y) { return powf(x, y); }
MG_INLINE double power(double x, double y) { return pow(x, y); }
template <class V> MG_INLINE V power(V x, V y) {
  V z;
  for (size_t i = 0; i < sizeof(V) / sizeof(x[0]); i++) z[i] = power(x[i], y[i]);
  return z;
}

template <class V> MG_INLINE V reciprocal_root(V x) { return all<V>(1) / square_root(x); }

// With e = exp(−|x|): 1/(1 + e) for x ≥ 0, e/(1 + e) below. Never overflows; small results keep their digits.
template <class V> MG_INLINE V sigmoid(V x) {
  const V e = exponential(-absolute(x)), one = all<V>(1);
  return choose(x >= all<V>(0), one, choose(x < all<V>(0), e, x)) / (one + e);
}
// log(1 + exp x), as max(x, 0) + log1p(exp(−|x|)).
template <class V> MG_INLINE V softplus(V x) { return relu(x) + logarithm_1_plus(exponential(-absolute(x))); }
// x above 0, α·(exp(x) − 1) below; the two sides apart, so that α = 0 and x = ∞ do not meet.
template <class V> MG_INLINE V elu(V x, V alpha) { return relu(x) + alpha * exponential_minus_1(minimum(x, all<V>(0))); }
template <class V> MG_INLINE V leaky_relu(V x, V alpha) { return relu(x) + alpha * minimum(x, all<V>(0)); }
template <class V> MG_INLINE V clip(V x, V low, V high) { return minimum(maximum(x, low), high); }

// --- sums that a loop keeps for each column -----------------------------------------------------------------------

// Blocks of rows are summed in the loop's own type, and the blocks in double: the error does not grow with the rows.
template <class T> MG_INLINE void add_to(double* total, T value) { *total += (double)value; }
MG_INLINE void add_to(double* total, floats v) { for (ptrdiff_t i = 0; i < LANES<float>; i++) total[i] += (double)v[i]; }
MG_INLINE void add_to(double* total, doubles v) { for (ptrdiff_t i = 0; i < LANES<double>; i++) total[i] += v[i]; }

// Number, mean and Σ(x − mean)² of what has been seen of each column: three arrays, one behind the other.
// Two sets are joined as Chan, Golub & LeVeque do, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979.
MG_INLINE void join_moments(double* moments, ptrdiff_t columns, ptrdiff_t c, double n, double mean, double squares) {
  if (n == 0) return;
  double &n0 = moments[c], &mean0 = moments[columns + c], &squares0 = moments[2 * columns + c];
  const double both = n0 + n, delta = mean - mean0;
  mean0 += delta * (n / both);
  squares0 += squares + delta * delta * (n0 * n / both);
  n0 = both;
}

MG_INLINE double at_least_0(double x) { return x < 0 ? 0 : x; }

// A block's moments from sums about `shift`, an element of the block: no digits are lost where the mean is large.
template <class T>
MG_INLINE void add_moments(double* moments, ptrdiff_t columns, ptrdiff_t c, double n, T shift, T sum, T squares) {
  const double mean = (double)sum / n;
  join_moments(moments, columns, c, n, (double)shift + mean, at_least_0((double)squares - (double)sum * mean));
}
template <class V>
MG_INLINE void add_moments_of(double* moments, ptrdiff_t columns, ptrdiff_t c, double n, V shift, V sum, V squares) {
  for (size_t i = 0; i < sizeof(V) / sizeof(shift[0]); i++)
    add_moments(moments, columns, c + i, n, shift[i], sum[i], squares[i]);
}
MG_INLINE void add_moments(double* m, ptrdiff_t columns, ptrdiff_t c, double n, floats shift, floats sum, floats squares) {
  add_moments_of(m, columns, c, n, shift, sum, squares);
}
MG_INLINE void add_moments(double* m, ptrdiff_t columns, ptrdiff_t c, double n, doubles shift, doubles sum, doubles squares) {
  add_moments_of(m, columns, c, n, shift, sum, squares);
}

// An epilogue whose rows begin further down: one matrix of a batch.
template <class E> struct Below {
  E& epilogue;
  ptrdiff_t above;
  template <class V> MG_INLINE_METHOD void put(ptrdiff_t r, ptrdiff_t c, V value) const { epilogue.put(above + r, c, value); }
  void done(ptrdiff_t first, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns, const Team& team) const {
    epilogue.done(above + first, rows, column, columns, team);
  }
};
