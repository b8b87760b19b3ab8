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
template <class V> MG_INLINE V absolute(V x) { return choose(x == all<V>(0), all<V>(0), choose(x < all<V>(0), (V)-x, x)); }
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

// An epilogue whose rows begin further down: one matrix of a batch.
template <class E> struct Below {
  E& epilogue;
  ptrdiff_t above;
  template <class V> MG_INLINE_METHOD void put(ptrdiff_t r, ptrdiff_t c, V value) const { epilogue.put(above + r, c, value); }
  void done(ptrdiff_t first, ptrdiff_t rows, ptrdiff_t column, ptrdiff_t columns, const Team& team) const {
    epilogue.done(above + first, rows, column, columns, team);
  }
};
